"""Start ranks as clones of a zygote, which imports slow modules once for all calls.

Each call has a template of its own, as in `clone`. It is a fork of the zygote, not a fresh interpreter. See
`remote.zygote`.
"""

from __future__ import annotations

import os
import threading

from spawnx.launchers import likeness
from spawnx.launchers.clone import CloneLauncher, Slower, launch
from spawnx.launchers.template import CantServe
from spawnx.launchers.zygote import Zygote
from spawnx.remote import preload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.guard.child import Child
    from spawnx.launchers.template import Template, TemplateRequest
    from spawnx.launchers.threads import Job


class ForkserverLauncher(CloneLauncher):
    """See `launchers.contract.Launcher`. Linux, with pidfds and the C core."""

    name = "forkserver"

    def _serve(self, template: Template, modules: tuple[str, ...]) -> None:
        # The template of the call imports all other modules. The standard library's are quick to import, and differ
        # from call to call. The main module is user code.
        slow = tuple(name for name in modules if not preload.is_of_stdlib(name) and name != "__main__")
        template.serve(lambda request, job: _clone_zygote(request, job, template, slow))


def _clone_zygote(request: TemplateRequest, job: Job, template: Template, modules: tuple[str, ...]) -> Child:
    """Clone the zygote, or a new one if it has died or its surroundings have changed; see `Zygote.clone`.

    Raises:
        PreloadGivenUp: the zygote can't be cloned after its imports.
        CantServe: no zygote can serve the call, for another reason.
        OSError: the zygote could not be cloned.
    """
    global _zygote  # noqa: PLW0603 - one per process
    with _lock:
        try:
            like = likeness.of(request, modules)
        except OSError as error:
            raise CantServe(f"the state that a template must have can't be read: {error}") from error
        for _ in range(2):
            if job.cancelled:
                raise CantServe("the call was cancelled")
            if _zygote is not None and set(modules) < set(_zygote.modules):
                # The zygote has imported modules that this call's ranks must not find imported. It is kept for the next
                # call that may have them all.
                return launch(request, template.backend)
            if _zygote is not None and (differences := likeness.changed(_zygote.like, like)):
                _close(f"changed since the zygote was started: {', '.join(differences)}")
            served_before = _zygote is not None
            _zygote = _zygote or Zygote(like, job, template, modules, request)
            try:
                child = _zygote.clone(request, job)
            except BaseException as error:
                # After any error, a part of this request may have been sent: the zygote would read it as a part of the
                # next call's request.
                _close("it has died" if isinstance(error, ConnectionError) else "")
                if not isinstance(error, ConnectionError):
                    raise
            else:
                template.on_end = _zygote.claim()
                if served_before:
                    _slower.forget()
                return child
        raise CantServe("two zygotes in a row died when they were asked for a template")


def _close(why: str) -> None:
    """End the zygote, and log why unless `why` is empty."""
    global _zygote
    zygote, _zygote = _zygote, None
    if zygote is not None:
        zygote.retire()
        if why:
            _slower.say("the zygote of the start method forkserver is replaced: %s", why)


def stop() -> None:
    """End the zygote, if there is one. The next call starts another."""
    with _lock:
        _close("")


def _forget() -> None:
    """In a forked child, close the fds of the parent's zygote, which ends when no process has its channel open."""
    global _zygote, _lock
    if _zygote is not None:
        _zygote.forget()
    _zygote, _lock = None, threading.Lock()


_zygote: Zygote | None = None
_slower = Slower()
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

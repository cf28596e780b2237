"""Ranks cloned from a kept template: it has imported what is slow to import before the first call, once for all.

Each call has a template of its own, as by `clone`; here it is forked from the kept one, not a fresh interpreter. See
`remote.kept`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import sys
import threading
from functools import partial

from spawnx import mp_private
from spawnx.backends.contract import FORBIDDEN, Program
from spawnx.backends.python import wait_readable
from spawnx.helper import Helper, connection, told
from spawnx.launchers import likeness
from spawnx.launchers.clone import CloneLauncher, Slower, launch
from spawnx.launchers.message import command_line
from spawnx.launchers.template import PERMANENT, CantServe, PreloadGivenUp
from spawnx.payload import to_memory
from spawnx.remote import preload, surroundings, wire
from spawnx.remote.table import signals_of
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from spawnx.launchers.template import Errand, Template
    from spawnx.launchers.thread import Job


# Seconds that a kept template may take to answer when the call was cancelled; one that takes longer is stopped.
_ANSWERS_WITHIN = 1.0
# Of socket.shutdown(): SHUT_RDWR.
_BOTH_WAYS = 2


class ForkserverLauncher(CloneLauncher):
    """See `launchers.Launcher`. Linux, with pidfds and the C core.

    Attributes:
        name: "forkserver"; "exec" if no template could serve.
    """

    name = "forkserver"

    def _serve(self, template: Template, modules: tuple[str, ...]) -> None:
        # The standard library's are quick to import, and differ from caller to caller, and the main module is the
        # user's: these are imported by the template of the call.
        slow = tuple(name for name in modules if not preload.is_of_stdlib(name) and name != "__main__")
        template.serve(lambda errand, job: _clone_kept(errand, job, template, slow))


def _clone_kept(errand: Errand, job: Job, template: Template, modules: tuple[str, ...]) -> Helper:
    """Clone the kept template, or another one if that is gone or is no longer right; see `KeptTemplate.clone`.

    Raises:
        PreloadGivenUp: what it imported can't be cloned.
        CantServe: there is none, for another reason.
        OSError: it could not be cloned.
    """
    global _kept  # noqa: PLW0603 - one per process
    with _lock:
        try:
            like = likeness.of(errand, modules)
        except OSError as error:
            raise CantServe(f"what a template would have to be like can't be told: {error}") from error
        for _ in range(2):
            if job.cancelled:
                raise CantServe("the call was cancelled")
            if _kept is not None and set(modules) < set(_kept.modules):
                # This call's ranks must not find what that one has imported: it serves the next one that does.
                return launch(errand, template.backend)
            if _kept is not None and (differences := likeness.changed(_kept.like, like)):
                _close(f"what has changed since it was started: {', '.join(differences)}")
            served_before = _kept is not None
            _kept = _kept or KeptTemplate(like, job, template, modules, errand)
            try:
                helper = _kept.clone(errand, job)
            except BaseException as error:
                # Whatever it was, an errand may be half-way to it, and would be the next call's.
                _close("it has died" if isinstance(error, ConnectionError) else "")
                if not isinstance(error, ConnectionError):
                    raise
            else:
                template.on_end = _kept.claim()
                if served_before:
                    _slower.forget()
                return helper
        raise CantServe("the kept template dies when it is asked to clone itself")


def _close(why: str) -> None:
    """End the kept template, and say why."""
    global _kept
    kept, _kept = _kept, None
    if kept is not None:
        kept.retire()
        if why:
            _slower.say("another template is kept for the start method forkserver: %s", why)


def stop() -> None:
    """End the kept template, if there is one. The next call makes another."""
    with _lock:
        _close("")


class KeptTemplate:
    """The kept template, as the supervisor sees it: a child of it, which ends with it.

    Args:
        like: what it was started with; see `likeness`.
        job: of the launching thread, in which it is started; it ends if that is cancelled before it is ready.
        template: for which it is started.
        modules: what it imports.
        errand: for which it is started: on whose processors, and with whose resource tracker.

    Raises:
        PreloadGivenUp: what it imported can't be cloned.
        CantServe: it could not be started, or it has ended.
    """

    def __init__(
        self,
        like: dict[str, object],
        job: Job,
        template: Template,
        modules: tuple[str, ...],
        errand: Errand,
    ) -> None:
        self.like = like
        self.modules = modules
        self._backend = template.backend
        self._claims, self._claims_lock = 1, threading.Lock()
        try:
            with contextlib.ExitStack() as opened:
                self._channel, theirs = connection()
                opened.callback(theirs.close)  # enter_context imports inspect (CPython 3.15)
                file = to_memory("spawnx-order", memoryview(b""))
                opened.callback(os.close, file)
                self._helper = Helper.launch(self._backend, _program(theirs.fileno(), file, modules, errand))
        except OSError as error:
            raise CantServe(f"no template could be started: {error}") from error
        template.guard.hold_helper(self._helper.pidfd)
        # Not its own method: it would never be collected.
        self._end = mp_private.close_late(self, partial(_end, self._channel, self._helper))
        self._wait_ready(job, errand)

    def _wait_ready(self, job: Job, errand: Errand) -> None:
        job.on_cancel = self._helper.kill
        if job.cancelled:
            self._helper.kill()
        try:
            word, _ = self._hear(1 + wire.MASK + wire.MOST_TEXT)
        except CantServe:
            self.close()
            raise
        finally:
            job.on_cancel = None
        errand.pending.update(signals_of(int.from_bytes(word[1 : 1 + wire.MASK], "little")))
        if word.startswith(wire.READY):
            return
        code, reason = self.close(), word[1 + wire.MASK :].decode(errors="replace")
        if word.startswith(wire.GAVE_UP):
            raise PreloadGivenUp(reason)
        raise CantServe(reason or f"the kept template ended {told(code)}")

    def _hear(self, most: int, cancelled: int = -1) -> tuple[bytes, list[int]]:
        """What it says next, and the fds that come with it; b"" if it has died.

        Not by the end of the channel alone: a process that another thread has forked just then may have the other one.

        Args:
            most: how many bytes it may say.
            cancelled: an fd that is readable when the call was cancelled: then one that is stopped is not waited for.
        """
        with standard_library():
            import socket

        says = [self._channel.fileno(), self._helper.pidfd]
        wait_readable([*says, cancelled] if cancelled >= 0 else says, None)
        if cancelled >= 0 and not wait_readable(says, _ANSWERS_WITHIN):
            raise CantServe("the call was cancelled, and the kept template doesn't answer")
        try:
            word, fds, _, _ = socket.recv_fds(self._channel, most, 1, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionError):
            return b"", []
        except OSError as error:
            raise _unheard(error) from None
        return word, fds

    def clone(self, errand: Errand, job: Job) -> Helper:
        """Have it cloned into the template of a call, unless the job is cancelled and it doesn't answer.

        Raises:
            ConnectionError: it has died.
            CantServe: the system never clones; or it doesn't answer.
            OSError: it could not be cloned.
        """
        number, pidfds = self._ask(errand, job)
        if number in PERMANENT:
            raise CantServe(os.strerror(number), for_good=True)
        if number:
            raise OSError(number, os.strerror(number))
        if not pidfds:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Helper(self._backend, 0, pidfds[0])

    def claim(self) -> Callable[[], None]:
        """Have it last until the returned function is called: while a template that is its child is at work.

        That one's ranks are given to the nearest ancestor that adopts orphans: it must not be an orphan itself.
        """
        with self._claims_lock:
            self._claims += 1
        return self.retire

    def retire(self) -> None:
        """Let it end, when nobody claims it any more."""
        with self._claims_lock:
            self._claims -= 1
            last = self._claims == 0
        if last:
            self.close()

    def _ask(self, errand: Errand, job: Job) -> tuple[int, list[int]]:
        """Send it an errand; the errno that it answers, and a pidfd of the template that it has made.

        Raises:
            ConnectionError: it has died.
        """
        streams = surroundings.open_streams()
        what = {
            "order": errand.order,
            "arguments": errand.arguments,
            "keep": errand.keep,
            "streams": streams,
            "surroundings": surroundings.present(errand.affinity),
        }
        file = to_memory("spawnx-errand", memoryview(pickle.dumps(what)))
        try:
            fds = [file, *(fd for fd in (0, 1, 2) if streams[fd]), *errand.keep]
            _send(self._channel, fds)
            answer, pidfds = self._hear_unless_cancelled(4, job)
        except ConnectionError:
            raise
        except OSError as error:
            raise _unheard(error) from None
        finally:
            os.close(file)
        if not answer:
            raise ConnectionResetError
        return int.from_bytes(answer, "little"), pidfds

    def _hear_unless_cancelled(self, most: int, job: Job) -> tuple[bytes, list[int]]:
        ours, theirs = connection()
        with ours, theirs:
            # By a method of an object: that does no harm when the fd is closed, and its number another one's.
            job.on_cancel = partial(theirs.shutdown, _BOTH_WAYS)
            try:
                if job.cancelled:
                    theirs.shutdown(_BOTH_WAYS)
                return self._hear(most, ours.fileno())
            finally:
                job.on_cancel = None

    def close(self) -> int:
        """Let it end, and reap it; its exit code."""
        code: int = self._end()
        return code

    def forget(self) -> None:
        """In a forked child: close what is open here, too."""
        self._channel.close()
        self._helper.close()


def _program(channel: int, file: int, modules: tuple[str, ...], errand: Errand) -> Program:
    tracker: int = errand.arguments["tracker"]  # type: ignore[assignment]
    arguments: dict[str, object] = {
        "channel": channel,
        "parent": os.getpid(),
        "tracker": tracker,
        "path": mp_private.path_to_send(),
        "argv": list(map(str, sys.argv)),
        "preload": modules,
    }
    argv = command_line("spawnx.remote.kept", "main", file, arguments)
    # What main() returns, and what that returns, is called when none of their frames is left.
    argv[argv.index("-c") + 1] += "()()"
    # All signals are blocked: Ctrl-C is not for it. It sees by itself when this process ends: a death signal would come
    # when the launching thread does.
    return Program(argv, keep=[channel, file, tracker], death_signal=0, mask=signal.valid_signals())


def _unheard(error: OSError) -> OSError | CantServe:
    """What is raised when the channel can't be used: a reason to go another way, where a sandbox forbids it."""
    return CantServe(str(error), for_good=True) if error.errno in FORBIDDEN else error


def _end(channel: socket.socket, helper: Helper) -> int:
    channel.close()
    return helper.end()


def _send(channel: socket.socket, fds: Sequence[int]) -> None:
    """Send fds, in as many messages as it takes."""
    with standard_library():
        import socket

    for start in range(0, len(fds), wire.MAX_SENT):
        last = start + wire.MAX_SENT >= len(fds)
        socket.send_fds(channel, [wire.COMPLETE if last else wire.MORE], fds[start : start + wire.MAX_SENT])


def _forget() -> None:
    """In a forked child: the kept template is the parent's; its end must not wait for ours."""
    global _kept, _lock
    if _kept is not None:
        _kept.forget()
    _kept, _lock = None, threading.Lock()


_kept: KeptTemplate | None = None
_slower = Slower()
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

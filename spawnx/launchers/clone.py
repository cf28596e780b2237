"""Ranks cloned from one fresh interpreter, the template: what it imports is imported once.

The clones become children of the supervisor, as ranks by exec are. Where a template can't serve, ranks by exec do.
"""

from __future__ import annotations

import os
import signal
import sys

from spawnx import uninterrupted
from spawnx.backends.contract import Program
from spawnx.guard.child import Child
from spawnx.launchers import popen
from spawnx.launchers import preload as preloading
from spawnx.launchers.contract import Served
from spawnx.launchers.exec import ExecLauncher
from spawnx.launchers.message import command_line
from spawnx.launchers.payload import Payloads
from spawnx.launchers.template import CantServe, PreloadGivenUp, Template
from spawnx.mp import forkserver
from spawnx.mp import process as mp_process
from spawnx.remote import preload
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers.contract import Order
    from spawnx.launchers.template import TemplateRequest
    from spawnx.process import RankProcess


class CloneLauncher:
    """See `launchers.contract.Launcher`. Linux, with pidfds and the C core.

    Ranks by exec serve where a template can't.
    """

    name = "clone"
    copies_caller = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self._pending: set[int] = set()

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """See `launchers.contract.Launcher`."""
        for rank in ranks:
            mp_process.check_may_start(rank)
        payloads = Payloads(order.fn, order.args, "spawn", asked=order.start_method)
        try:
            try:
                self._clone(order, ranks, payloads)
            except CantServe as reason:
                _give_way(order.start_method, reason)
                served = ExecLauncher(f"ranks can't be cloned: {reason}").start_with(payloads, order, ranks)
            else:
                served = Served(self.name, self.reason, fresh_interpreter=False)
                _slower.forget()
        finally:
            payloads.close()
        # What came to the whole group while a template booted. By exec, each of the ranks would have it.
        for signum in sorted(self._pending):
            for rank in ranks:
                rank.popen.send_signal(signum)
        return served

    def _clone(self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads) -> None:
        """Clone, with modules imported before if that can be."""
        if order.start_method in _never:
            raise CantServe(_never[order.start_method], for_good=True)
        if not os.path.isdir("/proc/self"):
            # A template finds its threads, open files and devices there.
            raise CantServe(
                "there is no /proc, in which a template sees whether it may be cloned", for_good=True
            )
        if not popen.first_thread_lives():
            # The kernel gives orphans to another one then, and sends them the death signal at the end of that.
            raise CantServe("the first thread of this process has ended", for_good=True)
        if not payloads.shareable:
            raise CantServe("each rank needs a pickle of its own", expected=True)
        wanted = preloading.of(order)
        if wanted and wanted not in _given_up:
            try:
                self._use(_made(order, ranks, payloads, wanted), wanted)
            except PreloadGivenUp as error:
                _check_may_fail(order, str(error))
                # Not tried again: it would take its time in each call.
                _given_up.add(wanted)
                _tell("warning", "ranks import for themselves what was to be imported once: %s", str(error))
            else:
                return
        self._use(_made(order, ranks, payloads, ()), ())

    def _use(self, template: Template, modules: tuple[str, ...]) -> None:
        try:
            self._serve(template, modules)
        finally:
            self._pending |= template.pending

    def _serve(self, template: Template, modules: tuple[str, ...]) -> None:
        """Have a template make the ranks, by whatever way it comes into being."""
        del modules  # it is told them in its request
        template.serve(lambda request, _: launch(request, template.backend))


def _check_may_fail(order: Order, why: str) -> None:
    """See that ranks may go on without a preload: not if multiprocessing was told otherwise.

    Raises:
        ImportError: it was; as by its own forkserver, no rank is started.
    """
    if order.start_method == "forkserver" and forkserver.preload_must_succeed():
        for name in forkserver.preload():
            if why.startswith(f"{preload.raised_in(name)} "):
                text = f"set_forkserver_preload(..., on_error='fail') was told to preload {name}; {why}"
                raise ImportError(text, name=name)


def _made(
    order: Order, ranks: Sequence[RankProcess], payloads: Payloads, modules: tuple[str, ...]
) -> Template:
    """A template, of which nothing is lost where an interrupt comes in between."""
    made: list[Template] = []
    uninterrupted.do(lambda: made.append(Template(order, ranks, payloads, modules)))
    return made[0]


def launch(request: TemplateRequest, backend: Backend) -> Child:
    """Launch a fresh interpreter that is a template."""
    argv = command_line("spawnx.remote.template", "main", request.message, request.arguments)
    # What main() returns is called when none of its frames is left.
    argv[argv.index("-c") + 1] += "()"
    # All signals are blocked from the exec on: Ctrl-C would leave the clones half-made.
    program = Program(argv, keep=request.keep, death_signal=signal.SIGKILL, mask=signal.valid_signals())
    return Child.launch(backend, program)


class Slower:
    """Says why a call takes a slower way: at INFO, and at WARNING, once, if the next call takes one as well."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def say(self, text: str, reason: str, *, expected: bool = False) -> None:
        """Say why. `expected`: the program asks for it, so that nothing is wrong."""
        self._in_a_row += not expected
        _tell("warning" if self._in_a_row == 2 and not expected else "info", text, reason)  # noqa: PLR2004 - twice

    def forget(self) -> None:
        """A call has gone the usual way."""
        self._in_a_row = 0


_slower = Slower()
_COST = (
    "so each rank imports everything for itself: with torch, that takes 1 to 2 s of CPU and 140 MB of memory"
)
# By start method: why this system never clones, once it has said so. No template is tried again.
_never: dict[str, str] = {}
# The modules with which no template could be cloned.
_given_up: set[tuple[str, ...]] = set()


def _give_way(start_method: str, reason: CantServe) -> None:
    """Say why ranks aren't cloned: at WARNING, once per process and with what it costs, if they never will be."""
    text = "ranks are started by exec, not cloned: %s"
    first = not _never
    if reason.for_good:
        _never.setdefault(start_method, str(reason))
    if reason.for_good and first:
        _tell("warning", f"{text}; {_COST}", str(reason))
    else:
        _slower.say(text, str(reason), expected=reason.expected or reason.for_good)


def _tell(level: str, text: str, reason: str) -> None:
    """Log, at "info" only where logging was imported: nobody listens elsewhere."""
    if level == "warning" or "logging" in sys.modules:
        with standard_library():
            import logging

        getattr(logging.getLogger("spawnx"), level)(text, reason)

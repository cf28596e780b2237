"""Start ranks as clones of one fresh interpreter, the template. What it imports is imported once for all ranks.

The clones become children of the supervisor, like ranks by exec. If no template can serve, ranks are started by exec.
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

    Falls back to exec if no template can serve the call.
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
        # Signals that were sent to the process group while the template booted. By exec, each rank would have got them.
        for signum in sorted(self._pending):
            for rank in ranks:
                rank.popen.send_signal(signum)
        return served

    def _clone(self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads) -> None:
        """Clone the ranks, with modules preloaded if possible."""
        if order.start_method in _never:
            raise CantServe(_never[order.start_method], for_good=True)
        if not os.path.isdir("/proc/self"):
            # A template reads its threads, open files and devices from /proc.
            raise CantServe(
                "there is no /proc, which a template needs to check its threads and open files", for_good=True
            )
        if not popen.first_thread_lives():
            # The kernel then makes orphans children of another thread, and sends their death signal when that ends.
            raise CantServe("the first thread of this process has ended", for_good=True)
        if not payloads.shareable:
            raise CantServe("the arguments must be pickled once for each rank", expected=True)
        wanted = preloading.of(order)
        if wanted and wanted not in _given_up:
            try:
                self._use(_made(order, ranks, payloads, wanted), wanted)
            except PreloadGivenUp as error:
                _check_may_fail(order, str(error))
                # Not tried again: it would cost time in each call.
                _given_up.add(wanted)
                _tell(
                    "warning", "the preload failed, so each rank imports the modules itself: %s", str(error)
                )
            else:
                return
        self._use(_made(order, ranks, payloads, ()), ())

    def _use(self, template: Template, modules: tuple[str, ...]) -> None:
        try:
            self._serve(template, modules)
        finally:
            self._pending |= template.pending

    def _serve(self, template: Template, modules: tuple[str, ...]) -> None:
        """Start the template, and adopt the ranks that it forks. A subclass starts the template in another way."""
        del modules  # the request names them
        template.serve(lambda request, _: launch(request, template.backend))


def _check_may_fail(order: Order, why: str) -> None:
    """Check that ranks may start without a preload.

    Raises:
        ImportError: `multiprocessing.set_forkserver_preload(..., on_error="fail")` named the module that failed. No
            rank is started then, as with multiprocessing's own forkserver.
    """
    if order.start_method == "forkserver" and forkserver.preload_must_succeed():
        for name in forkserver.preload():
            if why.startswith(f"{preload.raised_in(name)} "):
                text = f"set_forkserver_preload(..., on_error='fail') was told to preload {name}; {why}"
                raise ImportError(text, name=name)


def _made(
    order: Order, ranks: Sequence[RankProcess], payloads: Payloads, modules: tuple[str, ...]
) -> Template:
    """Make a template. No interrupt comes in between, which would leak its fds."""
    made: list[Template] = []
    uninterrupted.do(lambda: made.append(Template(order, ranks, payloads, modules)))
    return made[0]


def launch(request: TemplateRequest, backend: Backend) -> Child:
    """Launch a fresh interpreter as a template."""
    argv = command_line("spawnx.remote.template", "main", request.message, request.arguments)
    # main() returns a function in each clone. It is called after main() has returned, when no frame of main() is left.
    argv[argv.index("-c") + 1] += "()"
    # All signals are blocked from the exec on: Ctrl-C could interrupt a clone that is not a rank yet.
    program = Program(argv, keep=request.keep, death_signal=signal.SIGKILL, mask=signal.valid_signals())
    return Child.launch(backend, program)


class Slower:
    """Logs why calls are slower than usual: at INFO, but at WARNING for the second one in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def say(self, text: str, reason: str, *, expected: bool = False) -> None:
        """Log a reason. `expected` means that the call's own arguments are the reason, and nothing is wrong."""
        self._in_a_row += not expected
        _tell("warning" if self._in_a_row == 2 and not expected else "info", text, reason)  # noqa: PLR2004 - twice

    def forget(self) -> None:
        """Record that a call was not slower."""
        self._in_a_row = 0


_slower = Slower()
_COST = (
    "so each rank imports everything for itself: with torch, that takes 1 to 2 s of CPU and 140 MB of memory"
)
# Start method -> why this system can never clone. No further call tries a template.
_never: dict[str, str] = {}
# The sets of modules after whose import a template could not be cloned.
_given_up: set[tuple[str, ...]] = set()


def _give_way(start_method: str, reason: CantServe) -> None:
    """Log why ranks aren't cloned: if they never will be, at WARNING, once per process, with what it costs."""
    text = "ranks are started by exec, not cloned: %s"
    first = not _never
    if reason.for_good:
        _never.setdefault(start_method, str(reason))
    if reason.for_good and first:
        _tell("warning", f"{text}; {_COST}", str(reason))
    else:
        _slower.say(text, str(reason), expected=reason.expected or reason.for_good)


def _tell(level: str, text: str, reason: str) -> None:
    """Log a line. At "info", only if the program has imported logging: without it, no handler is set."""
    if level == "warning" or "logging" in sys.modules:
        with standard_library():
            import logging

        getattr(logging.getLogger("spawnx"), level)(text, reason)

"""Ranks cloned from one fresh interpreter, the template: what it imports is imported once.

The clones are children of the supervisor, as ranks by exec are. Where a template can't serve, ranks by exec do.
"""

from __future__ import annotations

import signal
import sys

from spawnx import affinity, mp_private
from spawnx.backends.contract import Program
from spawnx.helper import Helper
from spawnx.launchers import modules
from spawnx.launchers.exec import ExecLauncher
from spawnx.launchers.template import CantServe, PreloadGivenUp, Template
from spawnx.payload import Payloads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers import Order
    from spawnx.launchers.template import Errand
    from spawnx.process import RankProcess


class CloneLauncher:
    """See `launchers.Launcher`. Linux, with pidfds and the C core.

    Attributes:
        name: "clone"; "exec" if a template could not serve.
    """

    name = "clone"

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """See `launchers.Launcher`."""
        for rank in ranks:
            mp_private.check_may_start(rank)
        payloads = Payloads(order.fn, order.args, "spawn", asked=order.start_method)
        try:
            try:
                self._clone(order, ranks, payloads)
            except CantServe as reason:
                self.name = ExecLauncher.name
                _give_way(order.start_method, reason)
                ExecLauncher().start_with(payloads, order, ranks)
        finally:
            payloads.close()

    def _clone(self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads) -> None:
        """Clone, with modules imported before if that can be."""
        if order.start_method in _never:
            raise CantServe(_never[order.start_method])
        if not payloads.shareable:
            raise CantServe("each rank needs a pickle of its own")
        wanted = modules.of(order)
        if wanted and wanted not in _given_up:
            try:
                self._serve(Template(order, ranks, payloads, wanted), order.backend, wanted)
            except PreloadGivenUp as error:
                # Not tried again: it would take its time in each call.
                _given_up.add(wanted)
                _tell("warning", "ranks import for themselves what was to be imported once: %s", str(error))
            else:
                return
        self._serve(Template(order, ranks, payloads, ()), order.backend, ())

    def _serve(self, template: Template, backend: Backend, modules: tuple[str, ...]) -> None:
        """Have a template make the ranks, by whatever way it comes into being."""
        del modules  # it is told them in its errand
        template.serve(lambda errand, _: _launch(errand, backend))


def _launch(errand: Errand, backend: Backend) -> Helper:
    """Launch a fresh interpreter that is a template."""
    argv = mp_private.interpreter_command("spawnx.remote.template", "main", **errand.arguments)
    # What main() returns is called when none of its frames is left.
    argv[argv.index("-c") + 1] += "()"
    affinity.assume(errand.affinity)
    # All signals are blocked from the exec on: Ctrl-C would leave the clones half-made.
    program = Program(argv, keep=errand.keep, death_signal=signal.SIGKILL, mask=signal.valid_signals())
    return Helper.launch(backend, program)


# By start method: why this system never clones, once it has said so. No template is tried again.
_never: dict[str, str] = {}
# The modules with which no template could be cloned.
_given_up: set[tuple[str, ...]] = set()


def _give_way(start_method: str, reason: CantServe) -> None:
    """Say why ranks aren't cloned: to everybody, once, if they never will be."""
    level = "info"
    if reason.for_good and start_method not in _never:
        level, _never[start_method] = "warning", str(reason)
    _tell(level, "ranks are started by exec, not cloned: %s", str(reason))


def _tell(level: str, text: str, reason: str) -> None:
    """Log, at "info" only where logging was imported: nobody listens elsewhere."""
    if level == "warning" or "logging" in sys.modules:
        import logging

        getattr(logging.getLogger("spawnx"), level)(text, reason)

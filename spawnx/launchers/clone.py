"""Ranks cloned from one fresh interpreter, the template: what it imports is imported once.

The clones are children of the supervisor, as ranks by exec are. Where a template can't serve, ranks by exec do.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import signal
import sys

from spawnx import mp_private
from spawnx.backends.contract import LOST, Program
from spawnx.backends.python import end_unheld
from spawnx.launchers import held
from spawnx.launchers.exec import ExecLauncher
from spawnx.launchers.message import Messages
from spawnx.launchers.thread import launch_in_thread
from spawnx.payload import Payloads
from spawnx.remote import preload, template
from spawnx.remote.rank import GUARDIAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers import Order
    from spawnx.launchers.thread import Job
    from spawnx.process import RankProcess


class CloneLauncher:
    """See `launchers.Launcher`. Linux, with pidfds and the C core.

    Attributes:
        name: "clone"; "exec" if a template could not serve.
    """

    def __init__(self) -> None:
        self.name = "clone"

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """See `launchers.Launcher`."""
        for rank in ranks:
            mp_private.check_may_start(rank)
        payloads = Payloads(order.fn, order.args, "spawn")
        try:
            reason = _never or "each rank needs a pickle of its own"
            if payloads.shareable and not _never:
                reason = self._clone(order, ranks, payloads)
            if reason:
                self.name = ExecLauncher.name
                _tell("info", "ranks are started by exec, not cloned: %s", reason)
                ExecLauncher().start_with(payloads, order, ranks)
        finally:
            payloads.close()

    def _clone(self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads) -> str:
        """Clone, with modules imported before if that can be; the reason why it could not be done at all, or ""."""
        modules = _modules(order)
        if modules and modules not in _given_up:
            try:
                return _Template(order, ranks, payloads, modules).serve()
            except PreloadGivenUp as error:
                # Not tried again: it would take its time in each call.
                _given_up.add(modules)
                _tell("warning", "ranks import for themselves what was to be imported once: %s", str(error))
        return _Template(order, ranks, payloads, ()).serve()


class PreloadGivenUp(Exception):  # noqa: N818 - no error, but a reason to clone without
    """A template could not be cloned after its imports, and has ended."""


# The errnos by which a system says that it never clones, and what it said: no template is tried again.
_PERMANENT = {errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EINVAL}
_never: str | None = None
# The modules with which no template could be cloned.
_given_up: set[tuple[str, ...]] = set()


def _modules(order: Order) -> tuple[str, ...]:
    """What is imported before the template is cloned."""
    if isinstance(order.preload, tuple):
        return order.preload
    used_by = {"__main__", getattr(order.fn, "__module__", None) or "__main__"}
    return preload.chosen([sys.modules[name] for name in used_by if name in sys.modules])


def _tell(level: str, text: str, reason: str) -> None:
    """Log, at "info" only where logging was imported: nobody listens elsewhere."""
    if level == "warning" or "logging" in sys.modules:
        import logging

        getattr(logging.getLogger("spawnx"), level)(text, reason)


class _Template:
    """The template of one call, as the supervisor sees it."""

    def __init__(
        self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads, modules: tuple[str, ...]
    ) -> None:
        self._order = order
        self._modules = modules
        self._ranks = ranks
        self._messages = Messages(order, payloads)
        self._table_file = os.memfd_create("spawnx-pids")
        os.ftruncate(self._table_file, template.size_of(len(ranks)))
        self._table = template.Table(self._table_file, len(ranks))

    def serve(self) -> str:
        """Have it make all ranks: ""; or the reason why it made none.

        Raises:
            PreloadGivenUp: what it imported can't be cloned; none was made.
            OSError: rank k could not be made; those before it have been adopted.
            RuntimeError: the template died while it made them; none is left.
        """
        affinity = os.sched_getaffinity(0)
        reason = ""

        def work(job: Job) -> None:
            nonlocal reason
            os.sched_setaffinity(0, affinity)
            reason = self._work(job, program)

        try:
            program = self._program()
            launch_in_thread(work)
        finally:
            self._table.close()
            os.close(self._table_file)
            self._messages.close()
        return reason

    def _program(self) -> Program:
        message = self._messages.of(self._ranks[0])
        for rank in self._ranks:
            rank.kept = self._ranks[0].kept
        places = pickle.dumps([rank.place for rank in self._ranks])
        os.pwrite(message.file, places, message.size)
        argv = mp_private.interpreter_command(
            "spawnx.remote.template",
            "main",
            order=message.file,
            size=message.size,
            places_size=len(places),
            ranks=len(self._ranks),
            table=self._table_file,
            guarded=self._order.guard.kind == GUARDIAN,
            parent=os.getpid(),
            tracker=self._messages.tracker,
            preload=self._modules,
            mask=[int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        )
        # What main() returns is called when none of its frames is left.
        argv[argv.index("-c") + 1] += "()"
        keep = [message.file, self._table_file, self._messages.tracker, *message.fds]
        # All signals are blocked from the exec on: Ctrl-C would leave the clones half-made.
        return Program(argv, keep=keep, death_signal=signal.SIGKILL, mask=signal.valid_signals())

    def _work(self, job: Job, program: Program) -> str:
        backend = self._order.backend
        _, pidfd = backend.launch(program)
        try:
            job.on_cancel = lambda: backend.fan_out([pidfd], signal.SIGKILL)
            self._order.guard.hold_helper(pidfd)
            code = _wait(backend, pidfd)
        finally:
            job.on_cancel = None
            os.close(pidfd)
        return self._take(code, cancelled=job.cancelled)

    def _take(self, code: int, *, cancelled: bool) -> str:
        """Adopt what the template has made; it has ended, with an exit code."""
        table, pids = self._table, self._table.pids
        if any(pid < 0 for pid in pids):
            # Their parent was the template, against what was asked for; they have left by themselves.
            return "the kernel ignores CLONE_PARENT"
        if table.state == template.GAVE_UP_PRELOAD:
            raise PreloadGivenUp(table.reason)
        if table.state == template.BOOTING and not pids:
            if table.errno in _PERMANENT:
                global _never  # noqa: PLW0603 - an answer of the system, the same for the life of this process
                _never = table.reason
            return table.reason or f"the template ended {_told(code)}"
        if table.state != template.CLONED and not table.errno:
            for pid in pids:
                end_unheld(pid)
            if cancelled:
                return ""  # the interrupt is about to be raised
            told = f"while it made rank {len(pids)} of {len(self._ranks)}"
            raise RuntimeError(f"the template of the ranks ended {_told(code)} {told}; no rank is left")
        held.Holder(self._order.backend).adopt_all(self._ranks, pids)
        for rank in self._ranks:
            rank.armed = True
        if table.errno:
            raise OSError(table.errno, os.strerror(table.errno))
        return ""


def _wait(backend: Backend, pidfd: int) -> int:
    """Wait for a child to end, and reap it; its exit code."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    code = backend.peek(pidfd)
    backend.reap([pidfd])
    return LOST if code is None else code


def _told(code: int) -> str:
    if code == LOST:
        return "in an unknown way"
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"

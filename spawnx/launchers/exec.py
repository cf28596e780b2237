"""Start ranks as fresh interpreters, without multiprocessing's Popen: all boots overlap, as no pipe is waited for.

Differences from multiprocessing's spawn. The message is pickled once, into memory that all ranks inherit, not piped to
each. The native backend arms the death signal before the exec. One pidfd holds each rank.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat

from spawnx.backends.contract import Program
from spawnx.launchers import popen
from spawnx.launchers.contract import Served
from spawnx.launchers.message import Messages, command_line
from spawnx.launchers.payload import Payloads
from spawnx.launchers.threads import launch_in_thread
from spawnx.mp import interpreter
from spawnx.mp import process as mp_process
from spawnx.remote.rank import GUARDIAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers.contract import Order
    from spawnx.launchers.threads import Job
    from spawnx.process import RankProcess


class ExecLauncher:
    """See `launchers.contract.Launcher`. Linux, with pidfds."""

    name = "exec"
    copies_caller = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """See `launchers.contract.Launcher`."""
        for rank in ranks:
            mp_process.check_may_start(rank)
        payloads = Payloads(order.fn, order.args, "spawn")
        try:
            return self.start_with(payloads, order, ranks)
        finally:
            payloads.close()

    def start_with(self, payloads: Payloads, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """Start all ranks, as `start` does, with payloads that the caller has made and closes."""
        messages = Messages(order, payloads)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        armed = _armed_at_exec(order.backend)
        holder = popen.Holder(order.backend)

        def launch(job: Job) -> None:
            for rank, program in zip(ranks, programs, strict=True):
                if job.cancelled:
                    return
                pid, pidfd = order.backend.launch(program)
                job.outlive([pid])
                holder.adopt(rank, pid, pidfd)
                rank.supervision.armed = True

        try:
            programs = [_program(order, rank, messages, mask, armed=armed) for rank in ranks]
            launch_in_thread(launch, order.guard)
        finally:
            messages.close()
        return Served(self.name, self.reason, fresh_interpreter=True)


def _program(
    order: Order, rank: RankProcess, messages: Messages, mask: set[int | signal.Signals], *, armed: bool
) -> Program:
    """The program that is launched for a rank."""
    message = messages.of(rank)
    arguments: dict[str, object] = {
        "size": message.size,
        "rank": rank.place,
        "backend": order.backend.name,
        "armed": armed,
        "guarded": order.guard.kind == GUARDIAN,
        "parent": os.getpid(),
        "tracker": messages.tracker,
        "ends": order.guard.ends.numbers,
    }
    argv = command_line("spawnx.remote.rank", "main", message.file, arguments)
    keep = [message.file, messages.tracker, *order.guard.ends.fds, *message.fds]
    return Program(argv, keep=keep, death_signal=order.first_death_signal, mask=mask)


def _armed_at_exec(backend: Backend) -> bool:
    """Whether a rank has its death signal when its interpreter starts. Otherwise the rank arms itself.

    The exec of a privileged program clears the signal (prctl(2), PR_SET_PDEATHSIG). The supervisor decides this once
    for all ranks: in a rank, loading the backend costs more than all the rest of spawnx.
    """
    return backend.arms_at_launch and not _is_privileged(interpreter.executable())


def _is_privileged(path: str) -> bool:
    """Whether a program gets rights by its exec that its caller lacks: set-user-ID, set-group-ID, capabilities."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return True
        if not hasattr(os, "getxattr"):  # CPython on musl. A rank that arms itself without need loses little
            return True
        return bool(os.getxattr(path, "security.capability"))
    return False

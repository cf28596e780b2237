"""Ranks in fresh interpreters of our own launching: all boots overlap, and no rank's pipe is waited for.

Against multiprocessing's spawn: the message to the ranks is made once, in memory that all inherit, instead of being
piped to each; the death signal is armed before the exec (by the native backend); a rank is held by one pidfd.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
from multiprocessing import reduction

from spawnx import mp_private
from spawnx.backends.contract import Program
from spawnx.launchers import held
from spawnx.launchers.thread import launch_in_thread
from spawnx.payload import Payloads, to_memory
from spawnx.remote.rank import GUARDIAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers import Order
    from spawnx.launchers.thread import Job
    from spawnx.process import RankProcess


class ExecLauncher:
    """See `launchers.Launcher`. Linux, with pidfds."""

    name = "exec"

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """See `launchers.Launcher`."""
        for rank in ranks:
            mp_private.check_may_start(rank)
        payloads = Payloads(order.fn, order.args, "spawn")
        messages = _Messages(order, payloads)
        # What a child has from the thread that creates it, it is to have from the caller's.
        mask, affinity = signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.sched_getaffinity(0)

        holder = held.Holder(order.backend)

        def launch(job: Job) -> None:
            os.sched_setaffinity(0, affinity)
            for rank, program in zip(ranks, programs, strict=True):
                if job.cancelled:
                    return
                holder.adopt(rank, *order.backend.launch(program))
                rank.armed = True

        try:
            programs = [messages.program(rank, mask) for rank in ranks]
            launch_in_thread(launch)
        finally:
            messages.close()
            payloads.close()


def _armed_at_exec(backend: Backend) -> bool:
    """Whether a rank has its death signal when its interpreter starts; else it arms itself.

    The exec of a privileged program clears the signal (prctl(2), PR_SET_PDEATHSIG). Asked here, once, as in a rank the
    backend takes longer to load than all else of ours.
    """
    return backend.arms_at_launch and not _is_privileged(mp_private.interpreter_path())


def _is_privileged(path: str) -> bool:
    """Whether the exec of a program gives it rights that its caller lacks: set-user-ID, set-group-ID, capabilities."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return True
        return bool(os.getxattr(path, "security.capability"))
    return False


class _Messages:
    """What the ranks of one call unpickle: one message for all where it may be, in memory that they inherit."""

    def __init__(self, order: Order, payloads: Payloads) -> None:
        self._order = order
        self._payloads = payloads
        self._tracker = mp_private.resource_tracker_fd()
        self._armed_at_exec = _armed_at_exec(order.backend)
        self._shared: tuple[int, int, list[int]] | None = None
        self._files: list[int] = []

    def program(self, rank: RankProcess, mask: set[int | signal.Signals]) -> Program:
        """What to launch for a rank, which reads its message."""
        rank.kept = (self._order.fn, self._order.args)
        file, size, fds = self._shared or self._message(rank)
        argv = mp_private.interpreter_command(
            "spawnx.remote.rank",
            "main",
            order=file,
            size=size,
            rank=rank.place,
            backend=self._order.backend.name,
            armed=self._armed_at_exec,
            guarded=self._order.guard.kind == GUARDIAN,
            parent=os.getpid(),
            tracker=self._tracker,
        )
        death_signal = self._order.first_death_signal
        return Program(argv, keep=[file, self._tracker, *fds], death_signal=death_signal, mask=mask)

    def _message(self, rank: RankProcess) -> tuple[int, int, list[int]]:
        """The file of a rank's message, its size, and the fds that go with it."""
        rank.give(self._payloads.for_rank())
        collector, buffer = mp_private.Collector("spawn"), io.BytesIO()
        collector.dump(reduction.ForkingPickler(buffer), mp_private.preparation_data(rank.name))
        collector.dump(reduction.ForkingPickler(buffer), rank)
        file = to_memory("spawnx-order", buffer.getbuffer())
        self._files.append(file)
        message = file, buffer.tell(), collector.fds
        if self._payloads.shareable:
            self._shared = message
        return message

    def close(self) -> None:
        """Release the messages; when every rank has inherited its own."""
        for file in self._files:
            os.close(file)

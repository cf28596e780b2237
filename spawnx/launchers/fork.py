"""Start ranks by `os.fork` in the calling thread, so that ranks inherit its locks, thread-locals and grad mode.

Differences from `popen_fork`: no poll of earlier children at each start, no pipe pair per rank. One pidfd holds each
rank.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import signal
from itertools import islice

from spawnx import uninterrupted
from spawnx.launchers import popen
from spawnx.launchers.contract import Served
from spawnx.mp import boot
from spawnx.mp import process as mp_process
from spawnx.remote import rank as remote
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.launchers.contract import Order
    from spawnx.process import RankProcess


class ForkLauncher:
    """See `launchers.contract.Launcher`. Linux, with pidfds."""

    name = "fork"
    copies_caller = True

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """See `launchers.contract.Launcher`."""
        call = remote.Call(order.fn, order.args)
        for rank in ranks:
            mp_process.check_may_start(rank)
            rank.give(call)
        boot.flush_streams()
        pids: list[int] = []
        # All signals are blocked, so that no rank is interrupted before `_be_rank`. Until then it is a copy of the
        # supervisor, and an exception would unwind the supervisor's stack in it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            _fork_all(order, ranks, pids, mask)
        finally:
            try:
                # Signals are blocked in this thread only. Another thread may take one. If this thread is the main one,
                # Python would run the handler in it.
                uninterrupted.do(lambda: popen.Holder(order.backend).adopt_all(ranks, pids))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Served(self.name, self.reason, fresh_interpreter=False)


def _fork_all(
    order: Order, ranks: Sequence[RankProcess], pids: list[int], mask: set[int | signal.Signals]
) -> None:
    """Fork every rank. Adds the pid of each to `pids`, also if a later fork raises. Doesn't return in a rank."""
    supervisor = os.getpid()
    parent = supervisor if popen.in_lasting_thread() else None
    if parent is not None:
        order.backend.load()
    policy = remote.OrphanPolicy(order.guard.kind, order.guard.grace, order.backend.name, parent)
    for rank in ranks:
        rank.supervision.armed = parent is not None
        # A rank waits at the gate in `Rank.run`. Its start in multiprocessing's code overlaps the forks of other ranks.
        rank.ends = order.guard.ends
        rank.orphan_policy = policy if order.guard.kind == remote.GUARDIAN else None
    for i, rank in enumerate(ranks):
        # Not `pids.append(os.fork())`: another thread may take a signal that is blocked here. Python would run its
        # handler in this thread, between the two calls, and a KeyboardInterrupt would lose the pid. Inside of extend()
        # no Python code runs. iter() ends at the 0 that os.fork() returns in the child.
        with boot.preserving_resource_tracker():
            pids.extend(islice(iter(os.fork, 0), 1))
        if len(pids) == i:
            _be_rank(order, rank, supervisor, parent, mask)


def _be_rank(
    order: Order, rank: RankProcess, supervisor: int, parent: int | None, mask: set[int | signal.Signals]
) -> None:
    """Be a forked rank from its first line to its exit. This function neither returns nor raises."""
    code = 1
    try:
        if parent is not None:
            remote.arm_or_leave(order.backend, order.first_death_signal, parent)
        # Not signal.pthread_sigmask, which converts all signals to enums: 0.1 ms in each of a thousand ranks.
        _signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        boot.begin_forked()
        code = boot.bootstrap(rank, remote.open_parent(supervisor))
    except BaseException:  # noqa: BLE001 - user code's errors are handled already: a bug of spawnx, or a signal
        with standard_library():
            import tokenize  # noqa: F401 - linecache imports it late (CPython 3.13)
            import traceback

        traceback.print_exc()
    finally:
        boot.exit_forked("fork", code)

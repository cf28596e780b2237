"""Ranks by `os.fork` in the calling thread: its locks, thread-locals and grad mode are the child's.

Against `popen_fork`: no poll of earlier children at each start, no pipe pair per rank. A rank is held by one pidfd.
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
        # Blocked, so that a rank can't be interrupted before it is one: until then it is a copy of the supervisor,
        # and would unwind the supervisor's stack.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            _fork_all(order, ranks, pids, mask)
        finally:
            try:
                # Although signals are blocked here: another thread may take one, and its handler would run in this one.
                uninterrupted.do(lambda: popen.Holder(order.backend).adopt_all(ranks, pids))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Served(self.name, self.reason, fresh_interpreter=False)


def _fork_all(
    order: Order, ranks: Sequence[RankProcess], pids: list[int], mask: set[int | signal.Signals]
) -> None:
    """Fork every rank; `pids` has those that exist, also when it raises. In a rank it doesn't return."""
    supervisor = os.getpid()
    parent = supervisor if popen.in_lasting_thread() else None
    if parent is not None:
        order.backend.load()
    policy = remote.OrphanPolicy(order.guard.kind, order.guard.grace, order.backend.name, parent)
    for rank in ranks:
        rank.supervision.armed = parent is not None
        # The gate comes in `Rank.run`: what multiprocessing does before is done while others are still forked.
        rank.ends = order.guard.ends
        rank.orphan_policy = policy if order.guard.kind == remote.GUARDIAN else None
    for i, rank in enumerate(ranks):
        # Not `pids.append(os.fork())`: another thread may take a signal that we block, and Python would run its
        # handler in this one between the two calls. The pid would be lost with the KeyboardInterrupt. Inside of
        # extend() no Python code runs; iter() ends at the 0 that a child gets.
        with boot.preserving_resource_tracker():
            pids.extend(islice(iter(os.fork, 0), 1))
        if len(pids) == i:
            _be_rank(order, rank, supervisor, parent, mask)


def _be_rank(
    order: Order, rank: RankProcess, supervisor: int, parent: int | None, mask: set[int | signal.Signals]
) -> None:
    """The whole life of a forked rank. Nothing leaves this function but the process, by its exit."""
    code = 1
    try:
        if parent is not None:
            remote.arm_or_leave(order.backend, order.first_death_signal, parent)
        # Not signal.pthread_sigmask: it would make enums of all signals, 0.1 ms in each of a thousand ranks.
        _signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        boot.begin_forked()
        code = boot.bootstrap(rank, remote.open_parent(supervisor))
    except BaseException:  # noqa: BLE001 - what user code raises was dealt with: this is a fault of ours, or a signal
        with standard_library():
            import tokenize  # noqa: F401 - linecache imports it late (CPython 3.13)
            import traceback

        traceback.print_exc()
    finally:
        boot.exit_forked("fork", code)

"""Start ranks by `multiprocessing.Process.start()`. It works everywhere: try it first when another launcher fails."""

from __future__ import annotations

import errno
import os
import signal

from spawnx.launchers.contract import Served
from spawnx.launchers.payload import Payloads
from spawnx.launchers.popen import in_lasting_thread
from spawnx.mp import boot, forkserver, interpreter
from spawnx.mp import process as mp_process
from spawnx.remote import rank as remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.launchers.contract import Order
    from spawnx.process import RankProcess


class StdlibLauncher:
    """See `launchers.contract.Launcher`."""

    name = "stdlib"

    def __init__(self, reason: str, start_method: str) -> None:
        self.reason = reason
        self.copies_caller = start_method == "fork"

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """See `launchers.contract.Launcher`."""
        if self.copies_caller:
            _start_forked(order, ranks)
        else:
            _start_pickled(order, ranks)
        return Served(self.name, self.reason, fresh_interpreter=order.start_method == "spawn")


def _start_forked(order: Order, ranks: Sequence[RankProcess]) -> None:
    policy = _orphan_policy(order)
    others: list[int] = []
    boot.flush_streams()
    # All signals are blocked. A handler could run after the fork and before multiprocessing records the pid. If it
    # raised, the rank and its pipes would be lost.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for rank in ranks:
            rank.orphan_policy = policy
            rank.supervision.armed = policy.parent is not None
            rank.ends = order.guard.ends
            rank.others, rank.mask = others, mask
            rank.give(remote.Call(order.fn, order.args))
            rank.start()
            others += mp_process.supervisors_ends(rank)
    finally:
        others.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_pickled(order: Order, ranks: Sequence[RankProcess]) -> None:
    policy = _orphan_policy(order)
    ends = order.guard.ends
    payloads = Payloads(order.fn, order.args, order.start_method, before=ends.fds)
    try:
        for rank, report_path in zip(ranks, order.report_paths, strict=True):
            rank.orphan_policy = policy
            rank.supervision.armed = policy.parent is not None
            rank.give(payloads.for_rank())
            rank.supervision.keepalive = (order.fn, order.args)
            rank.supervision.preparation_hook = interpreter.PreparationHook(rank.name)
            rank.supervision.preparation_hook.function = remote.before_main
            rank.supervision.preparation_hook.args = (
                rank.name,
                report_path,
                order.first_death_signal,
                policy,
                ends,
            )
            # A KeyboardInterrupt may come after the fork in start() and before the pid is recorded. The child is then
            # lost, as with multiprocessing: it finds its pipe closed, and exits. Signals can't be blocked here: the
            # rank would inherit the mask.
            try:
                rank.start()
            except (EOFError, ConnectionError) as error:  # multiprocessing's exception has no text
                if order.start_method != "forkserver":
                    raise
                raise ConnectionResetError(errno.ECONNRESET, _forkserver_ended()) from error
            rank.supervision.preparation_hook = None
    finally:
        payloads.close()


def _forkserver_ended() -> str:
    imports = forkserver.imports()
    why = f"; it may have been the import of {imports}" if imports else ""
    return f"multiprocessing's forkserver has ended; its standard error says why{why}"


def _orphan_policy(order: Order) -> remote.OrphanPolicy:
    parent = _lasting_parent(order.start_method)
    return remote.OrphanPolicy(order.guard.kind, order.guard.grace, order.backend.name, parent)


def _lasting_parent(start_method: str) -> int | None:
    """The pid of the process that creates the ranks, if the creating thread lives as long as that process.

    The kernel ties the death signal to the creating thread (prctl(2)). If that is not the main thread, its end would
    interrupt healthy ranks.
    """
    if start_method == "forkserver":
        return forkserver.pid()
    return os.getpid() if in_lasting_thread() else None

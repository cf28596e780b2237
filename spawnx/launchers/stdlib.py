"""Ranks by `multiprocessing.Process.start()`: works everywhere, and is the first thing to try when something is odd."""

from __future__ import annotations

import errno
import os
import signal

from spawnx import mp_private
from spawnx.launchers.held import in_lasting_thread
from spawnx.payload import Payloads
from spawnx.remote import rank as remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.launchers import Order
    from spawnx.process import RankProcess


class StdlibLauncher:
    """See `launchers.Launcher`."""

    name = "stdlib"
    reason = ""

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """See `launchers.Launcher`."""
        if order.start_method == "fork":
            _start_forked(order, ranks)
        else:
            _start_pickled(order, ranks)


def _start_forked(order: Order, ranks: Sequence[RankProcess]) -> None:
    protection = _protection(order)
    others: list[int] = []
    mp_private.flush_streams()
    # Blocked: multiprocessing loses a rank, and its pipes, to what a signal handler raises between fork and note.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for rank in ranks:
            rank.protection = protection
            rank.armed = protection.parent is not None
            rank.ends = order.guard.ends
            rank.others, rank.mask = others, mask
            rank.give(remote.Call(order.fn, order.args))
            rank.start()
            others += mp_private.supervisors_ends(rank)
    finally:
        others.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_pickled(order: Order, ranks: Sequence[RankProcess]) -> None:
    protection = _protection(order)
    ends = order.guard.ends
    payloads = Payloads(order.fn, order.args, order.start_method, before=ends.fds)
    try:
        for rank, report_path in zip(ranks, order.report_paths, strict=True):
            rank.protection = protection
            rank.armed = protection.parent is not None
            rank.give(payloads.for_rank())
            rank.kept = (order.fn, order.args)
            rank.early_word = mp_private.EarlyWord(rank.name)
            rank.early_word.begin = remote.begin
            rank.early_word.args = (rank.name, report_path, order.first_death_signal, protection, ends)
            # Between the fork inside and the moment it is known, a KeyboardInterrupt loses the child to us, as in
            # multiprocessing: it finds its pipe closed and exits. Signals can't be blocked, the rank would
            # inherit that.
            try:
                rank.start()
            except (EOFError, ConnectionError) as error:  # what multiprocessing raises has no words
                if order.start_method != "forkserver":
                    raise
                raise ConnectionResetError(errno.ECONNRESET, _forkserver_ended()) from error
            rank.early_word = None
    finally:
        payloads.close()


def _forkserver_ended() -> str:
    imports = mp_private.imported_by_forkserver()
    why = f"; it may have been the import of {imports}" if imports else ""
    return f"multiprocessing's forkserver has ended; its standard error says why{why}"


def _protection(order: Order) -> remote.Protection:
    parent = _lasting_parent(order.start_method)
    return remote.Protection(order.guard.kind, order.guard.grace, order.backend.name, parent)


def _lasting_parent(start_method: str) -> int | None:
    """The pid of the process that creates the ranks, if the creating thread lives as long as that process.

    The kernel ties the death signal to the thread (prctl(2)): at the end of another one than the main thread, it
    would interrupt healthy ranks.
    """
    if start_method == "forkserver":
        return mp_private.forkserver_pid()
    return os.getpid() if in_lasting_thread() else None

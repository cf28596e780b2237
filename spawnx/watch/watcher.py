"""Who has ended, and how: our ranks and foreign Process objects behind one interface."""

from __future__ import annotations

import math
import sys
from functools import partial

from spawnx import clock
from spawnx.backends.contract import LOST
from spawnx.ipc import notices
from spawnx.ipc import report_reader as reports
from spawnx.process import RankProcess
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from spawnx.backends.contract import Backend, Seen, Watch
    from spawnx.guard import Guard, Unguarded
    from spawnx.ipc.report import Report


# Seconds between two looks at ranks that can only be asked, for want of pidfds: above the hard limit on fds.
_LOOK_EVERY = 0.05
# Seconds within which a wait that blocks returns when what it waits for has happened, on a machine that is busy.
_WAKES_WITHIN = 0.3
# Watched as if they were ranks: the guardian of the context, and the pipe of its ranks' notices.
_GUARDIAN = -1
_NOTICES = -2


class Ended:
    """A rank that has ended.

    Attributes:
        rank: its index.
        pid: what its process id was.
        exit_code: as multiprocessing has it; 255 if `status_lost`.
        status_lost: whether somebody else reaped it, so that nobody knows.
        report: what it left, if it failed and said why.
        alive: `clock.monotonic()` when we knew last that it lived.
        seen: `clock.monotonic()` when we saw that it had ended.
        peak_kib: the most memory that it had resident, in KiB; 0 where unknown.
    """

    __slots__ = ("alive", "exit_code", "peak_kib", "pid", "rank", "report", "seen", "status_lost")

    def __init__(
        self,
        rank: int,
        pid: int,
        exit_code: int,
        *,
        status_lost: bool = False,
        report: Report | None = None,
        alive: float = 0.0,
        seen: float = 0.0,
        peak_kib: int = 0,
    ) -> None:
        self.rank = rank
        self.pid = pid
        self.exit_code = exit_code
        self.status_lost = status_lost
        self.report = report
        self.alive = alive
        self.seen = seen
        self.peak_kib = peak_kib

    @property
    def failed(self) -> bool:
        """Whether the rank failed: a rank that reported and then exits with 0 has."""
        return self.exit_code != 0 or self.report is not None


class Watcher:
    """Watches the processes of one context, each until it has ended.

    Every step may be cut short by an exception out of a signal handler (Ctrl-C), and taken again: a rank is watched
    until its end is noted, and noting it twice is noting it once.

    Args:
        processes: started ones. If all are ours, each is registered once. Foreign ones are waited for by their own
            methods, as the reference does, all at each call.
        guard: where they report, and whose guardian is replaced if it ends before its time.
        backend: how ours are watched.

    Attributes:
        ended: the ranks that have ended and were not taken yet, in the order in which they were seen.
        reported: what ranks have reported that live still.
        reported_at: when that was known.
        failed: the ranks that are known to have failed, one that has reported included, in the order in which that was
            known. It only grows.
    """

    def __init__(self, processes: Sequence[BaseProcess], guard: Guard | Unguarded, backend: Backend) -> None:
        self.ended: dict[int, Ended] = {}
        self.reported: dict[int, Report] = {}
        self.reported_at: dict[int, float] = {}
        self.failed: list[int] = []
        self._looked = clock.monotonic()
        self._guard = guard
        self._processes = processes
        self._pids = [process.pid or 0 for process in processes]
        self._sentinels = [process.sentinel for process in processes]
        self._alive = dict.fromkeys(range(len(processes)))
        self._watched = dict.fromkeys(self._alive, True)
        self._backend = backend
        ours = [process for process in processes if isinstance(process, RankProcess)]
        # pid -> rank, of those that can only be asked.
        self._unheld = {process.pid or 0: rank for rank, process in enumerate(ours) if process.is_unheld}
        self._ours = len(ours) == len(processes)
        self._by_pidfd = self._ours and all(process.holds_pidfd or process.is_unheld for process in ours)
        self._watch = self._open_watch(foreign=not self._ours)
        for rank, process in enumerate(processes):
            if self._sentinels[rank] >= 0:
                self._watch.add(self._sentinels[rank], rank)
            if isinstance(process, RankProcess):
                process.supervision.on_close = partial(self._note_closing, rank)

        if guard.notices >= 0:
            self._watch.add(guard.notices, _NOTICES)

    def watch_guardian(self) -> None:
        """Watch the guardian, if there is one: after the gate was opened, which may give it up and close its pidfd."""
        if self._guard.sentinel >= 0:
            self._watch.add(self._guard.sentinel, _GUARDIAN)

    def _renew_guardian(self) -> None:
        self._watch.discard([self._guard.sentinel])
        ranks = [self._processes[rank] for rank in self._alive]
        self._guard.renew([rank for rank in ranks if isinstance(rank, RankProcess)])
        self.watch_guardian()

    def _read_notices(self) -> None:
        guard = self._guard
        for rank, errno in notices.read(guard.notices) if guard.notices >= 0 else ():
            if rank not in self._alive or rank in self.reported:
                continue
            # Nothing is taken from a notice alone: any rank may have written it.
            report, now = guard.report(rank), clock.monotonic()
            if report is None and errno:
                lines = guard.scoreboard.lines()
                if lines and lines[rank].failing:
                    report = reports.unwritten(errno, lines[rank].headline, now)
            if report is not None:
                self.reported[rank] = report
                self.reported_at[rank] = now
                self.failed.append(rank)

    def _open_watch(self, *, foreign: bool) -> Watch:
        if self._by_pidfd:
            return self._backend.open_watch()
        with standard_library():
            from spawnx.backends import python

        return python.SentinelWatch() if foreign or sys.platform == "win32" else python.SelectorWatch()

    @property
    def alive(self) -> list[int]:
        """The ranks that have not been seen ended, in order."""
        return list(self._alive)

    @property
    def any_alive(self) -> bool:
        """Whether there is one: at no cost that grows with their number."""
        return bool(self._alive)

    def wait(self, timeout: float | None, *, for_all: bool = False) -> None:
        """Wait until some rank has ended or reported, and note all that have in `ended` and `reported`.

        Args:
            timeout: seconds; 0 and less only look, None waits for ever.
            for_all: whether the caller waits until all have ended: what ends in a row may then be noted at once.
        """
        if not self._alive:
            return
        # First all are noted, then all are let go: between the two an exception may come, and the next call finds
        # them again.
        began = clock.monotonic()
        seen = self._look(timeout, len(self._alive) if for_all else 1)
        now = clock.monotonic()
        if (
            now - began >= _WAKES_WITHIN
        ):  # it has blocked: what is seen now was not there to be seen until just now
            self._looked = now - _WAKES_WITHIN
        silent = self._guard.is_untouched()
        if not silent or any(rank < 0 for rank, _, _ in seen):
            seen = self._hear(seen)
        for rank, code, peak_kib in seen:
            self._note(rank, code, peak_kib, silent=silent)
        self._let_go([rank for rank, _, _ in seen])
        self._looked = clock.monotonic()

    def _hear(self, seen: list[Seen]) -> list[Seen]:
        """See to what is watched beside the ranks; returns the ranks alone."""
        # Also where it isn't told: a rank that has ended may have said before that it could not report.
        self._read_notices()
        if any(rank == _GUARDIAN for rank, _, _ in seen):
            self._renew_guardian()
        return [one for one in seen if one[0] >= 0]

    def _look(self, timeout: float | None, gather: int) -> list[Seen]:
        """What the watch sees, and those that can only be asked: they are asked every now and then."""
        if not self._unheld:
            return self._watch.wait(timeout, gather)
        deadline = math.inf if timeout is None else clock.monotonic() + timeout
        while True:
            left = deadline - clock.monotonic()
            ended = self._backend.sweep(list(self._unheld))
            # No wait if some were found: what the watch has ready is taken along.
            seen = self._watch.wait(0 if ended else min(left, _LOOK_EVERY))
            seen += [(self._unheld[pid], code, 0) for pid, code in ended]
            if seen or left <= 0:
                return seen

    def ended_or_reported(self, rank: int) -> Ended:
        """What is known of a rank that has failed, one that lives still included."""
        if rank in self.ended:
            return self.ended[rank]
        now = clock.monotonic()
        return Ended(rank, self._pids[rank], 0, report=self.reported[rank], alive=now, seen=now)

    def take(self, rank: int) -> int:
        """Forget an ended rank; returns its sentinel."""
        del self.ended[rank]
        return self._sentinels[rank]

    def fileno(self) -> int:
        """An fd that is readable when `wait` has something to note; -1 where there is none."""
        return self._watch.fileno()

    def close(self) -> None:
        """Release the watch; the processes stay as they are."""
        self._watch.close()

    def _note(self, rank: int, code: int | None, peak_kib: int = 0, *, silent: bool = False) -> None:
        if rank not in self._alive:
            return
        process = self._processes[rank]
        if code is None or not isinstance(process, RankProcess):
            process.join()  # a sentinel that is a pipe tells the end before the kernel does
            code = process.exitcode
            if getattr(process, "status_lost", False):
                code = LOST
        else:
            process.note_ended(code)
            if code == LOST and not process.status_lost:
                code = process.exitcode  # `is_alive()` had noted it, and has reaped
        if isinstance(process, RankProcess):
            process.supervision.on_close = (
                None  # it leads back to here: fds must not wait for a cycle collector
            )
            process.supervision.keepalive = None
        self.ended[rank] = ended = self._ended(rank, LOST if code is None else code, peak_kib, silent=silent)
        del self._alive[rank]
        if ended.failed and self.reported.pop(rank, None) is None:
            self.failed.append(rank)

    def _let_go(self, ranks: Sequence[int]) -> None:
        # Those that are watched still: one may have been closed meanwhile, and its number given to another fd.
        sentinels = [self._sentinels[rank] for rank in ranks if self._watched.pop(rank, False)]
        if self._unheld:
            sentinels = self._let_go_unheld(sentinels)
        if self._by_pidfd:
            self._backend.reap(sentinels)
        self._watch.discard(sentinels)

    def _let_go_unheld(self, sentinels: Sequence[int]) -> list[int]:
        for sentinel in sentinels:
            rank = self._unheld.pop(-sentinel, None)
            process = None if rank is None else self._processes[rank]
            if isinstance(process, RankProcess):
                process.popen.reap()
        return [sentinel for sentinel in sentinels if sentinel >= 0]

    def _note_closing(self, rank: int) -> None:
        self._note(rank, None)
        self._let_go([rank])

    def _ended(self, rank: int, code: int, peak_kib: int, *, silent: bool) -> Ended:
        if code == LOST and self._guard.has_ended_well(rank):
            code = 0
        # One that ends well may have reported before; a file that isn't ours is not asked.
        reported = code != 0 or (self._ours and not silent)
        report = self.reported.get(rank) or (self._guard.report(rank) if reported else None)
        lost = code == LOST
        return Ended(
            rank,
            self._pids[rank],
            255 if lost else code,
            status_lost=lost,
            report=report,
            alive=self._looked,
            seen=clock.monotonic(),
            peak_kib=peak_kib,
        )

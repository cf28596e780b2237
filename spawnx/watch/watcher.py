"""The watcher: sees which ranks have ended, and how. One interface for our ranks and foreign Process objects."""

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
from spawnx.watch.ended import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from spawnx.backends.contract import Backend, Seen, Watch
    from spawnx.guard import Guard, Unguarded
    from spawnx.ipc.report import Report


# Seconds between two polls of ranks that have no pidfd, as the hard limit on fds leaves no room.
_LOOK_EVERY = 0.05
# Seconds within which a blocked wait returns after its event, on a busy machine.
_WAKES_WITHIN = 0.3
# Watched as if they were ranks: the guardian of the context, and the pipe of its ranks' notices.
_GUARDIAN = -1
_NOTICES = -2


class Watcher:
    """Watches the processes of one context, each until it has ended.

    An exception out of a signal handler (Ctrl-C) may cut any step short; the next call repeats it. A rank is watched
    until its end is noted. To note an end twice has the effect of noting it once.

    Args:
        processes: started processes. If all are `RankProcess`, each is registered once. Otherwise all are waited for
            at each call, by the processes' own methods, as in the reference.
        guard: reads the reports of the ranks, and replaces the guardian if it ends too early.
        backend: watches and reaps ranks of our launchers.

    Attributes:
        ended: the ranks that have ended and were not taken yet, in the order in which they were seen.
        reported: the reports of ranks that still live.
        reported_at: `clock.monotonic()` when each report became known.
        failed: the ranks that are known to have failed, in the order in which that became known. A rank that has
            reported is one of them, even if it lives. The list only grows.
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
        # pid -> rank, of the ranks that have no pidfd and are polled.
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
        """Watch the guardian, if there is one. Called after `open_gate`, which may dismiss it and close its pidfd."""
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
            # A notice alone proves nothing: any rank may have written it.
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
        """Whether any rank has not been seen ended. The cost doesn't grow with the number of ranks."""
        return bool(self._alive)

    def wait(self, timeout: float | None, *, for_all: bool = False) -> None:
        """Wait until a rank has ended or reported. Note all ranks that have in `ended` and `reported`.

        Args:
            timeout: seconds; 0 and less only look, None waits for ever.
            for_all: whether the caller waits until all have ended. Ranks that end in a row may then be noted together.
        """
        if not self._alive:
            return
        # First note all ranks, then let all go. An exception may come in between: the next call then sees them again.
        began = clock.monotonic()
        seen = self._look(timeout, len(self._alive) if for_all else 1)
        now = clock.monotonic()
        # If the wait has blocked, the ranks that it sees ended were alive `_WAKES_WITHIN` seconds ago.
        if now - began >= _WAKES_WITHIN:
            self._looked = now - _WAKES_WITHIN
        silent = self._guard.is_untouched()
        if not silent or any(rank < 0 for rank, _, _ in seen):
            seen = self._hear(seen)
        for rank, code, peak_kib in seen:
            self._note(rank, code, peak_kib, silent=silent)
        self._let_go([rank for rank, _, _ in seen])
        self._looked = clock.monotonic()

    def _hear(self, seen: list[Seen]) -> list[Seen]:
        """Handle notices and the guardian, which are watched besides the ranks. Return the ranks alone."""
        # Notices are read in any case: an ended rank may have written one before, because it could not report.
        self._read_notices()
        if any(rank == _GUARDIAN for rank, _, _ in seen):
            self._renew_guardian()
        return [one for one in seen if one[0] >= 0]

    def _look(self, timeout: float | None, gather: int) -> list[Seen]:
        """Return the ranks that the watch sees ended, and those that have no pidfd, which are polled."""
        if not self._unheld:
            return self._watch.wait(timeout, gather)
        deadline = math.inf if timeout is None else clock.monotonic() + timeout
        while True:
            left = deadline - clock.monotonic()
            ended = self._backend.sweep(list(self._unheld))
            # No wait if the sweep has found ranks: those that the watch has ready are added.
            seen = self._watch.wait(0 if ended else min(left, _LOOK_EVERY))
            seen += [(self._unheld[pid], code, 0) for pid, code in ended]
            if seen or left <= 0:
                return seen

    def ended_or_reported(self, rank: int) -> Ended:
        """Return what is known of a failed rank, which may still live."""
        if rank in self.ended:
            return self.ended[rank]
        now = clock.monotonic()
        return Ended(rank, self._pids[rank], 0, report=self.reported[rank], alive=now, seen=now)

    def take(self, rank: int) -> int:
        """Forget an ended rank, and return its sentinel."""
        del self.ended[rank]
        return self._sentinels[rank]

    def fileno(self) -> int:
        """Return an fd that is readable when `wait` has something to note; -1 if there is none."""
        return self._watch.fileno()

    def close(self) -> None:
        """Release the watch; the processes stay as they are."""
        self._watch.close()

    def _note(self, rank: int, code: int | None, peak_kib: int = 0, *, silent: bool = False) -> None:
        if rank not in self._alive:
            return
        process = self._processes[rank]
        if code is None or not isinstance(process, RankProcess):
            process.join()  # a sentinel that is a pipe may be readable before the process has ended
            code = process.exitcode
            if getattr(process, "status_lost", False):
                code = LOST
        else:
            process.note_ended(code)
            if code == LOST and not process.status_lost:
                code = process.exitcode  # `is_alive()` has noted and reaped it before
        if isinstance(process, RankProcess):
            process.supervision.on_close = (
                None  # no reference cycle: fds must not wait for the cycle collector
            )
            process.supervision.keepalive = None
        self.ended[rank] = ended = self._ended(rank, LOST if code is None else code, peak_kib, silent=silent)
        del self._alive[rank]
        if ended.failed and self.reported.pop(rank, None) is None:
            self.failed.append(rank)

    def _let_go(self, ranks: Sequence[int]) -> None:
        # Only ranks that are still watched: a sentinel may be closed by now, and its number used by another fd.
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
        # A rank that exits with 0 may have reported before. Where a process is foreign, its file is then not read.
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

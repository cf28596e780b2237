"""Who has ended, and how: our ranks and foreign Process objects behind one interface."""

from __future__ import annotations

import time
from functools import partial

from spawnx.process import RankProcess
from spawnx.remote import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from spawnx.backends.contract import Backend, Watch


class Ended:
    """A rank that has ended.

    Attributes:
        rank: its index.
        pid: what its process id was.
        exit_code: as multiprocessing has it; 255 if `status_lost`.
        status_lost: whether somebody else reaped it, so that nobody knows.
        report: what it left, if it failed and said why.
        seen: `time.monotonic()` when we saw that it had ended.
    """

    __slots__ = ("exit_code", "pid", "rank", "report", "seen", "status_lost")

    def __init__(
        self,
        rank: int,
        pid: int,
        exit_code: int,
        *,
        status_lost: bool = False,
        report: report.Report | None = None,
        seen: float = 0.0,
    ) -> None:
        self.rank = rank
        self.pid = pid
        self.exit_code = exit_code
        self.status_lost = status_lost
        self.report = report
        self.seen = seen

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
        error_files: where each of them reports.
        backend: how ours are watched.

    Attributes:
        ended: the ranks that have ended and were not taken yet, in the order in which they were seen.
    """

    def __init__(
        self, processes: Sequence[BaseProcess], error_files: Sequence[str], backend: Backend
    ) -> None:
        self.ended: dict[int, Ended] = {}
        self._processes = processes
        self._error_files = error_files
        self._sentinels = [process.sentinel for process in processes]
        self._alive = dict.fromkeys(range(len(processes)))
        self._watch = _open_watch(processes, backend)
        for rank, process in enumerate(processes):
            self._watch.add(self._sentinels[rank], rank)
            if isinstance(process, RankProcess):
                process.on_close = partial(self._note, rank)

    @property
    def alive(self) -> list[int]:
        """The ranks that have not been seen ended, in order."""
        return list(self._alive)

    @property
    def any_alive(self) -> bool:
        """Whether there is one: at no cost that grows with their number."""
        return bool(self._alive)

    def wait(self, timeout: float | None) -> None:
        """Wait until some rank has ended, and note all that have in `ended`.

        Args:
            timeout: seconds; 0 and less only look, None waits for ever.
        """
        if self._alive:
            for rank in self._watch.wait(timeout):
                self._note(rank)

    def take(self, rank: int) -> int:
        """Forget an ended rank; returns its sentinel."""
        del self.ended[rank]
        return self._sentinels[rank]

    def close(self) -> None:
        """Release the watch; the processes stay as they are."""
        self._watch.close()

    def _note(self, rank: int) -> None:
        if rank in self._alive:
            self.ended[rank] = self._reap(rank)
            del self._alive[rank]
        self._watch.discard(self._sentinels[rank])

    def _reap(self, rank: int) -> Ended:
        process = self._processes[rank]
        process.join()  # a sentinel that is a pipe tells the end before the kernel does
        code = process.exitcode
        lost = code is None
        if isinstance(process, RankProcess):
            lost = lost or process.status_lost
            process.kept = None
        told = report.read(self._error_files[rank]) if isinstance(process, RankProcess) or code != 0 else None
        code = 255 if code is None else code
        return Ended(rank, process.pid or 0, code, status_lost=lost, report=told, seen=time.monotonic())


def _open_watch(processes: Sequence[BaseProcess], backend: Backend) -> Watch:
    if all(isinstance(process, RankProcess) for process in processes):
        return backend.open_watch()
    from spawnx.backends.python import SentinelWatch

    return SentinelWatch()

"""ProcessContext: the ranks of one call, joined as the reference joins them (torch 2.13)."""

from __future__ import annotations

import threading
import time
import warnings

from spawnx import backends, teardown, verdict
from spawnx.errors import ProcessExitedException, ProcessRaisedException
from spawnx.watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from logging import Logger
    from multiprocessing.process import BaseProcess

    from spawnx.errors import ProcessException
    from spawnx.guard import Guard
    from spawnx.watcher import Ended

# Above so many, the ranks that are terminated are summed up in one warning.
_WARN_EACH = 8


class ProcessContext:
    """The ranks of one call.

    Made by `start_processes(..., join=False)`, or by hand from started `multiprocessing.Process` objects and the
    paths of the files in which they report as the reference's `_wrap` does.

    Args:
        processes: started processes; rank i is the i-th.
        error_files: as many paths. No file need be there.

    Attributes:
        processes: as given. Usable after the context has ended, too.
        error_files: as given; of contexts that `start_processes` made, valid until `join` raises or returns True.
        sentinels: `Process.sentinel` -> rank, for the ranks whose end `join` has not told yet.
        launcher: how the ranks were started: "clone", "exec", "fork" or "stdlib"; None for a context made by hand.
    """

    launcher: str | None = None

    def __init__(self, processes: Sequence[BaseProcess], error_files: Sequence[str]) -> None:
        self.error_files = error_files
        self.processes = processes
        self.sentinels: dict[int, int] = {process.sentinel: rank for rank, process in enumerate(processes)}
        self._watcher = Watcher(processes, error_files, backends.choose()[0])
        self._guard: Guard | None = None
        # Reentrant: a signal handler may join in the middle of a join.
        self._lock = threading.RLock()

    def pids(self) -> list[int]:
        """The process ids, by rank."""
        return [int(process.pid or 0) for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until a rank has ended, and tell whether all have.

        If one has failed, the others are ended (SIGTERM, then SIGKILL) and reaped, and the failure is raised:
        the earliest one, with the traceback of the rank if it raised. Each further call raises the next failure
        in turn, those of the ranks that were ended for it included, and in the end returns True.

        On Ctrl-C the ranks are left alone: the call may be repeated to let them finish.

        Args:
            timeout: how long to wait for an end, in seconds. 0 or less only looks; None waits for ever.
            grace_period: how long the others may take to end by themselves after a failure, in seconds, and again
                after SIGTERM, until SIGKILL. None: no time before SIGTERM, 30 s after it.

        Returns:
            True if all ranks have ended, False if some may still run: not necessarily at the end of `timeout`, but
            as soon as any rank has ended. Hence call it in a loop.

        Raises:
            ProcessRaisedException: a rank raised.
            ProcessExitedException: a rank ended by a signal or with an exit code other than 0.
        """
        return self._join(timeout, grace_period)

    def join_all(self) -> None:
        """Wait until all ranks have ended: what `while not join(): pass` does, at less cost where many end in a row.

        Raises:
            ProcessRaisedException, ProcessExitedException: as `join`.
        """
        while not self._join(for_all=True):
            pass

    def _join(
        self, timeout: float | None = None, grace_period: float | None = None, *, for_all: bool = False
    ) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0, timeout)):
            return not self.sentinels  # another thread waits, and will tell
        try:
            if not self.sentinels:
                return True
            self._wait_for_end(deadline, for_all=for_all)
            failure = self._first_failure(grace_period)
            self._tell_successes()
            if failure is not None:
                self._tell(failure)
                raise _exception(failure, self._watcher.alive)
            return not self.sentinels
        finally:
            if not self.sentinels:
                self._watcher.close()
            if self._guard is not None and not self._watcher.any_alive:
                self._guard.close()
            self._lock.release()

    def _join_procs_with_timeout(self, timeout: float) -> None:
        """Wait until all ranks have ended, or until `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        while self._watcher.any_alive:
            left = deadline - time.monotonic()
            self._watcher.wait(left)
            if left <= 0:
                return

    def _wait_for_end(self, deadline: float | None, *, for_all: bool) -> None:
        while not self._watcher.ended:
            left = None if deadline is None else deadline - time.monotonic()
            self._watcher.wait(left, for_all=for_all)
            if left is not None and left <= 0:
                return

    def _first_failure(self, grace_period: float | None) -> Ended | None:
        """The failure to raise now, after all ranks were ended for it."""
        if not any(ended.failed for ended in self._watcher.ended.values()):
            return None
        self._end_all(grace_period)
        return verdict.in_order(ended for ended in self._watcher.ended.values() if ended.failed)[0]

    def _end_all(self, grace_period: float | None) -> None:
        for rung in teardown.ladder(grace_period):
            if not self._watcher.any_alive:
                return
            if rung.signum is not None:
                self._send_all(rung.signum)
            self._join_procs_with_timeout(rung.seconds)

    def _send_all(self, signum: int) -> None:
        processes = [self.processes[rank] for rank in self._watcher.alive]
        alive = [process for process in processes if process.is_alive()]
        _warn(signum, alive)
        for process in alive:
            if signum == teardown.SIGTERM:
                process.terminate()
            else:
                process.kill()

    def _tell_successes(self) -> None:
        for ended in list(self._watcher.ended.values()):
            if not ended.failed:
                self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        self.sentinels.pop(self._watcher.take(ended.rank), None)
        if ended.failed and self._guard is not None:
            self._guard.remove_folder()

    def be_guarded(self, guard: Guard) -> None:
        """Have what stands behind these ranks for as long as any lives."""
        self._guard = guard
        self._watcher.watch_guard(guard)


class SpawnContext(ProcessContext):
    """The old name of `ProcessContext`."""

    def __init__(self, processes: Sequence[BaseProcess], error_files: Sequence[str]) -> None:
        warnings.warn("SpawnContext is renamed to ProcessContext since 1.4 release.", stacklevel=2)
        super().__init__(processes, error_files)


def _logger() -> Logger:
    import logging  # not at the top: it costs more than all of spawnx

    return logging.getLogger("spawnx")


def _warn(signum: int, processes: Sequence[BaseProcess]) -> None:
    """One warning per process in the reference's words, or one in all if there are many."""
    if signum == teardown.SIGTERM:
        each, all_ = (
            "Terminating process %s via signal SIGTERM",
            "Terminating %d processes via signal SIGTERM",
        )
    else:
        each = "Unable to shutdown process %s via SIGTERM , forcefully exiting via SIGKILL"
        all_ = "Unable to shutdown %d processes via SIGTERM , forcefully exiting via SIGKILL"
    if len(processes) > _WARN_EACH:
        _logger().warning(
            all_ + ": process %s to process %s", len(processes), processes[0].pid, processes[-1].pid
        )
        return
    for process in processes:
        _logger().warning(each, process.pid)


def _exception(failure: Ended, unkillable: Sequence[int]) -> ProcessException:
    """The failure in the reference's words; then, if need be, who could not be ended."""
    more = _told_unkillable(unkillable)
    if failure.report is not None:
        msg = f"\n\n-- Process {failure.rank:d} terminated with the following error:\n{failure.report.told}{more}"
        return ProcessRaisedException(msg, failure.rank, failure.pid)
    name = None
    if failure.status_lost:
        msg = f"process {failure.rank:d} ended, but another reaper took its exit status (is SIGCHLD ignored?)"
    elif failure.exit_code < 0:
        name = _signal_name(-failure.exit_code)
        msg = f"process {failure.rank:d} terminated with signal {name}"
    else:
        msg = f"process {failure.rank:d} terminated with exit code {failure.exit_code:d}"
    return ProcessExitedException(msg + more, failure.rank, failure.pid, failure.exit_code, name)


def _signal_name(signum: int) -> str:
    import signal

    try:
        return signal.Signals(signum).name
    except ValueError:  # a real-time signal
        return f"<Unknown signal {signum}>"


def _told_unkillable(ranks: Sequence[int]) -> str:
    if not ranks:
        return ""
    named = ", ".join(str(rank) for rank in ranks)
    return f"\n(not ended {teardown.LAST_WAIT:g} s after SIGKILL, and left to the system: process {named})"

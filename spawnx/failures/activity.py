"""Which of the ranks that have raised are about to end by themselves, and which hang: seen by whether they work."""

from __future__ import annotations

from spawnx.failures.teardown import SPARED
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds within which a rank that works must have ended. An interpreter that has torch takes 0.3 to get rid of it, on a
# machine that has nothing else to do.
_LONGEST = 5.0
# Seconds of processor time, between two looks, from which on a rank works: more than finalizers take before one hangs.
_WORKS = 0.05


class Activity:
    """Since when ranks that have raised have done nothing."""

    def __init__(self) -> None:
        # Seconds of processor time that each had used at the last look; None before the first one.
        self._used: dict[int, float | None] = {}
        self._idle: dict[int, float] = {}

    def idle_since(
        self, now: float, raised: Mapping[int, float], pids: Mapping[int, int]
    ) -> dict[int, float]:
        """Look at all ranks that were measured before.

        Args:
            now: `clock.monotonic()`.
            raised: rank -> when it was known that the rank has raised.
            pids: rank -> pid, of the ranks that live.

        Returns:
            rank -> from when on the living rank is spared: since it last worked, but not for ever.
        """
        for rank, since in raised.items():
            if rank not in pids:
                continue
            before = self._used.setdefault(rank, None)
            self._idle.setdefault(rank, since)
            if before is not None:
                self._used[rank], works = _look(pids[rank], before)
                if works:
                    self._idle[rank] = min(now, since + _LONGEST - SPARED)
        return {rank: since for rank, since in self._idle.items() if rank in pids}

    def measure(self, pids: Mapping[int, int]) -> None:
        """Measure ranks that are new to `idle_since`. Call it after signals were sent: it imports psutil, in 15 ms."""
        for rank, used in self._used.items():
            if used is None and rank in pids:
                self._used[rank], _ = _look(pids[rank], 0.0)


def _look(pid: int, before: float) -> tuple[float, bool]:
    """How much processor time a process has used, in seconds, and whether it works."""
    with standard_library():
        import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, status = process.cpu_times(), process.status()
    except (psutil.Error, OSError):  # it has ended, or there is no /proc, or a sandbox forbids to look
        return 0.0, False
    used = times.user + times.system
    # Waiting for a processor counts as running, and for a disk as working (proc_pid_stat(5)).
    return used, status in {psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP} or used - before >= _WORKS

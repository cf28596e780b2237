"""Separates ranks that have raised and still work, which will soon end by themselves, from ranks that hang."""

from __future__ import annotations

import sys

from spawnx.failures.teardown import SPARED
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds within which a rank that works must have ended. An interpreter with torch takes 0.3 s to finalize on an idle
# machine.
_LONGEST = 5.0
# A rank that uses this many seconds of processor time between two looks works. Finalizers use less before one hangs.
_WORKS = 0.05


class Activity:
    """Knows since when each rank that has raised is idle."""

    def __init__(self) -> None:
        # Seconds of processor time that each rank had used at the last look; None before the first one.
        self._used: dict[int, float | None] = {}
        self._idle: dict[int, float] = {}

    def idle_since(
        self, now: float, raised: Mapping[int, float], pids: Mapping[int, int]
    ) -> dict[int, float]:
        """Look at the ranks that have raised and were measured before.

        Args:
            now: `clock.monotonic()`.
            raised: rank -> when it was known that the rank has raised.
            pids: rank -> pid, of the ranks that live.

        Returns:
            rank -> the time from which `SPARED` counts, for living ranks: when the rank last worked, or raised. Work
            spares a rank for `_LONGEST` seconds at most after it raised.
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
    """Return how many seconds of processor time a process has used, and whether it works."""
    try:
        with standard_library():
            import psutil

        process = psutil.Process(pid)
        with process.oneshot():
            times, status = process.cpu_times(), process.status()
    # The rank has ended; or psutil can't be imported (`sys.path` has changed, no fd is free); or it can't look (no
    # /proc, a sandbox). Whatever it is, it must not stop the teardown.
    except Exception:  # noqa: BLE001
        return 0.0, False
    used = times.user + times.system
    # A process that waits for a processor has the state "running". One that waits for a disk counts as working, too
    # (proc_pid_stat(5)). On macOS every process has the state "running" (psutil 7), so only the time counts there.
    works = sys.platform == "linux" and status in {psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP}
    return used, works or used - before >= _WORKS

"""Which of the ranks that have raised are about to end by themselves, and which hang: seen by whether they work."""

from __future__ import annotations

import os

from spawnx.failures.teardown import SPARED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds within which a rank that works must have ended. An interpreter that has torch takes 0.3 to get rid of it, on a
# machine that has nothing else to do.
_LONGEST = 5.0
# Seconds of processor time, between two looks, from which on a rank works: more than finalizers take before one hangs.
_WORKS = 0.05
# The state of a process that runs, or waits for a processor or a disk (proc(5)).
_WORKING = b"RD"


class Activity:
    """Since when ranks that have raised have done nothing. Where there is no /proc, since they raised."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._idle: dict[int, float] = {}

    def idle_since(
        self, now: float, raised: Mapping[int, float], pids: Mapping[int, int]
    ) -> dict[int, float]:
        """Look at them.

        Args:
            now: `clock.monotonic()`.
            raised: who has raised, and when that was known.
            pids: of the ranks that live.

        Returns:
            For those who live, from when on each is spared: since it has done nothing, but not for ever.
        """
        for rank, since in raised.items():
            if rank in pids:
                before = self._used.get(rank)
                self._used[rank], works = _look(pids[rank], before)
                if before is None:
                    self._idle[rank] = since
                elif works:
                    self._idle[rank] = min(now, since + _LONGEST - SPARED)
        return {rank: since for rank, since in self._idle.items() if rank in pids}


def _look(pid: int, before: float | None) -> tuple[float, bool]:
    """How much processor time a process has used, and whether it works."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return 0.0, False
    used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used, fields[0] in _WORKING or (before is not None and used - before >= _WORKS)

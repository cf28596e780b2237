"""Ended: what is known of a rank that has ended. Plain data."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.ipc.report import Report


class Ended:
    """A rank that has ended.

    Attributes:
        rank: its index.
        pid: its process id.
        exit_code: as in multiprocessing; 255 if `status_lost`.
        status_lost: whether the exit status is unknown, because other code has reaped the rank.
        report: the report of its failure; None if it left none.
        alive: `clock.monotonic()` when it was last known to live.
        seen: `clock.monotonic()` when it was seen ended.
        peak_kib: its peak resident memory, in KiB; 0 if unknown.
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
        """Whether the rank failed. One that reported a failure and then exits with 0 has failed, too."""
        return self.exit_code != 0 or self.report is not None

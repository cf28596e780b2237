"""Which failure is the cause, and in which order the others follow. Pure: from what is known of each rank."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from spawnx.watcher import Ended


def in_order(failures: Iterable[Ended]) -> list[Ended]:
    """The failures, the earliest first: a raise has its own time, a silent end the time at which it was seen."""
    return sorted(failures, key=_time)


def _time(failure: Ended) -> tuple[float, int]:
    reported = failure.report.time if failure.report is not None else None
    return (failure.seen if reported is None else reported, failure.rank)

"""The order of failures."""

from __future__ import annotations

from spawnx import verdict
from spawnx.remote.report import Report
from spawnx.watcher import Ended


def test_failures_are_ordered_by_the_time_of_the_raise_not_of_the_exit() -> None:
    """A rank that raised first and exited last failed first; a silent end counts from when it was seen."""
    slow = Ended(0, 10, 1, report=Report("", "run", 1.0), seen=9.0)
    silent = Ended(1, 11, -9, seen=2.0)
    late = Ended(2, 12, 1, report=Report("", "run", 3.0), seen=4.0)

    assert [slow, silent, late] == verdict.in_order([late, silent, slow])


def test_equal_times_are_ordered_by_rank() -> None:
    """The order doesn't depend on that of the input."""
    ended = [Ended(rank, 10 + rank, 1, seen=1.0) for rank in range(4)]

    assert ended == verdict.in_order(reversed(ended))


def test_a_report_of_the_references_file_counts_from_when_it_was_seen() -> None:
    """The reference's files have no time in them."""
    by_hand = Ended(0, 10, 1, report=Report("text"), seen=5.0)
    ours = Ended(1, 11, 1, report=Report("text", "run", 4.0), seen=6.0)

    assert [ours, by_hand] == verdict.in_order([by_hand, ours])

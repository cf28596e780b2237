"""What is in a context's folder, by name: what ranks write there, and what is removed with it.

Nothing else is removed. csrc/guardian.c knows these names, too.
"""

from __future__ import annotations

# The scoreboard, where it has a name.
SCOREBOARD = "scoreboard"
_REPORT = "pickle"
# What is appended to the name of a report: for one that is being written; for the word that the rank has ended well.
PART = ".part"
ENDED = ".ended"


def of_report(rank: int) -> str:
    """The name of a rank's report."""
    return f"{rank}.{_REPORT}"


def is_ours(name: str) -> bool:
    """Whether a file may be one of a rank's, or the scoreboard."""
    rank, _, kind = name.partition(".")
    is_rank = rank.isascii() and rank.isdigit()
    return name == SCOREBOARD or (is_rank and kind in {_REPORT, _REPORT + PART, _REPORT + ENDED})

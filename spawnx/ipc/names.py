"""The names of the files that ranks write into a context's folder, and that are removed with it.

No other file is removed. csrc/guardian.c has the same names.
"""

from __future__ import annotations

# The scoreboard, if it is a file.
SCOREBOARD = "scoreboard"
_REPORT = "pickle"
# Suffixes to the name of a report: it is still being written; or the rank has ended with exit status 0.
PART = ".part"
ENDED = ".ended"


def of_report(rank: int) -> str:
    """Return the name of a rank's report."""
    return f"{rank}.{_REPORT}"


def is_ours(name: str) -> bool:
    """Return whether a name is that of a rank's file or of the scoreboard."""
    rank, _, kind = name.partition(".")
    is_rank = rank.isascii() and rank.isdigit()
    return name == SCOREBOARD or (is_rank and kind in {_REPORT, _REPORT + PART, _REPORT + ENDED})

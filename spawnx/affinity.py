"""The processors on which a thread may run: a child has them from the thread that creates it."""

from __future__ import annotations

import os

from spawnx.backends.contract import FORBIDDEN


def capture() -> set[int] | None:
    """Those of the calling thread; None where a sandbox forbids to ask."""
    try:
        return os.sched_getaffinity(0)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return None


def apply(processors: set[int] | None) -> None:
    """Have the calling thread run on these; where a sandbox forbids it, it stays as it is.

    Raises:
        OSError: none of them can be had.
    """
    if processors is None or processors == capture():
        return
    try:
        os.sched_setaffinity(0, processors)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise

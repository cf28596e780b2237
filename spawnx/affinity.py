"""The CPU affinity of a thread. A child inherits it from the thread that creates it."""

from __future__ import annotations

import os

from spawnx.backends.contract import FORBIDDEN


def capture() -> set[int] | None:
    """Return the processors on which the calling thread may run; None if a sandbox forbids the call."""
    try:
        return os.sched_getaffinity(0)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return None


def apply(processors: set[int] | None) -> None:
    """Set the processors on which the calling thread may run. Does nothing if a sandbox forbids it.

    Raises:
        OSError: none of these processors is available.
    """
    if processors is None or processors == capture():
        return
    try:
        os.sched_setaffinity(0, processors)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise

"""Notices: a rank that has reported says so, and the supervisor knows of the failure when it happens.

A FIFO in the context's folder: every launcher reaches it by name, and its one fd in the supervisor is watched beside
the ranks'. What is told stands in the report; a notice only says that there is one. Best effort: a failure whose notice
is lost is known when the rank has ended. Where there are no FIFOs (Windows), every failure is.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "notices"
# Of each of the two numbers in a notice. Less than PIPE_BUF in all: what several ranks write at once isn't mixed.
_BYTES = 4
# Read in one go: what a pipe holds.
_PIPEFUL = 64 * 1024


def make(folder: str) -> int:
    """Make the FIFO of a context; returns the supervisor's end, which is read without waiting. -1: there are none."""
    if not hasattr(os, "mkfifo"):
        return -1
    path = os.path.join(folder, _NAME)
    os.mkfifo(path, 0o600)
    # For both directions: else it would be readable for ever once the first writer has closed it (the end of the file).
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def tell(folder: str, rank: int, errno: int = 0) -> None:
    """Say that a rank has reported; or, by an errno, that it could not."""
    # Suppressed: there is no supervisor any more, or it doesn't read, or there never was a FIFO.
    with contextlib.suppress(OSError, AttributeError):
        fifo = os.open(os.path.join(folder, _NAME), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, rank.to_bytes(_BYTES, sys.byteorder) + errno.to_bytes(_BYTES, sys.byteorder))
        finally:
            os.close(fifo)


def read(fifo: int) -> Iterator[tuple[int, int]]:
    """The notices that are there: rank and errno."""
    from posix import (
        read as read_now,
    )  # os.read is eventlet's where that is in use, and waits until there is something

    try:
        data = read_now(fifo, _PIPEFUL)
    except BlockingIOError:
        return
    for start in range(0, len(data), 2 * _BYTES):
        number = [data[at : at + _BYTES] for at in (start, start + _BYTES)]
        yield int.from_bytes(number[0], sys.byteorder), int.from_bytes(number[1], sys.byteorder)

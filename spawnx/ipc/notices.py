"""Notices: a rank that has reported says so, and the supervisor knows of the failure when it happens.

A pipe, whose one end in the supervisor is watched beside the ranks. What is told stands in the report; a notice only
says that there is one, and one that names another rank does nothing. Best effort: a failure whose notice is lost is
known when the rank has ended. Where pipes can't be watched (Windows), every failure is.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from spawnx.ipc.ends import Own

# Of each of the two numbers in a notice. Less than PIPE_BUF in all: what several ranks write at once isn't mixed.
_BYTES = 4
# Read in one go: what a pipe holds.
_PIPEFUL = 64 * 1024


def make() -> tuple[int, int]:
    """Make the pipe of a context: the supervisor's end, which is read without waiting, and the ranks'. -1: none.

    The supervisor has both as long as it watches: else its own would be readable for ever (the end of the file) once
    the ranks have closed theirs.
    """
    if sys.platform == "win32":
        return -1, -1
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def tell(end: Own, rank: int, errno: int = 0) -> None:
    """Say that a rank has reported; or, by an errno, that it could not."""
    # Suppressed: there is no supervisor any more, or it doesn't read, or user code has closed our end.
    with contextlib.suppress(OSError):
        if end.is_open():
            os.write(end.fd, rank.to_bytes(_BYTES, sys.byteorder) + errno.to_bytes(_BYTES, sys.byteorder))


def read(end: int) -> Iterator[tuple[int, int]]:
    """The notices that are there: rank and errno. Any rank may have written any numbers."""
    from posix import read as read_now  # eventlet's os.read waits until there is something

    try:
        data = read_now(end, _PIPEFUL)
    except BlockingIOError:
        return
    for start in range(0, len(data), 2 * _BYTES):
        number = [data[at : at + _BYTES] for at in (start, start + _BYTES)]
        yield int.from_bytes(number[0], sys.byteorder), int.from_bytes(number[1], sys.byteorder)

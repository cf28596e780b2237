"""Notices: a rank that has reported writes one, so that the supervisor sees the failure when it happens.

A pipe; the supervisor watches its own end together with the ranks. The report holds the failure, and a notice only
announces the report: one that names another rank has no effect. Best effort: if a notice is lost, the supervisor sees
the failure when the rank has ended. On Windows, where pipes can't be watched, this holds for every failure.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from spawnx.ipc.ends import Own

# The size of each of the two numbers in a notice. A notice is smaller than PIPE_BUF: those of several ranks don't mix.
_BYTES = 4
# The most bytes of one read: the capacity of a pipe.
_PIPEFUL = 64 * 1024


def make() -> tuple[int, int]:
    """Make the pipe of a context, non-blocking; return the supervisor's end and the ranks' end. -1: no pipe.

    The supervisor keeps both as long as it watches. Else its own end would be readable for ever (end of file) once all
    ranks have closed theirs.
    """
    if sys.platform == "win32":
        return -1, -1
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def tell(end: Own, rank: int, errno: int = 0) -> None:
    """Write a notice: a rank has reported or, with an errno, could not."""
    # Suppressed: the supervisor is gone or doesn't read, or user code has closed our end.
    with contextlib.suppress(OSError):
        if end.is_open():
            os.write(end.fd, rank.to_bytes(_BYTES, sys.byteorder) + errno.to_bytes(_BYTES, sys.byteorder))


def read(end: int) -> Iterator[tuple[int, int]]:
    """Yield the notices in the pipe, as rank and errno. Any rank may have written any numbers."""
    from posix import read as read_now  # eventlet's os.read waits while the pipe is empty

    try:
        data = read_now(end, _PIPEFUL)
    except BlockingIOError:
        return
    for start in range(0, len(data), 2 * _BYTES):
        number = [data[at : at + _BYTES] for at in (start, start + _BYTES)]
        yield int.from_bytes(number[0], sys.byteorder), int.from_bytes(number[1], sys.byteorder)

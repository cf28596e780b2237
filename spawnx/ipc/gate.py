"""The gate: no rank of a call reaches user code before all ranks exist and the guardian holds them.

A pipe. The supervisor writes one byte for each rank; each rank reads one. End of file means that the supervisor is
gone: a rank that waits at the gate then exits.
"""

from __future__ import annotations

import os

# The byte that a rank reads: the guardian holds the rank, or does not.
HELD = b"h"
UNHELD = b"u"


def make() -> tuple[int, int]:
    """Make the gate of a call, shut; return the ranks' end and the supervisor's end.

    The supervisor keeps both until it has written all bytes: a write fails while no process has the ranks' end open.
    """
    return os.pipe()


def let(gate: int, ranks: int, word: bytes) -> None:
    """Let so many ranks pass. The bytes stay in the pipe for ranks that haven't reached the gate yet."""
    left = memoryview(word * ranks)
    while left:
        left = left[os.write(gate, left) :]


def wait(gate: int) -> bytes:
    """Wait at the gate, then close it; return the byte, or b"" if the supervisor is gone."""
    # eventlet's os.read waits on an epoll that forked ranks share: if one rank removes the gate, the others miss it.
    from posix import read as read_now

    try:
        return read_now(gate, 1)
    finally:
        os.close(gate)

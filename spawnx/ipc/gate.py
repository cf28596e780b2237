"""The gate: no rank of a call goes on to user code before all exist and the guardian holds them.

A pipe. The supervisor writes a byte for each rank; each rank takes one. The end of the file means that the supervisor
is gone, so a rank that nobody will ever let on leaves by itself.
"""

from __future__ import annotations

import os

# What a rank is told: the guardian holds it, or it must do without.
HELD = b"h"
UNHELD = b"u"


def make() -> tuple[int, int]:
    """Make the gate of a call, shut: the ranks' end, and the supervisor's.

    The supervisor has both until every rank has been let on: what is written while nobody reads would be an error.
    """
    return os.pipe()


def let(gate: int, ranks: int, word: bytes) -> None:
    """Let so many ranks pass. The word stays in the pipe for those that haven't come to the gate yet."""
    left = memoryview(word * ranks)
    while left:
        left = left[os.write(gate, left) :]


def wait(gate: int) -> bytes:
    """Wait to be let on, and close the gate; returns the word, or b"" if no supervisor is left to say one."""
    # eventlet's os.read waits by an epoll that ranks by fork share: what one removes there, the others wait for.
    from posix import read as read_now

    try:
        return read_now(gate, 1)
    finally:
        os.close(gate)

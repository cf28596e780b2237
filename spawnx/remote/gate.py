"""The gate: no rank of a call goes on to user code before all exist and the guardian holds them.

A FIFO in the context's folder. The supervisor writes a byte for each rank; each rank takes one. The end of the file
means that the supervisor is gone, so a rank that nobody will ever let on leaves by itself.
"""

from __future__ import annotations

import os

# What a rank is told: the guardian holds it, or it must do without.
HELD = b"h"
UNHELD = b"u"

_NAME = "gate"


def make(folder: str) -> int:
    """Make the gate of a call, shut; returns the supervisor's end, which must be open until every rank has passed."""
    path = os.path.join(folder, _NAME)
    os.mkfifo(path, 0o600)
    # For both directions: else the call would wait for a reader. Not POSIX, but so on Linux (fifo(7)).
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def let(gate: int, ranks: int, word: bytes) -> None:
    """Let so many ranks pass."""
    left = memoryview(word * ranks)
    while left:
        left = left[os.write(gate, left) :]


def wait(folder: str) -> bytes:
    """Wait to be let on; returns the word, or b"" if no supervisor is left to say one."""
    try:
        # Not to wait in open(2) for a writer that is gone: there is no end of that.
        gate = os.open(os.path.join(folder, _NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""  # the guardian has removed the folder of a supervisor that is gone
    try:
        os.set_blocking(gate, True)
        return os.read(gate, 1)
    finally:
        os.close(gate)

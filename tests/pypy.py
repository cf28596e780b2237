"""What the tests do in another way on PyPy."""

from __future__ import annotations

import gc
import os
import sys

_PIDFD_OPEN = 434  # the number of the system call, the same on all architectures


def collect() -> None:
    """Destroy what nobody refers to any more.

    In CPython one collection does. In PyPy each collection finds what the one before has let go.
    """
    for _ in range(1 if sys.implementation.name == "cpython" else 4):
        gc.collect()


def drop() -> None:
    """Destroy what CPython has destroyed with the last reference: there, nothing is to wait for a collection."""
    if sys.implementation.name != "cpython":
        collect()


def open_pidfd(pid: int) -> int:
    """A pidfd, which is readable from the end of the process on; the caller closes it.

    The tests wait by it, and leave the exit status to others. PyPy's `os` has none.

    Raises:
        ProcessLookupError: there is no such process.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    import ctypes

    pidfd: int = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_OPEN, pid, 0)
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pidfd

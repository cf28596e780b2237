"""The ends: the fds by which a rank reaches its supervisor. The supervisor opens them once, and hands them over.

They have no names: a cleaner may empty the temporary directory, and a rank may change its root or drop its rights. And
not every file system has FIFOs. Their numbers are high: user code that closes a range of fds, or all, and opens its own
files gets low numbers.
"""

from __future__ import annotations

import contextlib
import os

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# User code may close fds below this number as a range.
_LOW = 256
# The new numbers are below 1024: at each fork the kernel copies a process's fd table up to the highest number. They
# begin `_ROOM` below that (or below the soft limit, if that is lower), to leave room for the fds of other calls.
_BELOW = 1024
_ROOM = 128


class Ends:
    """The fds of one rank; -1 for each that does not exist.

    Attributes:
        scoreboard: the file of `ipc.scoreboard`.
        notices: the end of `ipc.notices` to which the rank writes.
        gate: the end of `ipc.gate` from which the rank reads.
    """

    __slots__ = ("gate", "notices", "scoreboard")

    def __init__(self, scoreboard: int = -1, notices: int = -1, gate: int = -1) -> None:
        self.scoreboard = scoreboard
        self.notices = notices
        self.gate = gate

    def __reduce__(self) -> tuple[Callable[..., Ends], tuple[Any, ...]]:
        """Pickle for a process that multiprocessing is about to start; multiprocessing hands the fds over."""
        with standard_library():
            from multiprocessing.reduction import DupFd

        return received, tuple(None if fd < 0 else DupFd(fd) for fd in self.numbers)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """All three fds, in the order of the arguments of `Ends`."""
        return self.scoreboard, self.notices, self.gate

    @property
    def fds(self) -> list[int]:
        """The fds that exist."""
        return [fd for fd in self.numbers if fd >= 0]


def received(*handed_over: Any) -> Ends:
    """Rebuild in the started process what `Ends.__reduce__` has pickled."""
    return Ends(*(-1 if one is None else out_of_the_way(one.detach()) for one in handed_over))


def out_of_the_way(fd: int) -> int:
    """Move an fd to a high number if there is room; return its number. A moved fd is close-on-exec."""
    if not 0 <= fd < _LOW:
        return fd
    with standard_library():
        import fcntl
        import resource

    with contextlib.suppress(OSError):  # no room; or a sandbox forbids it
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        lowest = (_BELOW if soft < 0 else min(soft, _BELOW)) - _ROOM
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(lowest, fd))
        os.close(fd)
        return moved
    return fd


class Own:
    """An fd of spawnx in a process whose user code may close it and open another file at its number.

    Args:
        fd: owned by this object from now on, and close-on-exec; -1: none.
    """

    __slots__ = ("_file", "fd")

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self._file = _identity(fd)
        if self._file is not None:
            os.set_inheritable(fd, False)  # noqa: FBT003

    def is_open(self) -> bool:
        """Return whether the number still refers to our file."""
        return self.is_open_at(self.fd)

    def is_open_at(self, fd: int) -> bool:
        """Return whether another number refers to our file."""
        return self._file is not None and self._file == _identity(fd)

    def close(self) -> None:
        """Close the fd if it is still ours. May be called again."""
        if self.is_open():
            os.close(self.fd)
        self.fd = -1


def _identity(fd: int) -> tuple[int, int] | None:
    """The device and inode of an open file; None if `fd` is not open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino

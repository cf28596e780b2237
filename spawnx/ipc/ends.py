"""The ends: the fds by which a rank reaches its supervisor. The supervisor opens them once, and hands them over.

Not by name: a cleaner may empty the temporary directory, a rank may change its root or give up its rights, and not
every file system has FIFOs. At high numbers: user code that closes the fds of a range, or all, and opens files of its
own gets low ones.
"""

from __future__ import annotations

import contextlib
import os

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What user code may close as a range.
_LOW = 256
# Where they are instead: below 1024, as the kernel copies a process's table up to the highest number at each fork; and
# with so much room above them, for those of other calls.
_BELOW = 1024
_ROOM = 128


class Ends:
    """What a rank has of its call.

    Attributes:
        scoreboard: see `ipc.scoreboard`; -1 where there is none, as all of them.
        notices: the end of `ipc.notices` at which it writes.
        gate: the end of `ipc.gate` at which it reads.
    """

    __slots__ = ("gate", "notices", "scoreboard")

    def __init__(self, scoreboard: int = -1, notices: int = -1, gate: int = -1) -> None:
        self.scoreboard = scoreboard
        self.notices = notices
        self.gate = gate

    def __reduce__(self) -> tuple[Callable[..., Ends], tuple[Any, ...]]:
        """Pickle for a process that multiprocessing is about to start: it hands the fds over."""
        with standard_library():
            from multiprocessing.reduction import DupFd

        return received, tuple(None if fd < 0 else DupFd(fd) for fd in self.numbers)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """All three, in the order in which `Ends` takes them."""
        return self.scoreboard, self.notices, self.gate

    @property
    def fds(self) -> list[int]:
        """Those that there are."""
        return [fd for fd in self.numbers if fd >= 0]


def received(*handed_over: Any) -> Ends:
    """What `Ends.__reduce__` has handed over, in the process that was started."""
    return Ends(*(-1 if one is None else out_of_the_way(one.detach()) for one in handed_over))


def out_of_the_way(fd: int) -> int:
    """Move an fd to a high number, where there is room; returns the number. It is not inherited by programs."""
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
    """An fd of ours in a process whose user code may close it, and open another file by its number.

    Args:
        fd: from now on ours, and not inherited by programs; -1: there is none.
    """

    __slots__ = ("_file", "fd")

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self._file = _identity(fd)
        if self._file is not None:
            os.set_inheritable(fd, False)  # noqa: FBT003

    def is_open(self) -> bool:
        """Whether the number still stands for our file."""
        return self.is_open_at(self.fd)

    def is_open_at(self, fd: int) -> bool:
        """Whether another number does."""
        return self._file is not None and self._file == _identity(fd)

    def close(self) -> None:
        """Close it, if it is still ours. May be called again."""
        if self.is_open():
            os.close(self.fd)
        self.fd = -1


def _identity(fd: int) -> tuple[int, int] | None:
    """What tells an open file from all others; None if none is open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino

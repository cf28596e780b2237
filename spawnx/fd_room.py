"""The numbers of fds: many pidfds are moved above the soft limit, and no fd becomes a standard stream."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from spawnx.backends.contract import FULL
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def streams_taken() -> Iterator[None]:
    """Occupy the numbers of closed standard streams, so that no fd that is opened meanwhile gets one.

    The placeholders aren't inheritable: in children the stream is closed, as in this process.
    """
    taken: list[int] = []
    with contextlib.suppress(OSError):  # no fd is free
        while not taken or taken[-1] <= 2:  # noqa: PLR2004 - the standard error's
            taken.append(os.open(os.devnull, os.O_RDWR))
        os.close(taken.pop())
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


class FdRoom:
    """An `FdRoom` places the pidfds of this process, under the limits that it finds when it is made.

    A pidfd below half of the soft limit keeps its number. Any other is moved to a number beyond the soft limit. The
    limit is raised for that moment only: ranks must not inherit a raised limit, and user code must not get fds that its
    select() can't take. An fd stays usable when the limit is lowered below it.
    """

    def __init__(self) -> None:
        with standard_library():
            import resource  # not at the top: Windows has none

        self._soft = self._hard = sys.maxsize  # if a sandbox forbids getrlimit, pidfds keep their numbers
        with contextlib.suppress(OSError):
            self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._soft == resource.RLIM_INFINITY:
            self._soft = self._hard

    def place(self, fd: int) -> int | None:
        """Return the number of `fd`, perhaps new; or close it and return None if the hard limit leaves no room."""
        if fd < self._soft // 2:
            return fd
        with standard_library():
            import fcntl
            import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (self._hard, self._hard))
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._soft)
        except OSError as error:
            if error.errno not in {*FULL, errno.EINVAL}:  # EINVAL: the soft limit is the hard one
                raise
            return None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._soft, self._hard))
            os.close(fd)

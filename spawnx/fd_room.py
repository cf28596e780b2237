"""Where to put fds: thousands of pidfds above the soft limit, and none where the standard streams belong."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# What tells that the table of fds is full: of this process, or of the system.
FULL = {errno.EMFILE, errno.ENFILE}


@contextlib.contextmanager
def streams_taken() -> Iterator[None]:
    """Let nothing that is opened meanwhile be taken for a standard stream, where one of these is closed.

    What stands in isn't inheritable: in children the stream is closed, as here.
    """
    taken: list[int] = []
    with contextlib.suppress(OSError):  # there is room for none
        while not taken or taken[-1] <= 2:  # noqa: PLR2004 - the standard error's
            taken.append(os.open(os.devnull, os.O_RDWR))
        os.close(taken.pop())
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


class FdRoom:
    """The room for pidfds in this process, with the limits as they are now.

    Up to half of the soft limit they stay where they are. Above that each is moved to a number beyond the soft limit,
    which is raised for that moment: ranks must not inherit a raised one, nor may user code meet fds that its select()
    can't take. An fd stays usable when the limit is lowered below it.
    """

    def __init__(self) -> None:
        with standard_library():
            import resource  # not at the top: Windows has none

        self._soft = self._hard = sys.maxsize  # where a sandbox forbids to ask, they stay where they are
        with contextlib.suppress(OSError):
            self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._soft == resource.RLIM_INFINITY:
            self._soft = self._hard

    def place(self, fd: int) -> int | None:
        """Keep `fd` under this or another number; or close it and return None: the hard limit leaves no room."""
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

"""Where to put thousands of pidfds: above the soft limit on fds, so that user code still finds low numbers."""

from __future__ import annotations

import errno
import fcntl
import os
import resource

# What tells that the table of fds is full: of this process, or of the system.
FULL = {errno.EMFILE, errno.ENFILE}


class FdRoom:
    """The room for pidfds in this process, with the limits as they are now.

    Up to half of the soft limit they stay where they are. Above that each is moved to a number beyond the soft limit,
    which is raised for that moment: ranks must not inherit a raised one, nor may user code meet fds that its select()
    can't take. An fd stays usable when the limit is lowered below it.
    """

    def __init__(self) -> None:
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._soft == resource.RLIM_INFINITY:
            self._soft = self._hard

    def place(self, fd: int) -> int | None:
        """Keep `fd` under this or another number; or close it and return None: the hard limit leaves no room."""
        if fd < self._soft // 2:
            return fd
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

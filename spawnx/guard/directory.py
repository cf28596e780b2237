"""The folder of one call: where ranks report. Reached by an fd from its beginning to its end.

By its path only ranks write there. In a temporary directory where another user may rename, the path may be another
folder's by now, or a link to one: what is read and removed here is what was made here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile

from spawnx.ipc import names
from spawnx.ipc import report_reader as reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.ipc.report import Report

# Where the temporary directory is missing, read-only or full, as in a container with a read-only root.
_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT}
_IN_MEMORY = "/dev/shm"  # noqa: S108 - by mkdtemp, as in the temporary directory


class Folder:
    """A new one, 0700. Removed at the end, with what ranks leave there.

    Attributes:
        path: absolute, as ranks may change their working directory.
        fd: of the folder; -1 where the system has none (Windows), and in the end.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self) -> None:
        self.path = os.path.abspath(_make())
        self.fd = -1
        self._owner: int | None = None
        self._gone = False
        if hasattr(os, "O_DIRECTORY"):  # not by os.supports_dir_fd, which doesn't know eventlet's os.open
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                self._owner = os.fstat(self.fd).st_uid
            except BaseException:
                self.remove()
                raise

    def mark_untouched(self) -> None:
        """Have it seen by one look, not by one for each rank, that nobody has written here."""
        with contextlib.suppress(OSError):  # then it looks touched, and each is looked for
            os.utime(self._itself, (0, 0))

    def is_untouched(self) -> bool:
        """Whether no rank has left anything since `mark_untouched`: every new name renews the folder's time."""
        try:
            return not self._gone and os.stat(self._itself).st_mtime_ns == 0
        except OSError:
            return False

    def report(self, rank: int) -> Report | None:
        """What a rank has reported here; None if nothing, or nothing that can be read."""
        path, folder = self._place(names.of_report(rank))
        return None if self._gone else reports.read(path, folder, self._owner)

    def has_ended_well(self, rank: int) -> bool:
        """Whether a rank has left word that it ended well."""
        path, folder = self._place(names.of_report(rank) + names.ENDED)
        with contextlib.suppress(OSError):
            os.stat(path, dir_fd=folder, follow_symlinks=False)
            return not self._gone
        return False

    def remove(self) -> None:
        """Remove what ranks have left, and the folder, unless something else is there. May be called again."""
        if self._gone:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self._itself):
                if names.is_ours(name):
                    self._unlink(name)
            # Nothing else of that name. Should it be renamed just now, the worst is that an empty folder is removed.
            if self.fd < 0 or os.path.samestat(os.fstat(self.fd), os.lstat(self.path)):
                os.rmdir(self.path)
        self.leave()

    def leave(self) -> None:
        """Have nothing to do with it any more: in a forked child. May be called again."""
        self._gone = True
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def _itself(self) -> str | int:
        return self.path if self.fd < 0 else self.fd

    def _place(self, name: str) -> tuple[str, int | None]:
        """A path and the fd of the folder from which it leads, as functions of `os` take them."""
        return (os.path.join(self.path, name), None) if self.fd < 0 else (name, self.fd)

    def _unlink(self, name: str) -> None:
        path, folder = self._place(name)
        with contextlib.suppress(OSError):
            os.unlink(path, dir_fd=folder)


def _make() -> str:
    """A new folder in the temporary directory, or in shared memory where that has no place for one."""
    try:
        return tempfile.mkdtemp(prefix="spawnx-")
    except OSError as error:
        if error.errno in _NO_PLACE:
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="spawnx-", dir=_IN_MEMORY)
        raise

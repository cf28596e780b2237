"""The folder of one call, in which ranks report. The supervisor reaches it by an fd from its creation to its removal.

Only ranks write by its path. Where another user may rename in the temporary directory, the path may lead to another
folder by now, or be a link to one. By the fd, the supervisor reads and removes files of its own folder only.
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

# Errors of a temporary directory that is missing, read-only or full, as in a container with a read-only root.
_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT}
_IN_MEMORY = "/dev/shm"  # noqa: S108 - by mkdtemp, as in the temporary directory


class Folder:
    """A new folder, with mode 0700. It is removed at the end, with the files of the ranks.

    Attributes:
        path: absolute, as ranks may change their working directory.
        fd: an fd of the folder; -1 on systems without O_DIRECTORY (Windows), and after the end.

    Raises:
        OSError: the folder can't be made.
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
        """Reset the folder's time, so that `is_untouched` needs one stat(2) and not one for each rank."""
        with contextlib.suppress(OSError):  # then it looks touched, and the report of each rank is looked for
            os.utime(self._itself, (0, 0))

    def is_untouched(self) -> bool:
        """Whether no rank has left anything since `mark_untouched`: each new name updates the folder's time."""
        try:
            return not self._gone and os.stat(self._itself).st_mtime_ns == 0
        except OSError:
            return False

    def report(self, rank: int) -> Report | None:
        """Return the report of a rank in this folder; None if there is none, or it can't be read."""
        path, folder = self._place(names.of_report(rank))
        return None if self._gone else reports.read(path, folder, self._owner)

    def has_ended_well(self, rank: int) -> bool:
        """Whether a rank has recorded, by a file, that it ended well."""
        path, folder = self._place(names.of_report(rank) + names.ENDED)
        with contextlib.suppress(OSError):
            os.stat(path, dir_fd=folder, follow_symlinks=False)
            return not self._gone
        return False

    def remove(self) -> None:
        """Remove the files of the ranks, and the folder unless other files are in it. May be called again."""
        if self._gone:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self._itself):
                if names.is_ours(name):
                    self._unlink(name)
            # Only if the path still leads to this folder. Another user may rename between this check and the rmdir:
            # then, at worst, another empty folder is removed.
            if self.fd < 0 or os.path.samestat(os.fstat(self.fd), os.lstat(self.path)):
                os.rmdir(self.path)
        self.leave()

    def leave(self) -> None:
        """Close the fd, and neither read nor remove anything from now on, as in a forked child. May be called again."""
        self._gone = True
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def _itself(self) -> str | int:
        return self.path if self.fd < 0 else self.fd

    def _place(self, name: str) -> tuple[str, int | None]:
        """Return a path and a `dir_fd`, as functions of `os` take them. The fd is None if the path is absolute."""
        return (os.path.join(self.path, name), None) if self.fd < 0 else (name, self.fd)

    def _unlink(self, name: str) -> None:
        path, folder = self._place(name)
        with contextlib.suppress(OSError):
            os.unlink(path, dir_fd=folder)


def _make() -> str:
    """Make a folder in the temporary directory, or in /dev/shm if that directory is missing, read-only or full."""
    try:
        return tempfile.mkdtemp(prefix="spawnx-")
    except OSError as error:
        if error.errno in _NO_PLACE:
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="spawnx-", dir=_IN_MEMORY)
        raise

"""Children that are held by pidfds: what launchers which don't leave it to multiprocessing share."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import threading
import time

from spawnx import clock
from spawnx.backends.contract import LOST
from spawnx.backends.python import end_unheld, signal_child, wait_readable
from spawnx.fd_room import FULL, FdRoom
from spawnx.mp import process as mp_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.process import RankProcess


def in_lasting_thread() -> bool:
    """Whether the calling thread lasts as long as its process, as the kernel sees it: its first thread does."""
    return threading.get_native_id() == os.getpid()


def first_thread_lives() -> bool:
    """Whether the first thread of this process lives, as the kernel sees it: an embedding program may have ended it."""
    with open("/proc/self/stat", "rb") as stat:
        return not stat.read().rpartition(b")")[2].startswith(b" Z")


class Holder:
    """Makes ranks the faces of new children, and holds these by pidfds as long as there is room for any."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._room = FdRoom()

    def open_unadopted(self, pids: Sequence[int]) -> list[int]:
        """Pidfds of what isn't a child of this process yet, but an unreaped one of a process that lives.

        Fewer than there are pids where there is no room for all, or that process has died.

        Raises:
            OSError: one can't be opened, for another reason; none is left open.
        """
        pidfds: list[int] = []
        try:
            for pid in pids:
                placed = self._room.place(os.pidfd_open(pid))
                if placed is None:
                    break
                pidfds.append(placed)
        except OSError as error:
            if error.errno not in {*FULL, errno.ESRCH}:
                for pidfd in pidfds:
                    os.close(pidfd)
                raise
        return pidfds

    def adopt_all(
        self, ranks: Sequence[RankProcess], pids: Sequence[int], pidfds: Sequence[int] = ()
    ) -> None:
        """Hold forked ranks, of which the first ones may have pidfds. When it raises, those not held are gone."""
        unheld = list(reversed(pids))
        try:
            for position, (rank, pid) in enumerate(zip(ranks, pids, strict=False)):
                if position < len(pidfds):
                    self._make_face(rank, pid, pidfds[position])
                else:
                    self.adopt(rank, pid, self._open_pidfd(pid))
                unheld.pop()
        except BaseException:
            for pid in unheld:
                end_unheld(pid)
            raise

    def adopt(self, rank: RankProcess, pid: int, pidfd: int | None) -> None:
        """Make `rank` the face of a child; the pidfd, None where none could be had, is its own from now on."""
        self._make_face(rank, pid, None if pidfd is None else self._room.place(pidfd))

    def _make_face(self, rank: RankProcess, pid: int, placed: int | None) -> None:
        popen = UnheldPopen(pid, self._backend) if placed is None else Popen(pid, placed, self._backend)
        mp_process.adopt(rank, popen, popen.sentinel)
        rank.forget_call()

    def _open_pidfd(self, pid: int) -> int | None:
        try:
            return self._backend.open_pidfd(pid)
        except OSError as error:
            # No fd is left; or somebody else has reaped the child already, and its number may be a stranger's.
            if error.errno not in {*FULL, errno.ECHILD}:
                raise
            return None


class Popen:
    """What `multiprocessing.Process` asks of the process behind it, for a child held by a pidfd.

    Attributes:
        pid: the child's process id.
        sentinel: its pidfd, readable when it has ended.
        returncode: None until it is known that the child has ended.
        status_lost: whether nobody knows how, because somebody else reaped it; `returncode` is then 255, as
            multiprocessing's forkserver has it.
    """

    status_lost = False

    # No reference to the Process: fds must not wait for a cycle collector, which may come late or be off.
    def __init__(self, pid: int, pidfd: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._backend = backend
        self.sentinel = pidfd
        self._close = mp_process.close_with(self, self.sentinel)

    def poll(self, _flag: int = 0) -> int | None:
        """The exit code, or None while the child runs.

        Callable from several threads, and from a signal handler in the middle of itself, without a lock: the code
        is looked at while the child stays a zombie, noted, and only then is the child reaped. Who looks in between
        sees the same code; who looks after the reaping finds the note.
        """
        if self.returncode is None:
            code = self._backend.peek(self.sentinel)
            if code is not None:
                self.note(code)
                self._backend.reap([self.sentinel])
        return self.returncode

    def note(self, code: int) -> None:
        """Note how the child has ended, before it is reaped; the first note stands."""
        if self.returncode is None:
            if code == LOST:
                self.status_lost = True
                code = 255
            self.returncode = code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end; the exit code, or None."""
        if self.poll() is None:
            wait_readable([self.sentinel], None if timeout is None else max(0, timeout))
        return self.poll()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the pidfd."""
        self._close()

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the child is known to have ended."""
        if self.returncode is None:
            signal_child(self._backend, self.pid, self.sentinel, signum)


class UnheldPopen(Popen):
    """The same for a child that no pidfd holds: there is no room for one, or the child was reaped before it was opened.

    Attributes:
        sentinel: minus the pid, a name and no fd: such a child can only be asked.
    """

    # Between two looks at all such children, in seconds: the only place where spawnx looks instead of being told.
    LOOK_EVERY = 0.05

    def __init__(self, pid: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.sentinel = -pid
        self._backend = backend

    def poll(self, _flag: int = 0) -> int | None:
        """The exit code, or None while the child runs."""
        if self.returncode is None:
            for _, code in self._backend.sweep([self.pid]):
                self.note(code)
                self.reap()
        return self.returncode

    def reap(self) -> None:
        """Let the kernel forget the child, which has been seen ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end; the exit code, or None."""
        deadline = math.inf if timeout is None else clock.monotonic() + timeout
        while self.poll() is None and (left := deadline - clock.monotonic()) > 0:
            time.sleep(min(left, self.LOOK_EVERY))
        return self.returncode

    def close(self) -> None:
        """Nothing is held."""

    def send_signal(self, signum: int) -> None:
        """See `Popen`."""
        if self.poll() is None:  # a zombie's or a living child's number is nobody else's
            os.kill(self.pid, signum)

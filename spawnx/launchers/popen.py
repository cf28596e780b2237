"""Popen objects for children that pidfds hold, for all launchers but `stdlib`."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import threading
import time

from spawnx import clock, proc_stat
from spawnx.backends.contract import FULL, LOST
from spawnx.backends.python import end_unheld, signal_child, wait_readable
from spawnx.fd_room import FdRoom
from spawnx.mp import process as mp_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.process import RankProcess


def in_lasting_thread() -> bool:
    """Return whether the calling thread is the first one of its process. It normally lasts as long as the process."""
    return threading.get_native_id() == os.getpid()


def first_thread_lives() -> bool:
    """Return whether the first thread of this process still lives. An embedding program may have ended it."""
    return proc_stat.fields("self")[proc_stat.STATE] != b"Z"


class Holder:
    """Attaches new child processes to their RankProcess. Tracks each by a pidfd, or by its pid if no fd is free."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._room = FdRoom()

    def open_unadopted(self, pids: Sequence[int]) -> list[int]:
        """Open pidfds of unreaped processes that are not children of this process yet.

        Returns:
            The pidfds, in the order of `pids`. Fewer than pids if no fd is free, or if a process is gone because its
            parent has died.

        Raises:
            OSError: a pidfd can't be opened for another reason. None is left open.
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
        """Attach forked ranks. The first ones may have pidfds.

        If this raises, the ranks that were not attached have been killed and reaped.
        """
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
        """Attach a child to `rank`, which then owns the pidfd. The pidfd is None if none could be opened."""
        self._make_face(rank, pid, None if pidfd is None else self._room.place(pidfd))

    def _make_face(self, rank: RankProcess, pid: int, placed: int | None) -> None:
        popen = UnheldPopen(pid, self._backend) if placed is None else Popen(pid, placed, self._backend)
        mp_process.adopt(rank, popen, popen.sentinel)
        rank.forget_call()

    def _open_pidfd(self, pid: int) -> int | None:
        try:
            return self._backend.open_pidfd(pid)
        except OSError as error:
            # No fd is free. Or another party has reaped the child already, and a stranger may have its pid.
            if error.errno not in {*FULL, errno.ECHILD}:
                raise
            return None


class Popen:
    """The Popen that `multiprocessing.Process` needs, for a child that a pidfd holds.

    Attributes:
        pid: the child's process id.
        sentinel: its pidfd, readable when it has ended.
        returncode: the exit code; None until the child is known to have ended.
        status_lost: whether the exit status is unknown, because another party reaped the child. `returncode` is then
            255, as in multiprocessing's forkserver.
    """

    status_lost = False

    # It has no reference to the Process, which would make a cycle. The fds would then stay open until the garbage
    # collector runs, which may be late or never.
    def __init__(self, pid: int, pidfd: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._backend = backend
        self.sentinel = pidfd
        self._close = mp_process.close_with(self, self.sentinel)

    def poll(self, _flag: int = 0) -> int | None:
        """Return the exit code, or None while the child runs.

        Several threads may call it, and a signal handler may call it in the middle of another call. It needs no lock:
        it reads the code while the child is a zombie, records it, and only then reaps the child. A call in between
        reads the same code. A call after the reaping finds the recorded code.
        """
        if self.returncode is None:
            code = self._backend.peek(self.sentinel)
            if code is not None:
                self.note(code)
                self._backend.reap([self.sentinel])
        return self.returncode

    def note(self, code: int) -> None:
        """Record the exit code of the child, before it is reaped. Further calls change nothing."""
        if self.returncode is None:
            if code == LOST:
                self.status_lost = True
                code = 255
            self.returncode = code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end. Returns the exit code, or None."""
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
    """A Popen for a child without a pidfd: no fd was free, or another party reaped the child before it was opened.

    Attributes:
        sentinel: minus the pid. It is no fd: such a child must be polled.
    """

    # Seconds between two polls of all such children. For all other children spawnx waits for an event.
    LOOK_EVERY = 0.05

    def __init__(self, pid: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.sentinel = -pid
        self._backend = backend

    def poll(self, _flag: int = 0) -> int | None:
        """Return the exit code, or None while the child runs."""
        if self.returncode is None:
            for _, code in self._backend.sweep([self.pid]):
                self.note(code)
                self.reap()
        return self.returncode

    def reap(self) -> None:
        """Reap the child, which is known to have ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end. Returns the exit code, or None."""
        deadline = math.inf if timeout is None else clock.monotonic() + timeout
        while self.poll() is None and (left := deadline - clock.monotonic()) > 0:
            time.sleep(min(left, self.LOOK_EVERY))
        return self.returncode

    def close(self) -> None:
        """Do nothing: no fd is open."""

    def send_signal(self, signum: int) -> None:
        """See `Popen`."""
        if self.poll() is None:  # the pid can't be a stranger's until the child is reaped
            os.kill(self.pid, signum)

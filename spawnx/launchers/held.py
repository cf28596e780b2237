"""Children that are held by pidfds: what launchers which don't leave it to multiprocessing share."""

from __future__ import annotations

import os
import select
import signal
import threading

from spawnx import mp_private
from spawnx.backends.contract import LOST
from spawnx.backends.python import end_unheld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.process import RankProcess


def in_lasting_thread() -> bool:
    """Whether the calling thread lasts as long as its process, as the kernel sees it: its first thread does."""
    return threading.get_native_id() == os.getpid()


def adopt_all(ranks: Sequence[RankProcess], pids: Sequence[int], backend: Backend) -> None:
    """Hold forked ranks by pidfds. When it raises, those that could not be held are gone."""
    unheld = list(reversed(pids))
    try:
        for rank, pid in zip(ranks, pids, strict=False):
            adopt(rank, pid, _open_pidfd(rank, pid, backend), backend)
            unheld.pop()
    except BaseException:
        for pid in unheld:
            end_unheld(pid)
        raise


def adopt(rank: RankProcess, pid: int, pidfd: int, backend: Backend) -> None:
    """Make `rank` the face of a child of ours; the pidfd is its own from now on."""
    mp_private.adopt(rank, Popen(rank, pid, pidfd, backend), pidfd)
    rank.forget_call()


def _open_pidfd(rank: RankProcess, pid: int, backend: Backend) -> int:
    try:
        return backend.open_pidfd(pid)
    except ChildProcessError:
        # Somebody else has reaped it. A pipe without a writer is readable from now on, as the pidfd of an ended child.
        read_end, write_end = os.pipe()
        os.close(write_end)
        rank.status_lost = True
        return read_end


class Popen:
    """What `multiprocessing.Process` asks of the process behind it, for a child held by a pidfd.

    Attributes:
        pid: the child's process id.
        sentinel: its pidfd, readable when it has ended.
        returncode: None until it is known that the child has ended.
    """

    def __init__(self, process: RankProcess, pid: int, pidfd: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = 255 if process.status_lost else None
        self._process = process
        self._backend = backend
        self.sentinel = pidfd
        self._close = mp_private.close_with(self, self.sentinel)

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
                self._process.status_lost = True
                code = 255
            self.returncode = code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end; the exit code, or None."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self.sentinel, select.POLLIN)
            poll.poll(None if timeout is None else max(0, timeout) * 1000)
        return self.poll()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the pidfd."""
        self._close()

    def _send_signal(self, signum: int) -> None:
        if self.returncode is None:
            self._backend.fan_out([self.sentinel], signum)

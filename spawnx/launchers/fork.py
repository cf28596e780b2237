"""Ranks by `os.fork` in the calling thread: its locks, thread-locals and grad mode are the child's.

Against `popen_fork`: no poll of earlier children at each start, no pipe pair per rank. A rank is held by one pidfd.
"""

from __future__ import annotations

import os
import select
import signal
from itertools import islice

from spawnx import mp_private
from spawnx.launchers.stdlib import is_lasting_thread
from spawnx.remote import rank as remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers import Order
    from spawnx.process import RankProcess


class ForkLauncher:
    """See `launchers.Launcher`. Linux, with pidfds."""

    name = "fork"

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """See `launchers.Launcher`."""
        call = remote.Call(order.fn, order.args)
        for rank in ranks:
            mp_private.check_may_start(rank)
            rank.give(call)
        mp_private.flush_streams()
        pids: list[int] = []
        # Blocked, so that a rank can't be interrupted before it is one: until then it is a copy of the supervisor,
        # and would unwind the supervisor's stack.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _fork_all(order, ranks, pids, mask)
        finally:
            try:
                _adopt_all(ranks, pids, order.backend)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fork_all(
    order: Order, ranks: Sequence[RankProcess], pids: list[int], mask: set[int | signal.Signals]
) -> None:
    """Fork every rank; `pids` has those that exist, also when it raises. In a rank it doesn't return."""
    supervisor = os.getpid()
    parent = supervisor if is_lasting_thread() else None
    if parent is not None:
        order.backend.load()
    for i, rank in enumerate(ranks):
        # Not `pids.append(os.fork())`: another thread may take a signal that we block, and Python would run its
        # handler in this one between the two calls. The pid would be lost with the KeyboardInterrupt. Inside of
        # extend() no Python code runs; iter() ends at the 0 that a child gets.
        pids.extend(islice(iter(os.fork, 0), 1))
        if len(pids) == i:
            _be_rank(rank, order.backend, supervisor, parent, mask)


def _be_rank(
    rank: RankProcess, backend: Backend, supervisor: int, parent: int | None, mask: set[int | signal.Signals]
) -> None:
    """The whole life of a forked rank. Nothing leaves this function but the process, by its exit."""
    code = 1
    try:
        if parent is not None:
            remote.arm_or_leave(backend.name, parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        mp_private.begin_forked()
        code = mp_private.bootstrap(rank, _open_parent(supervisor))
    except BaseException:  # noqa: BLE001 - what user code raises was dealt with: this is a fault of ours, or a signal
        import traceback

        traceback.print_exc()
    finally:
        try:
            mp_private.run_exit_functions("fork")
        finally:
            mp_private.exit_forked(code)


def _adopt_all(ranks: Sequence[RankProcess], pids: list[int], backend: Backend) -> None:
    """Hold every forked rank by a pidfd. After the last fork: later ranks would inherit those of earlier ones.

    When it raises, those that could not be held are gone.
    """
    unheld = list(reversed(pids))
    try:
        for rank, pid in zip(ranks, pids, strict=False):
            popen = Popen(rank, pid, backend)
            mp_private.adopt(rank, popen, popen.sentinel)
            unheld.pop()
            rank.forget_call()
    except BaseException:
        for pid in unheld:
            _end_unheld(pid)
        raise


def _end_unheld(pid: int) -> None:
    """Kill and reap a child that no pidfd holds. Only a child: its number is its own until it is reaped."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except ChildProcessError:  # somebody else reaped it
        pass


def _open_parent(supervisor: int) -> int | None:
    """What `multiprocessing.parent_process()` waits on: a pidfd of the supervisor."""
    try:
        return os.pidfd_open(supervisor)
    except OSError:  # no fd left, or the supervisor is gone: the rank has lost nothing else
        return None


class Popen:
    """What `multiprocessing.Process` asks of the process behind it, for a child held by a pidfd.

    Attributes:
        pid: the child's process id.
        sentinel: its pidfd, readable when it has ended.
        returncode: None until it is known that the child has ended.
    """

    method = "fork"

    def __init__(self, process: RankProcess, pid: int, backend: Backend) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._process = process
        self._backend = backend
        try:
            self.sentinel = backend.open_pidfd(pid)
        except ChildProcessError:
            self._lose_status()
            self.sentinel, write_end = os.pipe()
            os.close(write_end)  # readable from now on, as the pidfd of an ended child is
        self._close = mp_private.close_with(self, self.sentinel)

    def poll(self, _flag: int = 0) -> int | None:
        """The exit code, or None while the child runs.

        Callable from several threads, and from a signal handler in the middle of itself, without a lock: the code
        is looked at while the child stays a zombie, noted, and only then is the child reaped. Who looks in between
        sees the same code; who looks after the reaping finds the note.
        """
        if self.returncode is None:
            try:
                code = self._backend.peek(self.sentinel)
            except ChildProcessError:
                if self.returncode is None:
                    self._lose_status()
                return self.returncode
            if code is not None:
                self.returncode = code
                self._backend.reap(self.sentinel)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds, or for ever, for the child to end; the exit code, or None."""
        if self.poll() is None:
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

    def _lose_status(self) -> None:
        self._process.status_lost = True
        self.returncode = 255

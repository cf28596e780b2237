"""Launching threads: one for each call, which ends when its work is done: for ranks by exec, when these have ended.

Three facts ask for it:

- The kernel ties a child's death signal to the *thread* that created it (prctl(2)). The calling thread may end before
  its ranks by exec, so it can't create them; a thread that ends with the last of them can. Ranks that were adopted are
  children of the main thread: for them no thread need live.
- fork(2) gives a child what its creating thread has: nice, I/O priority, NUMA policy, personality, rights, namespaces
  and more, thread by thread. It gives a new thread the same. So a thread that the caller starts has all that is the
  caller's, whatever that is; a thread that was started earlier would have what was so then.
- Python runs signal handlers in the main thread only. In this one, no KeyboardInterrupt comes between the creation of
  a child and the note of its pid.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading

from spawnx import uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spawnx.guard import Guard


class Job:
    """What is to be done in the launching thread.

    Attributes:
        cancelled: whether the caller was interrupted: the work should end soon.
        on_cancel: called in the caller's thread when that happens, for work that waits for something.
    """

    on_cancel: Callable[[], None] | None = None

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.cancelled = False
        self._work = work
        self._error: BaseException | None = None
        self._interrupt: BaseException | None = None
        # No Event: an interrupt in the Python code of its wait leaves its lock as it should not be.
        self._is_done = False
        self._until_done = _thread.allocate_lock()
        self._until_done.acquire()
        self._is_to_cancel = False
        self._children: list[int] = []
        self._thread: threading.Thread | None = None
        self._started_by = 0

    def outlive(self, pids: Iterable[int]) -> None:
        """Keep the thread until these children of this process have ended."""
        self._children += pids

    def start(self) -> None:
        """Start the thread. Where none can be had (too many, or the interpreter ends), work in the calling one."""
        self._started_by = threading.get_native_id()
        thread = threading.Thread(target=self._live, name="spawnx-launch", daemon=True)
        try:
            uninterrupted.do(thread.start)
        except RuntimeError:
            self._do()
        except BaseException as interrupt:
            if thread.ident is None:
                raise
            self._thread, self._interrupt, self.cancelled, self._is_to_cancel = thread, interrupt, True, True
        else:
            self._thread = thread

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, whose ranks have ended, so that the caller finds none."""
        if self._thread is not None:
            self._thread.join(timeout)

    def wait(self) -> None:
        """Wait until the work is done; an interrupt is raised after that, not before.

        Raises:
            BaseException: what the work raised, or what interrupted the wait.
        """
        interrupt, self._interrupt = self._interrupt, None
        while not self._is_done:
            # A second interrupt may come at the end of the inner `except`, which has no call in which one could come.
            try:
                try:
                    while not self._is_done:
                        self._cancel()
                        self._until_done.acquire()
                except BaseException as raised:  # noqa: BLE001 - out of a signal handler
                    interrupt, self.cancelled, self._is_to_cancel = raised, True, True
            except BaseException as raised:  # noqa: BLE001 - likewise
                interrupt, self.cancelled, self._is_to_cancel = raised, True, True
        if self._thread is not None and not self._children:
            self._thread.join()
            uninterrupted.wait_until_gone(self._thread.native_id or 0)
        error, self._error = interrupt or self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error, interrupt  # no circle through this frame

    def _cancel(self) -> None:
        if self._is_to_cancel:
            self._is_to_cancel = False
            on_cancel = self.on_cancel  # once: the launching thread may be done with it meanwhile
            if on_cancel is not None:
                with contextlib.suppress(OSError):
                    on_cancel()

    def _live(self) -> None:
        self._do()
        # gevent and eventlet have made a greenlet of this thread. It is the caller's thread that has created the ranks,
        # and a wait for them would block all its greenlets.
        if threading.get_native_id() == self._started_by:
            return
        # From the last one: ranks end in about the order in which they were made, and each wait that blocks is a switch
        # of threads. By waitid(2), which needs no fd, and leaves the status to whoever reaps.
        for pid in reversed(self._children):
            with contextlib.suppress(ChildProcessError):  # somebody has reaped it
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def _do(self) -> None:
        """Work, and keep what is raised for the caller."""
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        del self._work
        self._is_done = True
        self._until_done.release()


def launch_in_thread(work: Callable[[Job], None], guard: Guard | None = None) -> None:
    """Call `work` in a launching thread, and wait for it. The end of the guard's context waits for that of the thread.

    Raises:
        BaseException: what `work` raises, or an interrupt, which comes after `work` has returned.
    """
    job = Job(work)
    if guard is not None:
        guard.join_thread = job.join
    job.start()
    job.wait()

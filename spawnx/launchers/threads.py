"""Launching threads, one for each call by `clone`, `exec` or `forkserver`.

The thread ends after the launch; with ranks by exec, after the last of them has ended.

Three facts require such a thread:

- The kernel ties a child's death signal to the *thread* that created it (prctl(2)). The calling thread may end before
  its ranks by exec, so it can't create them. A thread that ends after the last of them can. Adopted ranks are children
  of the main thread, so they need no other thread.
- fork(2) copies attributes of the creating thread to the child: nice, I/O priority, NUMA policy, personality, rights,
  namespaces and more. A new thread gets the same attributes. So a thread that the caller starts has all attributes of
  the caller. A thread that was started earlier would have those of that time.
- Python runs signal handlers in the main thread only. In a launching thread, no KeyboardInterrupt comes between the
  creation of a child and the recording of its pid.
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
    """The work of a launching thread.

    Attributes:
        cancelled: whether the caller was interrupted, so that the work should end soon.
        on_cancel: called in the caller's thread at that moment. Work that waits for something sets it.
    """

    on_cancel: Callable[[], None] | None = None

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.cancelled = False
        self._work = work
        self._error: BaseException | None = None
        self._interrupt: BaseException | None = None
        # Not an Event: an interrupt in the Python code of its wait() leaves its lock in a wrong state.
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
        """Start the thread. If that fails (too many threads, or the interpreter ends), work in the calling thread."""
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
        """Wait up to `timeout` seconds for the end of the thread. Call it after the ranks have ended."""
        if self._thread is not None:
            self._thread.join(timeout)

    def wait(self) -> None:
        """Wait until the work is done. An interrupt is raised after that, not before.

        Raises:
            BaseException: what the work raised, or what interrupted the wait.
        """
        interrupt, self._interrupt = self._interrupt, None
        while not self._is_done:
            # The inner `except` has no call, so that a second interrupt can come only at its end. The outer `except`
            # takes that one.
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
                del error, interrupt  # no reference cycle through this frame

    def _cancel(self) -> None:
        if self._is_to_cancel:
            self._is_to_cancel = False
            on_cancel = self.on_cancel  # read once: the launching thread may reset it meanwhile
            if on_cancel is not None:
                with contextlib.suppress(OSError):
                    on_cancel()

    def _live(self) -> None:
        self._do()
        # gevent or eventlet has made a greenlet of this thread. So the caller's thread has created the ranks, and a
        # wait for them would block all its greenlets.
        if threading.get_native_id() == self._started_by:
            return
        # The last child first: ranks end in about the order of their start, and each wait that blocks costs a switch of
        # threads. waitid(2) needs no fd, and WNOWAIT leaves the exit status for the caller that reaps.
        for pid in reversed(self._children):
            with contextlib.suppress(ChildProcessError):  # it has been reaped
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def _do(self) -> None:
        """Work, and keep an exception for the caller."""
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        del self._work
        self._is_done = True
        self._until_done.release()


def launch_in_thread(work: Callable[[Job], None], guard: Guard | None = None) -> None:
    """Call `work` in a launching thread, and wait for it. `Guard.close` then waits for the end of the thread.

    Raises:
        BaseException: what `work` raises, or an interrupt. An interrupt is raised after `work` has returned.
    """
    job = Job(work)
    if guard is not None:
        guard.join_thread = job.join
    job.start()
    job.wait()

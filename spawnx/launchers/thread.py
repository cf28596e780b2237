"""The launching thread: one per process, for as long as the process lives.

Two facts ask for it. The kernel ties a child's death signal to the *thread* that created it (prctl(2)), so children
that a short-lived thread asks for must be created by one that stays. And Python runs signal handlers in the main thread
only: in this one, no KeyboardInterrupt comes between the creation of a child and the note of its pid.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Job:
    """Something to be done in the launching thread.

    Attributes:
        cancelled: whether the caller was interrupted: the work should end soon.
        on_cancel: called in the caller's thread when that happens, for work that waits for something.
    """

    on_cancel: Callable[[], None] | None = None

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.cancelled = False
        self._work = work
        self._error: BaseException | None = None
        self._done = threading.Event()

    def do(self) -> None:
        """Work, and keep what is raised for the caller."""
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        finally:
            del self._work
            self._done.set()

    def wait(self) -> None:
        """Wait until the work is done; an interrupt is raised after that, not before.

        Raises:
            BaseException: what the work raised, or what interrupted the wait.
        """
        interrupt: BaseException | None = None
        while not self._done.is_set():
            try:
                self._done.wait()
            except BaseException as raised:  # noqa: BLE001 - out of a signal handler
                interrupt, self.cancelled = raised, True
                if self.on_cancel is not None:
                    self.on_cancel()
        error, self._error = interrupt or self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error, interrupt  # no circle through this frame


def launch_in_thread(work: Callable[[Job], None]) -> None:
    """Call `work` in the launching thread, and wait for it.

    Raises:
        BaseException: what `work` raises, or an interrupt, which comes after `work` has returned.
    """
    job = Job(work)
    try:
        _running().put(job)
    except (
        RuntimeError
    ):  # "can't start new thread": the interpreter is shutting down, and this thread with it
        job.do()
    job.wait()


def _running() -> SimpleQueue[Job]:
    """The queue of this process's launching thread; a forked child starts its own."""
    global _queue  # noqa: PLW0603 - one per process
    with _lock:
        if _queue is None:
            queue: SimpleQueue[Job] = SimpleQueue()
            threading.Thread(target=_serve, args=(queue,), name="spawnx-launch", daemon=True).start()
            _queue = queue
        return _queue


def _serve(queue: SimpleQueue[Job]) -> None:
    while True:
        queue.get().do()


def _forget() -> None:
    global _queue, _lock
    _queue, _lock = None, threading.Lock()


_queue: SimpleQueue[Job] | None = None
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

"""Work that no signal handler cuts in two: what is lost between the making of a process and its note stays lost."""

from __future__ import annotations

import _thread
import os
import threading
from itertools import starmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Each takes 1 us and more: the thread has some dozens of these left to live.
_YIELDS = 10_000


def do(work: Callable[[], None]) -> None:
    """Call `work` where no handler runs: Python calls handlers in the main thread only. What they raise comes after it.

    Raises:
        BaseException: what a handler has raised in the meantime, or else what `work` raises.
    """
    if threading.get_ident() != threading.main_thread().ident:
        work()
        return
    raised: list[BaseException] = []
    done: list[bool] = []
    started: list[int] = []
    thread_ids: list[int] = []
    lock = _thread.allocate_lock()
    lock.acquire()

    def run() -> None:
        thread_ids.append(threading.get_native_id())
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            raised.append(error)
        _forget_stand_in()
        done.append(True)
        lock.release()

    def step() -> None:
        if not started:
            # In one call: a handler that runs after it finds the thread noted.
            started.extend(starmap(_thread.start_new_thread, [(run, ())]))
        lock.acquire()

    _take(step, done, started, raised)
    if not started and isinstance(
        raised[0], RuntimeError
    ):  # too many threads, or the interpreter is shutting down
        raised.clear()
        run()
    if thread_ids:
        wait_until_gone(thread_ids[0])
    if raised:
        try:
            raise raised[0]
        finally:
            raised.clear()  # no circle through this frame


def wait_until_gone(thread_id: int) -> None:
    """Wait until the kernel has removed a thread of this process that has nothing left to do. Off Linux, don't wait.

    pthread_join(3) returns earlier: when the kernel clears the thread's id. The kernel counts the thread until it has
    closed the thread's files. In between, `os.fork` warns that the process has several threads (CPython 3.12), in our
    call and in the user's. The kernel wakes no waiter at the removal, so this function yields the processor until then.
    A tracer may stop the thread before it is removed, so the number of yields has a limit.
    """
    if thread_id == threading.get_native_id():  # gevent and eventlet make a greenlet of a thread
        return
    path = f"/proc/self/task/{thread_id}"
    for _ in range(_YIELDS):
        if not os.path.exists(path):
            return
        os.sched_yield()


def _forget_stand_in() -> None:
    """Let `threading` know this thread no longer, which it doesn't see end.

    Whoever asks for the current thread, as `Thread.join` does in what the garbage collector calls here, has it make an
    object that stands in for it, and counts as a living thread for ever (CPython, before 3.13).
    """
    active, here = getattr(threading, "_active", {}), threading.get_ident()
    if isinstance(active.get(here), getattr(threading, "_DummyThread", ())):
        active.pop(here, None)


def _take(
    step: Callable[[], None], done: list[bool], started: list[int], raised: list[BaseException]
) -> None:
    """Take a step until the work is done, or can't be begun; note what handlers raise, the latest first."""
    while True:
        try:
            while not done:
                step()
        except BaseException as interrupt:  # noqa: BLE001 - out of a signal handler
            raised.insert(0, interrupt)
            if started:
                continue
        return

"""Work that no signal handler interrupts: if one raised between creating a process and noting it, that would leak."""

from __future__ import annotations

import _thread
import os
import threading
from itertools import starmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Each yield takes 1 us or more. The thread is gone after some dozens of these.
_YIELDS = 10_000


def do(work: Callable[[], None]) -> None:
    """Call `work` outside of the main thread, the only one in which Python runs signal handlers.

    Raises:
        BaseException: the exception of a handler that ran in the meantime, raised after `work`; or else that of `work`.
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
            # One call in C starts the thread and notes it: no handler runs in between.
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
            raised.clear()  # no reference cycle through this frame


def wait_until_gone(thread_id: int) -> None:
    """Wait until the kernel has removed a thread of this process that has nothing left to do. Off Linux, don't wait.

    pthread_join(3) returns earlier: when the kernel clears the thread's id. The kernel counts the thread until it has
    closed the thread's files. In between, `os.fork` warns that the process has several threads (CPython 3.12), in our
    call and in the user's. The kernel wakes no waiter at the removal, so this function yields the processor until then.
    A tracer may stop the thread before it is removed, so the number of yields has a limit.
    """
    if thread_id == threading.get_native_id():  # under gevent and eventlet a thread is a greenlet
        return
    path = f"/proc/self/task/{thread_id}"
    for _ in range(_YIELDS):
        if not os.path.exists(path):
            return
        os.sched_yield()


def _forget_stand_in() -> None:
    """Remove this thread's dummy object from `threading`, which doesn't notice the end of the thread.

    `threading.current_thread()` makes such an object in a thread that `threading` has not started. `Thread.join` calls
    that, perhaps in code that the garbage collector runs in this thread. The object would count as a live thread for
    ever (CPython before 3.13).
    """
    active, here = getattr(threading, "_active", {}), threading.get_ident()
    if isinstance(active.get(here), getattr(threading, "_DummyThread", ())):
        active.pop(here, None)


def _take(
    step: Callable[[], None], done: list[bool], started: list[int], raised: list[BaseException]
) -> None:
    """Repeat `step` until the work is done or can't be started. Collects the exceptions of handlers, latest first."""
    while True:
        try:
            while not done:
                step()
        except BaseException as interrupt:  # noqa: BLE001 - out of a signal handler
            raised.insert(0, interrupt)
            if started:
                continue
        return

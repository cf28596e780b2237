"""Work that no signal handler cuts in two: what is lost between the making of a process and its note stays lost."""

from __future__ import annotations

import _thread
import threading
from itertools import starmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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
    lock = _thread.allocate_lock()
    lock.acquire()

    def run() -> None:
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
    if raised:
        try:
            raise raised[0]
        finally:
            raised.clear()  # no circle through this frame


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

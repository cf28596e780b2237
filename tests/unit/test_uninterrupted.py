"""Work that no handler interrupts: nothing of it is left when it is done."""

from __future__ import annotations

import os
import threading

import pytest

from spawnx import uninterrupted
from tests.support import linux_only

ROUNDS = 300


@linux_only
def test_work_that_is_done_leaves_no_thread_in_the_kernel(on_one_processor: None) -> None:
    """`os.fork` would warn of it: the kernel counts a thread for a while after it has been joined."""
    before = sorted(os.listdir("/proc/self/task"))
    left = []
    for _ in range(ROUNDS):
        uninterrupted.do(lambda: None)
        left.append(sorted(os.listdir("/proc/self/task")))

    assert [before] * ROUNDS == left


@linux_only
def test_work_that_raises_leaves_no_thread_in_the_kernel(on_one_processor: None) -> None:
    """As work that doesn't."""
    before = sorted(os.listdir("/proc/self/task"))
    left = []
    for _ in range(ROUNDS):
        with pytest.raises(ZeroDivisionError):
            uninterrupted.do(lambda: 1 // 0 and None)
        left.append(sorted(os.listdir("/proc/self/task")))

    assert [before] * ROUNDS == left


def test_living_thread_is_waited_for_with_an_end() -> None:
    """A tracer may keep one from ending."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        uninterrupted.wait_until_gone(thread.native_id or 0)
        lives = thread.is_alive()
    finally:
        stop.set()
        thread.join()

    assert lives

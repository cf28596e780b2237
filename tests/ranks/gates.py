"""Where ranks wait, and how a test waits for them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from tests.pypy import open_pidfd


class Gate:
    """Where ranks say that they are there, and wait to be let on. A rank that is killed meanwhile harms nobody."""

    def __init__(self, context: Any) -> None:
        """Make the gate for ranks of one start method, by its `multiprocessing` context."""
        self.arrived = context.Semaphore(0)
        self.opened = context.Semaphore(0)

    def arrive(self) -> None:
        """As a rank, say that this rank is there."""
        self.arrived.release()

    def pass_through(self) -> None:
        """As a rank, say that this rank is there, and wait to be let on."""
        self.arrived.release()
        # Not for ever: Python would miss a signal that comes just before the system call.
        while not self.opened.acquire(timeout=0.1):
            pass

    def wait_for(self, count: int = 1) -> None:
        """As the supervisor, wait until so many ranks are there."""
        for _ in range(count):
            if not self.arrived.acquire(timeout=60):
                raise TimeoutError("a rank has not arrived")

    def let(self, count: int = 1) -> None:
        """As the supervisor, let so many ranks on."""
        for _ in range(count):
            self.opened.release()


def stay() -> None:
    """Wait for a signal that ends this rank; also for one that came just before, so not in one system call."""
    while True:
        threading.Event().wait(0.1)


@contextlib.contextmanager
def until_it_ends(pid: int) -> Iterator[None]:
    """Do something, then wait for the end of a process that is no child; it lives when this begins."""
    pidfd = open_pidfd(pid)
    yield
    wait([pidfd])


def wait_until_asleep(pid: int) -> None:
    """Wait until a process sleeps in the kernel, three times seen in a row; where the system can't tell, don't."""
    seen = 0
    while sys.platform == "linux" and seen < 3:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
        seen = seen + 1 if state == b"S" else 0
        threading.Event().wait(0.01)


def send_when_asleep(pid: int, signum: int) -> None:
    """Send a signal to a process that sleeps: Python misses one that comes just before a system call."""
    wait_until_asleep(pid)
    os.kill(pid, signum)

"""One row of the campaign `contexts`: a supervisor that starts many contexts, and counts what it has before and after.

`tests.campaigns.contexts` starts it with the row as JSON, and with a temporary folder of its own. It prints lines of
JSON: several times the number of the last context, then the counts.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

import psutil

import spawnx
from tests import ranks
from tests.pypy import collect, open_pidfd

RANKS = 2
# How many dropped contexts may have living ranks.
MOST_DROPPED = 8
# Seconds that ranks may take to end, and their resources to be released, on a busy machine.
PATIENCE_S = 30.0
# Processes that supervisors keep from call to call, by a part of the command line.
_KEPT = ("spawnx.remote.zygote", "resource_tracker", "forkserver")
_GUARDIANS = ("spawnx-guardian", "spawnx.remote.guardian")


class Interrupt(Exception):  # noqa: N818 - what a handler raises, such as that of a notebook
    """Raised by a signal handler, at any moment."""


class Interrupts:
    """A timer whose handler raises during a call, and never after it."""

    def __init__(self) -> None:
        """Install the handler."""
        self.raised = 0
        self._armed = False
        signal.signal(signal.SIGALRM, self._interrupt)

    def _interrupt(self, _signum: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            self.raised += 1
            raise Interrupt

    def during(self, seconds: float, call: Callable[[], None]) -> None:
        """Run `call`, and interrupt it after `seconds`, unless it returns before."""
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            self._armed = False
        except Interrupt:
            pass


class Supervisor:
    """Starts contexts by one start method."""

    def __init__(self, method: str, seed: int) -> None:
        """Start nothing yet."""
        self.interrupts = Interrupts()
        self._method = method
        self._rng = random.Random(seed)
        self._dropped: collections.deque[list[int]] = collections.deque()
        # Seconds that a call takes; at first more than any.
        self._takes = 1.0

    def joined(self) -> None:
        """Start ranks, and join them."""
        spawnx.start_processes(ranks.nothing, (), RANKS, start_method=self._method)

    def dropped(self) -> None:
        """Start ranks, and drop their context. Ranks of several contexts may live at a time."""
        context = spawnx.start_processes(ranks.nothing, (), RANKS, join=False, start_method=self._method)
        assert context is not None
        pidfds = []
        for pid in context.pids():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the forkserver has reaped it
                pidfds.append(open_pidfd(pid))
        self._dropped.append(pidfds)
        del context
        if len(self._dropped) > self._rng.randrange(MOST_DROPPED):
            _wait_for(self._dropped.popleft())

    def interrupted(self) -> None:
        """Start ranks and join them, while a handler raises at a random moment."""
        self.interrupts.during(self._rng.uniform(1e-6, 1.2 * self._takes), self._time_one)

    def _time_one(self) -> None:
        """Make a call, and note how long it takes without interrupt. The next interrupt is drawn from that time."""
        began = time.monotonic()
        context = spawnx.start_processes(ranks.nothing, (), RANKS, join=False, start_method=self._method)
        assert context is not None
        context.join_all()
        self._takes = time.monotonic() - began

    def settle(self) -> None:
        """Wait until all ranks have ended. Then make another call, which releases what they have left."""
        while self._dropped:
            _wait_for(self._dropped.popleft())
        with contextlib.ExitStack() as opened:
            pidfds = []
            for one in _processes():
                if not _is_one_of(one, (*_KEPT, *_GUARDIANS)):
                    with contextlib.suppress(ProcessLookupError):
                        pidfds.append(open_pidfd(one.pid))
                        opened.callback(os.close, pidfds[-1])
            for pidfd in pidfds:
                wait([pidfd], PATIENCE_S)
        self.joined()
        collect()


def _wait_for(pidfds: list[int]) -> None:
    for pidfd in pidfds:
        wait([pidfd], PATIENCE_S)
        os.close(pidfd)


def _processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _is_one_of(process: psutil.Process, names: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join([process.name(), *process.cmdline()])
        return any(name in line for name in names)
    return False


def count() -> dict[str, int]:
    """Count the resources of this process."""
    some = _processes()
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "children": len(some),
        "guardians": sum(_is_one_of(one, _GUARDIANS) for one in some),
        "threads": len(os.listdir("/proc/self/task")),
        "files": sum(name.startswith("spawnx") for name in os.listdir(tempfile.gettempdir())),
    }


def describe() -> list[str]:
    """Describe the fds and descendants of this process, one a line."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"fd {fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    for one in _processes():
        with contextlib.suppress(psutil.Error):
            found.append(f"process {one.pid} {one.status()} {one.name()} {' '.join(one.cmdline())[:60]}")
    return found


def count_down_to(before: dict[str, int]) -> dict[str, int]:
    """Count until nothing exceeds `before`, for `PATIENCE_S` at most: threads and helpers take a moment to end."""
    until = time.monotonic() + PATIENCE_S
    while any((after := count())[name] > before[name] for name in before) and time.monotonic() < until:
        time.sleep(0.05)
    return after


def main() -> None:
    """Run as the supervisor of one row."""
    logging.disable()
    row: dict[str, Any] = json.loads(sys.argv[1])
    supervisor = Supervisor(row["method"], row["seed"])
    end_one = getattr(supervisor, row["ending"])
    # A first call opens all that is kept from call to call. A first call by ctypes opens a file that libffi keeps.
    os.close(open_pidfd(os.getpid()))
    for _ in range(2):
        supervisor.settle()
    before = count()
    for number in range(row["runs"]):
        end_one()
        if number % 50 == 0:
            print(json.dumps(number), flush=True)
    supervisor.settle()
    after = count_down_to(before)
    told = {
        "before": before,
        "after": after,
        "interrupts": supervisor.interrupts.raised,
        "active": len(multiprocessing.active_children()),
    }
    told["what"] = describe() if any(after[name] > before[name] for name in before) else []
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

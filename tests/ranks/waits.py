"""Ranks of which some do something while others wait."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from tests.ranks.endings import compute_for_ever
from tests.ranks.gates import Gate, stay, until_it_ends


def rest(rank: int, seconds: float) -> None:
    """Do nothing for a while."""
    time.sleep(seconds)


def nothing(rank: int) -> None:
    """End well at once."""


def interrupt_parent_and_read(rank: int, fd: int) -> None:
    """As rank 0, send the supervisor SIGUSR1, and once more each second; end when a byte can be read.

    Python misses a signal that comes just before a system call.
    """
    while rank == 0:
        os.kill(os.getppid(), signal.SIGUSR1)
        if wait([fd], timeout=1):
            break
    os.read(fd, 1)


def do(rank: int, how: Callable[..., None], *args: Any) -> None:
    """End in the way given."""
    how(*args)


def one_does(rank: int, which: int, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given; as another one, end well."""
    if rank == which:
        how(*args)


def one_does_others_wait(rank: int, which: int, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given; as another one, stay."""
    if rank == which:
        how(*args)
    stay()


def two_fail_others_stay(rank: int, gate: Gate, text: str) -> None:
    """As ranks 0 and 1, raise when both are let on; as another one, arrive and stay."""
    if rank < 2:
        gate.opened.acquire()
        raise ValueError(text)
    gate.arrive()
    stay()


def wait_at_own_then_do_own(rank: int, gates: list[Gate], hows: list[Any]) -> None:
    """Arrive at the gate of this rank, wait to be let on, end in the way of this rank."""
    gates[rank].pass_through()
    how, *args = hows[rank]
    how(*args)


def one_ends_one_computes_others_stay(rank: int, gate: Gate) -> None:
    """As rank 0, end well; as rank 1, arrive and compute; as another one, arrive and stay."""
    if rank > 0:
        gate.arrive()
        (compute_for_ever if rank == 1 else stay)()


def one_does_others_stay(rank: int, which: int, gate: Gate, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given when let on; as another one, arrive and stay."""
    if rank == which:
        gate.opened.acquire()
        how(*args)
    gate.arrive()
    stay()


def one_does_others_ignore_sigterm(
    rank: int, which: int, gate: Gate, how: Callable[..., None], *args: Any
) -> None:
    """As rank `which`, end in the way given when let on; as another one, ignore SIGTERM, arrive and stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    one_does_others_stay(rank, which, gate, how, *args)


def first_raises_then_others_end(rank: int, gate: Gate, queue: Any) -> None:
    """As rank 0, send the pid and raise; as another one, end well once rank 0 is dead."""
    if rank == 0:
        queue.put(os.getpid())
        gate.opened.acquire()
        raise ValueError("first")
    with until_it_ends(queue.get()):
        gate.arrive()


def wait_at(rank: int, gate: Gate) -> None:
    """Arrive, wait to be let on, end well."""
    gate.pass_through()


def wait_at_own(rank: int, gates: list[Gate]) -> None:
    """Arrive at the gate of this rank, wait to be let on, end well."""
    gates[rank].pass_through()


def wait_at_own_then_do(rank: int, gates: list[Gate], how: Callable[..., None], *args: Any) -> None:
    """Arrive at the gate of this rank, wait to be let on, end in the way given."""
    gates[rank].pass_through()
    how(*args)


def wait_at_then_put(rank: int, gate: Gate, queue: Any) -> None:
    """Arrive, wait to be let on, and leave proof of work."""
    gate.pass_through()
    queue.put(rank)


def touch(path: str) -> None:
    """Make a file."""
    with open(path, "w", encoding="utf-8"):
        pass


def arrive_and_stay_deaf(rank: int, gate: Gate) -> None:
    """Say that this rank is there; stay, and take no notice of SIGINT and SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gate.arrive()
    stay()


def wait_then_write(rank: int, gate: Gate, line: bytes) -> None:
    """Arrive, wait to be let on, and write a line."""
    gate.pass_through()
    os.write(1, line)


def write_when_terminated(rank: int, gate: Gate) -> None:
    """Stay, and write a line when SIGTERM comes."""

    def handle(_signum: int, _frame: object) -> None:
        os.write(1, b"SIGTERM\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, handle)
    gate.arrive()
    stay()


def be_supervisor(rank: int, package: str, start_method: str, how: Callable[..., None], *args: Any) -> None:
    """Start ranks of which rank 1 ends in the way given."""
    mp = importlib.import_module(package)
    mp.start_processes(one_does, (1, how, *args), 2, start_method=start_method)


def end_one_after_the_other(rank: int, first: int, queue: Any, how: Any, then: Any) -> None:
    """As rank `first`, end in one way; as the other one, end in another way once that one is dead."""
    if rank == first:
        queue.put(os.getpid())
    else:
        with contextlib.suppress(ProcessLookupError), until_it_ends(queue.get()):
            pass  # a forkserver reaps its ranks at once
        how = then
    function, *args = how
    function(*args)


def stay_as_rank(rank: int) -> None:
    """Wait for a signal that ends this rank."""
    stay()

"""The supervisor's system calls from start to joined, counted: O(N), and few for each rank."""

from __future__ import annotations

import pytest

from benchmarks import bench_syscalls, strace
from spawnx import backends
from tests.support import HAS_TORCH

FEW, SOME, MANY = 40, 100, 160
LIMIT_PER_RANK = 12

pytestmark = pytest.mark.skipif(strace.missing() is not None, reason=f"{strace.missing()}")


def _calls(backend: str, ranks: int) -> int:
    """As if each end had been told by a wait of its own: how many ends one wait tells differs from run to run."""
    start, join = bench_syscalls.count(backend, ranks)
    counted = start + join
    memory = counted["brk"] + counted["mmap"] + counted["munmap"]  # one for many ranks, now and then
    return counted.total() - memory - counted["epoll_wait"] + ranks


def _calls_of_one_fork() -> float:
    """More than one from CPython 3.12 on, which looks for threads in /proc/self/stat."""
    start, _ = bench_syscalls.count("floor", FEW)
    return start.total() / FEW


@pytest.mark.parametrize("backend", backends.available())
def test_calls_per_rank_are_few_and_the_same_at_any_number(backend: str) -> None:
    """No rank costs more because of the others, and none more than the limit, in which a fork is one call."""
    few, some, many = (_calls(backend, ranks) for ranks in (FEW, SOME, MANY))

    # What doesn't depend on their number (60 calls: the folder, the guardian, the selector) is in none of these.
    assert (some - few) / (SOME - FEW) == pytest.approx((many - some) / (MANY - SOME), abs=2)
    assert (many - few) / (MANY - FEW) <= LIMIT_PER_RANK - 1 + _calls_of_one_fork()


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_reference_polls_every_earlier_child_at_each_start() -> None:
    """A difference: the reference makes N(N+1)/2 waits, one for each earlier rank at each start."""
    start, join = bench_syscalls.count("torch", FEW)

    assert (start + join)["wait4"] >= FEW * (FEW + 1) / 2

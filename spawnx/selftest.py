"""The run of `python -m spawnx`: ranks that do a little real work, compared with those of multiprocessing.

The fresh interpreters of both import this file to find the work. So it must import nothing that only spawnx needs:
multiprocessing's ranks would pay for it as well.
"""

from __future__ import annotations

import math
import multiprocessing
import time

import spawnx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

LIMIT = 200_000
PRIMES_BELOW_LIMIT = 17_984  # https://oeis.org/A000720
# The counts stay in a pipe until all ranks have been joined: 10 bytes each, in 64 KiB on Linux.
MOST_RANKS = 4096


def primes_between(start: int, stop: int) -> int:
    """Count the primes from `start` up to `stop`, which is excluded, by a sieve of that slice alone."""
    start = max(start, 2)
    sieve = bytearray(b"\1") * max(0, stop - start)
    for divisor in range(2, math.isqrt(max(stop, 1) - 1) + 1):
        first = max(divisor, -(-start // divisor)) * divisor - start
        sieve[first::divisor] = bytes(len(range(first, len(sieve), divisor)))
    return sum(sieve)


def count_primes(rank: int, ranks: int, limit: int, queue: Any) -> None:
    """Count the primes in this rank's slice, and send the count back."""
    queue.put(primes_between(limit * rank // ranks, limit * (rank + 1) // ranks))


def do_nothing(rank: int) -> None:
    """Do nothing: for a call that only finds out which launcher serves."""


class Run:
    """A `Run` is one run of all ranks.

    Attributes:
        primes: the sum of the ranks' counts.
        start: seconds until the call, or the loop of calls, that starts all ranks had returned.
        join: seconds from then until all had ended.
        launcher: name and reason of the launcher that served; None for multiprocessing.
    """

    __slots__ = ("join", "launcher", "primes", "start")

    def __init__(
        self, primes: int, start: float, join: float, launcher: tuple[str, str] | None = None
    ) -> None:
        self.primes = primes
        self.start = start
        self.join = join
        self.launcher = launcher

    @property
    def total(self) -> float:
        """The sum of `start` and `join`, in seconds."""
        return self.start + self.join


def by_spawnx(ranks: int, start_method: str, limit: int = LIMIT) -> Run:
    """Run the ranks by spawnx.

    Raises:
        ProcessException: a rank failed.
        OSError: a rank could not be started; none is left.
    """
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    began = time.perf_counter()
    # Daemons, as in `by_multiprocessing`, so that Ctrl-C leaves no rank.
    context = spawnx.start_processes(
        count_primes, (ranks, limit, queue), ranks, join=False, daemon=True, start_method=start_method
    )
    assert context is not None  # noqa: S101 - for the type checker: it is None only after join=True
    started = time.perf_counter()
    while not context.join():
        pass
    joined = time.perf_counter()
    return Run(_sum(queue, ranks), started - began, joined - started, _served(context))


def who_serves(start_method: str) -> tuple[str, str]:
    """Return name and reason of the launcher that serves a start method, found by a call of one rank.

    Raises:
        ProcessException, OSError, RuntimeError: no launcher serves it.
    """
    context = spawnx.start_processes(do_nothing, (), 1, join=False, daemon=True, start_method=start_method)
    assert context is not None  # noqa: S101 - as above
    context.join_all()
    return _served(context)


def _served(context: Any) -> tuple[str, str]:
    return context.launcher, context.launcher_reason


def by_multiprocessing(ranks: int, start_method: str, limit: int = LIMIT) -> Run:
    """Run the same work by `multiprocessing.Process`.

    Raises:
        RuntimeError: a rank failed.
        OSError: a rank could not be started. The started ones are ended when this process exits.
    """
    context: Any = multiprocessing.get_context(start_method)
    queue = context.SimpleQueue()
    began = time.perf_counter()
    processes = []
    for rank in range(ranks):
        process = context.Process(target=count_primes, args=(rank, ranks, limit, queue), daemon=True)
        process.start()
        processes.append(process)
    started = time.perf_counter()
    for process in processes:
        process.join()
    joined = time.perf_counter()
    _check_exits(processes)
    return Run(_sum(queue, ranks), started - began, joined - started)


def _check_exits(processes: Sequence[Any]) -> None:
    for rank, process in enumerate(processes):
        if process.exitcode != 0:
            msg = f"multiprocessing's process {rank} ended with exit code {process.exitcode}"
            raise RuntimeError(msg)
        process.close()


def _sum(queue: Any, ranks: int) -> int:
    """The sum of the ranks' counts. All ranks have succeeded, so every count is in the queue."""
    total: int = sum(queue.get() for _ in range(ranks))
    queue.close()
    return total


WAYS: dict[str, Callable[[int, str], Run]] = {"spawnx": by_spawnx, "multiprocessing": by_multiprocessing}


def compare(
    ranks: int, start_method: str, repetitions: int, progress: Callable[[int, int], None]
) -> dict[str, list[Run]]:
    """Run the work both ways, in turns, so that other load on the machine affects both alike.

    Args:
        ranks: the number of ranks; `MOST_RANKS` at most.
        start_method: the start method of both ways.
        repetitions: the number of runs of each way.
        progress: called after each run with the number of finished runs, and of all runs.

    Returns:
        The runs of each way in `WAYS`.

    Raises:
        ProcessException, RuntimeError, OSError: see `by_spawnx` and `by_multiprocessing`.
    """
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    turns = [way for turn in range(repetitions) for way in (WAYS if turn % 2 == 0 else reversed(WAYS))]
    for done, way in enumerate(turns, 1):
        runs[way].append(WAYS[way](ranks, start_method))
        progress(done, len(turns))
    return runs


def median(values: Sequence[float]) -> float:
    """Return the median. Not `statistics.median`, for which ranks would import 40 modules."""
    in_order = sorted(values)
    return (in_order[(len(in_order) - 1) // 2] + in_order[len(in_order) // 2]) / 2

"""How long does join take when N ranks end at once, and what does each end cost while others live?

The ranks are forked, alive, and blocked at a gate. `at-once`: all are let on, and joined. `one-by-one`: 50 of them are
let on, one when the one before has been joined, while all others live; `cpu` is the supervisor's own. The floor is a
bare loop of `os.waitpid` over children that multiprocessing has forked, so that they have as much to end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import harness, variants

SIZES = [1, 64, 500, 1000]
SIZES_QUICK = [64]
ONE_BY_ONE = 50


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for torch in (False, True):
        for how in ("at-once", "one-by-one"):
            for ranks in SIZES_QUICK if quick else SIZES:
                if how == "at-once" or ranks > ONE_BY_ONE:
                    yield from (f"join/{name}/{how}/n={ranks}" for name in variants.names(torch=torch))


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, how, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, "fork", floor=variants.Waited), variants.Gate()
    started = variant.start(ranks, gate)
    gate.wait_for(ranks)
    return _at_once(started, gate, ranks) if how == "at-once" else _one_by_one(started, gate, ranks)


def _at_once(started: variants.Ranks, gate: variants.Gate, ranks: int) -> harness.Metrics:
    began, cpu_began = time.perf_counter(), time.process_time()
    gate.let(ranks)
    started.join_all()
    return {
        "join ms": 1000 * (time.perf_counter() - began),
        "join cpu ms": 1000 * (time.process_time() - cpu_began),
    }


def _one_by_one(started: variants.Ranks, gate: variants.Gate, ranks: int) -> harness.Metrics:
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(ONE_BY_ONE):
        gate.let(1)
        started.join_one()
    ended, cpu_ended = time.perf_counter(), time.process_time()
    gate.let(ranks - ONE_BY_ONE)
    started.join_all()
    return {
        "us per end": 1e6 * (ended - began) / ONE_BY_ONE,
        "cpu us per end": 1e6 * (cpu_ended - cpu_began) / ONE_BY_ONE,
    }


if __name__ == "__main__":
    harness.main("benchmarks.bench_join", cases)

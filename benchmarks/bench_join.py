"""How long does join take when N ranks end at once, and what does each end cost while others live?

The ranks are forked, alive, and blocked at a gate. `at-once`: the gate opens for all, and all are joined. `after last`
is the time from the last rank's time stamp, written before its exit, until all are joined. `one-by-one`: the gate opens
for 50 of them, for each when the one before it has been joined, while all others live. `cpu` is the CPU time of the
supervisor alone, in the calls that join. The floor is a loop in C over children that spawnx has forked, so that their
exit takes as long. At once, it waits for each child. One by one, it waits for any child, so the kernel looks at each of
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import harness, variants

# How ranks end -> sizes. The standard library and the reference take too long to start more than MOST.
SIZES = {"at-once": [1, 64, 1024, 4096], "one-by-one": [200, 1000, 4096]}
SIZES_QUICK = {"at-once": [64], "one-by-one": [64]}
MOST = 1024
ONE_BY_ONE = 50


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for torch in (False, True):
        for how, sizes in (SIZES_QUICK if quick else SIZES).items():
            for ranks in sizes:
                for name in variants.names(torch=torch):
                    if ranks <= MOST or not (torch or name == "stdlib"):
                        yield f"join/{name}/{how}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, how, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, "fork", floor=variants.Waited), variants.Gate(stamps=ranks)
    started = variant.start(ranks, gate)
    gate.wait_for(ranks)
    return _at_once(started, gate, ranks) if how == "at-once" else _one_by_one(started, gate, ranks)


def _at_once(started: variants.Ranks, gate: variants.Gate, ranks: int) -> harness.Metrics:
    began = time.monotonic()
    gate.let(ranks)
    cpu_began = time.process_time()
    started.join_all()
    cpu_ended, ended = time.process_time(), time.monotonic()
    started.check()
    return {
        "join ms": 1000 * (ended - began),
        "cpu ms": 1000 * (cpu_ended - cpu_began),
        "after last ms": 1000 * (ended - gate.last_stamp()),
    }


def _one_by_one(started: variants.Ranks, gate: variants.Gate, ranks: int) -> harness.Metrics:
    seconds = cpu_seconds = 0.0
    for _ in range(ONE_BY_ONE):
        began = time.monotonic()
        gate.let(1)
        cpu_began = time.process_time()
        started.join_one()
        cpu_seconds += time.process_time() - cpu_began
        seconds += time.monotonic() - began
    gate.let(ranks - ONE_BY_ONE)
    started.join_all()
    started.check()
    return {"us per end": 1e6 * seconds / ONE_BY_ONE, "cpu us per end": 1e6 * cpu_seconds / ONE_BY_ONE}


if __name__ == "__main__":
    harness.main("benchmarks.bench_join", cases)

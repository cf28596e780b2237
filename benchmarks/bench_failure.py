"""How long after one of N ranks has failed is the failure raised, with all others ended and reaped?

The ranks are forked, alive, and blocked at a gate. The gate opens for one of them, which raises. `cpu` is the CPU time
of the supervisor alone. The floor is a loop in C over children that spawnx has forked. It waits for the first to end,
sends SIGTERM to all, and waits for each. The benchmark checks that no child is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from benchmarks import harness, variants

SIZES = [64, 1024]
SIZES_QUICK = [64]


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for torch in (False, True):
        for ranks in SIZES_QUICK if quick else SIZES:
            for name in variants.names(torch=torch):
                if name != "stdlib":  # its join doesn't end the other ranks
                    yield f"failure/{name}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    logging.disable()  # the reference logs a warning for each rank that it ends
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, "fork", floor=variants.Waited), variants.Gate()
    started = variant.start(ranks, gate)
    gate.wait_for(ranks)
    began = time.monotonic()
    gate.let_fail()
    cpu_began = time.process_time()
    started.join_failed()
    cpu_ended, ended = time.process_time(), time.monotonic()
    with contextlib.suppress(ChildProcessError):
        raise AssertionError(f"not reaped: {os.wait3(os.WNOHANG)}")
    return {"raised ms": 1000 * (ended - began), "cpu ms": 1000 * (cpu_ended - cpu_began)}


if __name__ == "__main__":
    harness.main("benchmarks.bench_failure", cases)

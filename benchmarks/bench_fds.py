"""How many file descriptors does the supervisor hold for N ranks that run, by start method?"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

from benchmarks import harness, variants

SIZES = {"fork": [64, 1024], "spawn": [64], "forkserver": [64]}
SIZES_QUICK = {"fork": [64], "spawn": [8]}


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for method, sizes in (SIZES_QUICK if quick else SIZES).items():
        for ranks in sizes:
            yield from (
                f"fds/{name}/{method}/n={ranks}" for name in variants.names(torch=False) if name != "floor"
            )
            if (
                harness.has_torch() and method == "fork"
            ):  # fresh interpreters with torch take long and give the same result
                yield f"fds/torch/{method}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, method, floor=variants.Forked), variants.Gate()
    gate.let(1)
    first = variant.start(1, gate)  # fds that are opened once, such as those to the forkserver, don't count
    gate.wait_for(1)
    first.join_all()
    first.check()
    del first
    gc.collect()
    before = _held()
    started = variant.start(ranks, gate)
    gate.wait_for(ranks)
    held = _held() - before
    gate.let(ranks)
    started.join_all()
    started.check()
    return {"fds per rank": held / ranks, "fds": held}


def _held() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a list of names, no paths


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("skipped: there is no /proc/self/fd")
    harness.main("benchmarks.bench_fds", cases, repetitions=1)

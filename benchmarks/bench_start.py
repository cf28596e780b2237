"""How long does it take until N ranks are alive, by start method?

The time runs from before the call until each rank has written that it is alive. After that, untimed, the ranks are let
on and joined. `returned` is the time until the call returns, and `cpu` the CPU time of the supervisor alone until then.
The floor is a bare loop of `os.fork`.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

from benchmarks import harness, variants

# Start method -> sizes. With torch there are fewer: each fresh interpreter imports it, which takes seconds.
SIZES = {"fork": [1, 64, 1024], "spawn": [1, 8, 64], "forkserver": [1, 8, 64]}
SIZES_QUICK = {"fork": [64], "spawn": [8], "forkserver": [8]}
SIZES_TORCH = {"fork": [64, 1024], "spawn": [8], "forkserver": [8]}
SIZES_TORCH_QUICK = {"fork": [64], "spawn": [2]}


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    available = multiprocessing.get_all_start_methods()
    for torch, sizes in [
        (False, SIZES_QUICK if quick else SIZES),
        (True, SIZES_TORCH_QUICK if quick else SIZES_TORCH),
    ]:
        for method in filter(available.__contains__, sizes):
            for ranks in sizes[method]:
                for name in variants.names(torch=torch):
                    if method == "fork" or not name.startswith("floor"):
                        yield f"start/{name}/{method}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, method, floor=variants.Forked), variants.Gate()
    began, cpu_began = time.perf_counter(), time.process_time()
    started = variant.start(ranks, gate)
    returned, cpu_returned = time.perf_counter(), time.process_time()
    gate.wait_for(ranks)
    alive = time.perf_counter()
    gate.let(ranks)
    started.join_all()
    started.check()
    return {
        "alive ms": 1000 * (alive - began),
        "returned ms": 1000 * (returned - began),
        "cpu ms": 1000 * (cpu_returned - cpu_began),
    }


if __name__ == "__main__":
    harness.main("benchmarks.bench_start", cases)

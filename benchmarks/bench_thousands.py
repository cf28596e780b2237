"""What does each of N ranks cost from its start to its end, and is that the same at any N?

N ranks are started, all wait at a gate, and then all end at once. All figures are per rank: time, CPU time, page faults
and memory. The ranks' CPU time and page faults include those of their template. `PSS` and `own` are the memory of a
waiting rank, the mean of about 16 ranks. `own` is the unique set size; PSS also counts a share of each page that
several processes share.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

import psutil

import spawnx
from benchmarks import harness, light, variants
from spawnx import backends

SIZES, SIZES_QUICK = [64, 512, 4096], [64]
ASKED = 16


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for size in SIZES_QUICK if quick else SIZES:
        for name in backends.available():
            for method in ("spawn", "fork") if name == "native" else ("fork",):
                yield f"thousands/{name}/{method}/n={size}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    os.environ["SPAWNX_BACKEND"] = name
    gate = variants.Gate()
    before = _usage()
    memory = psutil.Process().memory_info().rss
    began = time.perf_counter()
    context = spawnx.start_processes(
        light.pass_gate, (gate.arrive, gate.passed), ranks, join=False, start_method=method
    )
    assert context is not None
    gate.wait_for(ranks)
    all_alive = time.perf_counter()
    memory = psutil.Process().memory_info().rss - memory
    pss, own = _memory(context.pids())
    let = time.perf_counter()
    gate.let(ranks)
    context.join_all()
    ended = time.perf_counter()
    ours, theirs, faults = (after - earlier for after, earlier in zip(_usage(), before, strict=True))
    return {
        "alive ms": 1000 * (all_alive - began) / ranks,
        "end ms": 1000 * (ended - let) / ranks,
        "supervisor's CPU ms": 1000 * ours / ranks,
        "supervisor's KiB": memory / 1024 / ranks,
        "ranks' CPU ms": 1000 * theirs / ranks,
        "ranks' faults": faults / ranks,
        "PSS KiB": pss,
        "own KiB": own,
    }


def _usage() -> tuple[float, float, int]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime, children.ru_minflt


def _memory(pids: list[int]) -> tuple[float, float]:
    """Return the mean PSS and USS of about `ASKED` ranks, in KiB."""
    asked = pids[:: max(1, len(pids) // ASKED)]
    found = [psutil.Process(pid).memory_full_info() for pid in asked]
    return tuple(
        sum(values) / len(found) / 1024 for values in zip(*((one.pss, one.uss) for one in found), strict=True)
    )  # type: ignore[return-value]


if __name__ == "__main__":
    harness.main("benchmarks.bench_thousands", cases, repetitions=3)

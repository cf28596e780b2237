"""What does the guardian add to a context of N ranks, in time and memory?

The ranks are forked and end immediately. The time runs from before the call until all are joined. The guardian is in C
(`native`) or in Python (`python`); `floor` is the native backend without one (SPAWNX_ORPHAN_GRACE=off). `first` is the
first context of its process, which imports modules. `in a row` is the mean of ten contexts after that, or one with 1024
ranks. `guardian KiB` is the memory of the guardian alone (unique set size) while a rank waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import psutil

from benchmarks import harness, variants
from spawnx import backends

SIZES = [1, 8, 1024]
SIZES_QUICK = [1, 8]
IN_A_ROW = 10


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for ranks in SIZES_QUICK if quick else SIZES:
        for name in ("floor", *backends.available()):
            yield f"guard/{name}/fork/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, _, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    variants.raise_fd_limit()
    if name == "floor":
        os.environ["SPAWNX_ORPHAN_GRACE"] = "off"
        name = backends.available()[0]
    variant = variants.Variant(name, "fork", floor=variants.Forked)
    gate = variants.Gate()
    gate.let(ranks)
    first = _start_to_joined(variant, ranks, gate)
    in_a_row = 0.0
    repeated = IN_A_ROW if ranks < SIZES[-1] else 1
    for _ in range(repeated):
        gate.let(ranks)
        in_a_row += _start_to_joined(variant, ranks, gate)
    return {
        "first ms": 1000 * first,
        "in a row ms": 1000 * in_a_row / repeated,
        "guardian KiB": _memory_of_guardian(variant, gate),
    }


def _start_to_joined(variant: variants.Variant, ranks: int, gate: variants.Gate) -> float:
    began = time.perf_counter()
    started = variant.start(ranks, gate)
    started.join_all()
    ended = time.perf_counter()
    started.check()
    return ended - began


def _memory_of_guardian(variant: variants.Variant, gate: variants.Gate) -> float:
    started: Any = variant.start(1, gate)
    found = [child for child in psutil.Process().children() if "spawnx-guardian" in child.name()]
    memory = sum(guardian.memory_full_info().uss for guardian in found)
    gate.let(1)
    started.join_all()
    return memory / 1024


if __name__ == "__main__":
    harness.main("benchmarks.bench_guard", cases)

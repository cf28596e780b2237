"""How much memory is private to a waiting rank that has imported torch?

In MiB per rank, the mean of 8: `own` is the unique set size. PSS also counts a share of each page that several
processes share.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import psutil

from benchmarks import harness, light, variants
from spawnx import backends

RANKS = 8


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    ours = ["native"] if "native" in backends.available() else []
    for name in (*ours, *(["torch"] if harness.has_torch() else [])):
        for method in ("spawn", "forkserver", "fork"):
            yield f"memory/{name}/{method}/n={RANKS}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, _ = case.split("/")
    importlib.import_module("torch.multiprocessing")
    package = importlib.import_module("torch.multiprocessing" if name == "torch" else "spawnx")
    gate = variants.Gate()
    context = package.start_processes(
        light.import_torch_and_pass, (gate.arrive, gate.passed), RANKS, join=False, start_method=method
    )
    gate.wait_for(RANKS)
    found = [psutil.Process(pid).memory_full_info() for pid in context.pids()]
    gate.let(RANKS)
    while not context.join():
        pass
    return {
        "own MiB": sum(one.uss for one in found) / RANKS / 2**20,
        "PSS MiB": sum(one.pss for one in found) / RANKS / 2**20,
    }


if __name__ == "__main__":
    harness.main("benchmarks.bench_memory", cases, repetitions=3)

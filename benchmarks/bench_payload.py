"""How long does a call with 128 MB of arguments take, for one rank and for eight?

The time runs from before the call until all ranks are joined. Each rank checks the size of its argument. Eight ranks
unpickle eight copies, but the arguments should be pickled and sent once only. The floor is a call with empty arguments.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import harness
from spawnx import backends

SIZE, SIZE_QUICK = 128, 8


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for ranks in (1, 8):
        for name in ("floor", *backends.available(), *(["torch"] if harness.has_torch() else [])):
            yield f"payload/{name}/spawn/MB={SIZE_QUICK if quick else SIZE}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, size, ranks = case.split("/")
    data = os.urandom(1_000_000 * int(size.removeprefix("MB="))) if name != "floor" else b""
    if name in backends.available():
        os.environ["SPAWNX_BACKEND"] = name
    package = importlib.import_module("torch.multiprocessing" if name == "torch" else "spawnx")
    began = time.perf_counter()
    package.start_processes(_look, (data, len(data)), int(ranks.removeprefix("n=")), start_method=method)
    return {"ms": 1000 * (time.perf_counter() - began)}


def _look(rank: int, data: Any, size: int) -> None:
    assert len(data) == size


if __name__ == "__main__":
    harness.main("benchmarks.bench_payload", cases, repetitions=5)

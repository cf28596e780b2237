"""How long does a test suite with 20 small DDP runs in one process take?

Each test starts 2 ranks, which meet by gloo and take one step of DDP. `pytest s` is the time of the pytest process,
which imports torch once. `tests s` is the sum of its tests. In each rank, DDP imports `torch._dynamo` (822 modules)
besides torch; with `native+preload` it is imported only once. spawnx and the reference each run by `spawn` and by
`forkserver`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from spawnx import backends

TESTS, TESTS_QUICK = 20, 2
SUITE = """
    import pytest, torch
    import {package} as mp

    {preload}

    def train(rank, meeting):
        store = torch.distributed.FileStore(meeting, 2)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
        model(torch.full((2, 4), rank + 1.0)).sum().backward()
        assert model.module.weight.grad.eq(3.0).all()  # the mean of 2 and 4
        del model
        torch.distributed.barrier()  # or gloo may abort in the rank that is left
        torch.distributed.destroy_process_group()

    @pytest.mark.parametrize("i", range({tests}))
    def test_step(i, tmp_path):
        mp.start_processes(train, (str(tmp_path / "meeting"),), 2, start_method={method!r})
"""


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    if not harness.has_torch():
        sys.exit("this one needs torch")
    ours = ["native"] if "native" in backends.available() else []
    for name in (*ours, *(f"{name}+preload" for name in ours), "torch"):
        for method in ("spawn", "forkserver"):
            if not (name.endswith("+preload") and method == "spawn"):
                yield f"ddp/{name}/{method}/tests={TESTS_QUICK if quick else TESTS}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, method, tests = case.split("/")
    package = "torch.multiprocessing" if name == "torch" else "spawnx"
    preload = "mp.preload(['torch._dynamo'])" if name.endswith("+preload") else ""
    count = int(tests.removeprefix("tests="))
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder, "test_ddp.py")
        suite.write_text(
            textwrap.dedent(SUITE.format(package=package, preload=preload, method=method, tests=count)),
            encoding="utf-8",
        )
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", str(suite)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(harness.ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - began
    assert f"{count} passed" in done.stdout, done.stdout
    durations = re.findall(r"([\d.]+)s call", done.stdout)
    return {"pytest s": took, "tests s": sum(map(float, durations))}


if __name__ == "__main__":
    harness.main("benchmarks.bench_ddp", cases, repetitions=3)

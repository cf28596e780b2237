"""How long does a cold call of spawn take until all are joined, with N light ranks, and with ranks that use torch?

`light` ranks do nothing; their main module imports a few modules of the standard library. `torch` ranks multiply two
matrices, and the supervisor has imported torch. `native` clones its ranks; `exec` is the native backend with the
launcher exec. The floor, which no call can beat, is one fresh interpreter, which imports torch for `torch`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from spawnx import backends

SIZES = {"light": [8, 300, 1000], "torch": [8]}
SIZES_QUICK = {"light": [8], "torch": [2]}
PROGRAM = """
    import argparse, collections, json, logging, pathlib, sys, time
    {imports}

    def light(rank):
        pass

    def torch(rank):
        import torch
        assert (torch.ones(8, 8) @ torch.ones(8, 8)).sum() == 512

    def by_hand(fn, count):
        ranks = [mp.get_context("spawn").Process(target=fn, args=(rank,)) for rank in range(count)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        assert not any(rank.exitcode for rank in ranks)

    if __name__ == "__main__":
        began = time.perf_counter()
        {call}
        print(time.perf_counter() - began)
"""
CALLS = {
    "ours": ("import spawnx as mp", "mp.spawn({kind}, (), {ranks})"),
    "torch": ("import torch.multiprocessing as mp", "mp.spawn({kind}, (), {ranks})"),
    "stdlib": ("import multiprocessing as mp", "by_hand({kind}, {ranks})"),
}


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    ours = [*backends.available(), *(["exec"] if "native" in backends.available() else [])]
    for kind, sizes in (SIZES_QUICK if quick else SIZES).items():
        if kind == "torch" and not harness.has_torch():
            continue
        for ranks in sizes:
            for name in ("floor", *ours, "stdlib", *(["torch"] if kind == "torch" else [])):
                yield f"spawn/{name}/{kind}/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, kind, size = case.split("/")
    if name == "floor":
        imports, call = (
            "",
            f"import subprocess; subprocess.run([sys.executable, '-c', {_floor(kind)!r}], check=True)",
        )
    else:
        imports, call = CALLS.get(name, CALLS["ours"])
        call = call.format(kind=kind, ranks=size.removeprefix("n="))
    if kind == "torch":
        importlib.import_module("torch")  # reads it from disk, before the time starts
        imports += "\n    import torch as _imported"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(textwrap.dedent(PROGRAM.format(imports=imports, call=call)), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(program)],
            env={**os.environ, **_environment(name), "PYTHONPATH": str(harness.ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return {"ms": 1000 * float(done.stdout)}


def _floor(kind: str) -> str:
    return "import torch" if kind == "torch" else "pass"


def _environment(name: str) -> dict[str, str]:
    if name == "exec":
        return {"SPAWNX_BACKEND": "native", "SPAWNX_LAUNCHER": "exec"}
    return {"SPAWNX_BACKEND": name} if name in backends.available() else {}


if __name__ == "__main__":
    harness.main("benchmarks.bench_spawn", cases, repetitions=5)

"""How long does a later call by the start method forkserver take, and does anything grow over many calls?

`call` starts 8 ranks that end immediately. The time runs from before the call until all are joined, in a process that
has imported torch (`torch`), or has not (`light`). `first` is the first call of its process, `further` the median of
later calls. Ranks of `native` are forked from templates, which the kept zygote forks. Those of `stdlib` and `torch` are
forked by multiprocessing's forkserver, which imports nothing beforehand. `preload` is the reference with a forkserver
that has imported torch.

`grow` starts one rank in each of many calls. It shows the memory (RSS) and open files of supervisor and zygote after a
tenth of the calls, and after all.
"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psutil

from benchmarks import harness, light
from spawnx import backends

RANKS = 8
FURTHER = {"native": 20, "preload": 5, "stdlib": 5, "torch": 1}
CALLS, CALLS_QUICK = 1000, 50


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    ours = ["native"] if "native" in backends.available() else []
    for name in (*ours, "stdlib"):
        yield f"call/{name}/light/n={RANKS}"
    if harness.has_torch():
        for name in (*ours, "torch", "preload"):
            yield f"call/{name}/torch/n={RANKS}"
    for name in ours:
        yield f"grow/{name}/light/calls={CALLS_QUICK if quick else CALLS}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    question, name, kind, size = case.split("/")
    if kind == "torch":
        importlib.import_module("torch")
    if name == "preload":
        multiprocessing.set_forkserver_preload(["torch"])
    if question == "grow":
        return _grow(int(size.removeprefix("calls=")))
    fn = light.use_torch if kind == "torch" else light.nothing
    first, *further = (_call(name, fn) for _ in range(1 + FURTHER[name]))
    return {"first ms": 1000 * first, "further ms": 1000 * statistics.median(further)}


def _call(name: str, fn: Any, ranks: int = RANKS) -> float:
    began = time.perf_counter()
    if name == "stdlib":
        _by_hand(fn, ranks)
    else:
        package = importlib.import_module("spawnx" if name == "native" else "torch.multiprocessing")
        package.start_processes(fn, (), ranks, start_method="forkserver")
    return time.perf_counter() - began


def _by_hand(fn: Any, ranks: int) -> None:
    processes = [
        multiprocessing.get_context("forkserver").Process(target=fn, args=(i,)) for i in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert not any(process.exitcode for process in processes)


def _grow(calls: int) -> harness.Metrics:
    found: harness.Metrics = {}
    for call in range(1, calls + 1):
        _call("native", light.nothing, 1)
        if call in (calls // 10, calls):
            kept = [
                one
                for one in psutil.Process().children()
                if "spawnx.remote.zygote" in " ".join(one.cmdline())
            ]
            assert len(kept) == 1
            for who, process in (("supervisor", psutil.Process()), ("template", kept[0])):
                found[f"{who} KiB after {call}"] = process.memory_info().rss // 1024
                found[f"{who} files after {call}"] = process.num_fds()
    return found


if __name__ == "__main__":
    harness.main("benchmarks.bench_forkserver", cases, repetitions=3)

"""What does `import spawnx` cost, alone, and in a rank beyond `import multiprocessing.spawn`?

`alone` is the cost for a program. `in-a-rank` is all that a fresh rank of the start method spawn imports for spawnx, by
launcher. It includes the calls, and their imports, that open the rank's place on the scoreboard (with faulthandler) and
arm its death signal after the gate. Each case runs in a bare interpreter, once timed by the clocks and once with
`-X importtime`. That option has a cost of its own, and shows imports only. The floor is an empty module. `stdlib` and
`torch` are the imports of a program without spawnx. Of a forked rank, only the imported modules are counted: none.
"""

from __future__ import annotations

import os
import py_compile
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import spawnx
from benchmarks import harness
from spawnx import backends
from spawnx.ipc import notices
from spawnx.ipc.scoreboard_reader import make

# Case -> (code that runs before, code that is timed).
SPAWN = "import multiprocessing.spawn, multiprocessing.resource_tracker, os"  # as its spawn_main
BEGIN = (
    "import spawnx.remote.rank, spawnx.ipc.report, spawnx.ipc.gate; "
    "spawnx.remote.rank._receive_ends('0.pickle', spawnx.ipc.ends.Ends(*map(int, os.environ['ENDS'].split()))); "
    "spawnx.remote.rank.OrphanPolicy('off', 0, {backend!r}, os.getppid()).arm(2)"
)
CODE = {
    "import/floor/alone": ("", "import empty"),
    "import/spawnx/alone": ("", "import spawnx"),
    "import/stdlib/alone": ("", "import multiprocessing.spawn"),
    "import/torch/alone": ("", "import torch.multiprocessing"),
    "import/floor/in-a-rank/exec": (SPAWN, "import empty"),
    "import/floor/in-a-rank/stdlib": (SPAWN, "import empty"),
}
for _name in backends.available():
    _armed = BEGIN.format(backend=_name)
    CODE[f"import/{_name}/in-a-rank/exec"] = SPAWN, f"import spawnx.mp.boot, spawnx.remote.start; {_armed}"
    CODE[f"import/{_name}/in-a-rank/stdlib"] = SPAWN, _armed
    CODE[f"import/{_name}/in-a-rank/fork"] = "", ""
FROM_HERE = "timed from here"
TIMED = f"""
import sys, time
{{before}}
loaded = set(sys.modules)
print("{FROM_HERE}", file=sys.stderr)
began, began_cpu = time.perf_counter(), time.process_time()
{{timed}}
print(time.perf_counter() - began, time.process_time() - began_cpu, *(set(sys.modules) - loaded))
"""
IMPORTTIME = re.compile(r"import time:\s+(\d+) \|")


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    yield from (case for case in CODE if "torch" not in case or (harness.has_torch() and not quick))


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, where, *launcher = case.split("/")
    if launcher == ["fork"]:
        return {"modules": len(_modules_in_rank(name, "fork", "fork") - set(sys.modules))}
    if where == "in-a-rank" and name != "floor":
        _check_modules(case, name, *launcher)
    seconds, cpu_seconds, *modules = _timed(case).stdout.split()
    told = _timed(case, "-X", "importtime").stderr.partition(FROM_HERE)[2]
    return {
        "ms": 1000 * float(seconds),
        "cpu ms": 1000 * float(cpu_seconds),
        "importtime ms": sum(map(int, IMPORTTIME.findall(told))) / 1000,
        "modules": len(modules),
    }


def _timed(case: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a case in a bare interpreter: the clock, CPU time and modules are on stdout, importtime on stderr."""
    before, timed = CODE[case]
    with tempfile.TemporaryDirectory() as folder:
        ends = make(folder, 1), *notices.make()
        module = Path(folder, "empty.py")
        module.touch()
        py_compile.compile(str(module))
        try:
            return subprocess.run(
                [sys.executable, *options, "-c", TIMED.format(before=before, timed=timed)],
                cwd=harness.ROOT,
                env={**os.environ, "PYTHONPATH": folder, "ENDS": f"{ends[0]} {ends[2]}"},
                pass_fds=ends,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            for fd in ends:
                os.close(fd)


def _check_modules(case: str, backend: str, launcher: str) -> None:
    """Check that the timed code loads all modules that a rank loads for spawnx."""
    ours = _modules_in_rank(backend, launcher, "spawn")
    queue = get_context("spawn").SimpleQueue()
    plain: Any = get_context("spawn").Process(target=tell_modules, args=(0, queue))
    plain.start()
    theirs = queue.get()
    plain.join()
    missed = ours - theirs - set(_timed(case).stdout.split())
    assert not missed, f"ranks import what isn't timed: {missed}"


def _modules_in_rank(backend: str, launcher: str, method: str) -> set[str]:
    os.environ["SPAWNX_BACKEND"] = backend
    os.environ["SPAWNX_LAUNCHER"] = launcher if launcher in {"exec", "stdlib"} else "auto"
    queue = get_context(method).SimpleQueue()
    context = spawnx.start_processes(tell_modules, (queue,), join=False, start_method=method)
    assert context is not None
    assert context.launcher == launcher
    modules: set[str] = queue.get()
    while not context.join():
        pass
    return modules


def tell_modules(_rank: int, queue: SimpleQueue[set[str]]) -> None:
    """Run as a rank that sends the names of its loaded modules."""
    queue.put(set(sys.modules))


if __name__ == "__main__":
    harness.main("benchmarks.bench_import", cases, repetitions=21)

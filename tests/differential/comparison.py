"""How programs are run by each way, what each leaves, and how that is compared."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.differential import driver
from tests.differential.catalogue import Program
from tests.support import ROOT

# What a template of a way "laden" imports: what the programs use of the standard library. Not sqlite3, nor what has no
# file, as `os`: with these among its imports each rank's end would be the long one.
OF_THE_LIBRARY = (
    "asyncio", "bz2", "collections", "concurrent.futures", "concurrent.futures.process", "concurrent.futures.thread",
    "contextlib", "contextvars", "csv", "ctypes", "dataclasses", "decimal", "enum", "functools", "gzip", "json",
    "linecache", "logging", "logging.handlers", "lzma", "mmap", "multiprocessing.managers", "multiprocessing.pool",
    "multiprocessing.queues", "multiprocessing.shared_memory", "pickle", "random", "re", "signal", "socket",
    "subprocess", "tarfile", "tempfile", "threading", "traceback", "types", "typing", "urllib.request", "warnings",
    "weakref", "zipfile",
)  # fmt: skip

# For one run.
LIMIT_S = 600.0
# After which a rank has hung; with torch it begins with an import that takes seconds.
HUNG_S = 20.0
HUNG_WITH_TORCH_S = 60.0
AT_A_TIME = 24
# Each takes a quarter of a GiB where it imports torch by itself.
AT_A_TIME_WITH_TORCH = 3

# Without an end, so that no part of a word is taken for one: what differs from run to run.
_CHANGING = (
    (re.compile(r"0x[0-9a-f]+"), "0x…"),
    (re.compile(r"\btmp[a-z0-9_]{8}"), "tmp…"),
    (re.compile(r"\b(pymp|listener)-[a-z0-9_]{8}"), r"\1-…"),
    (re.compile(r"\bfd=\d+"), "fd=…"),
    (re.compile(r"\bname=\d+"), "name=…"),  # of a file that was opened by its fd
    (re.compile(r"subprocess \d+ is"), "subprocess … is"),
)


# Files of sqlite that begin with random numbers: that they are there is what is compared.
_SALTED = ("-journal", "-shm", "-wal")


@dataclass(frozen=True)
class Way:
    """One way to bring ranks into being.

    Attributes:
        name: by which it is asked for.
        oracle: the name of the way that it is compared with.
        method: the start method.
        launcher: that of spawnx; "" for multiprocessing's own processes.
        backend: that of spawnx.
        preload: what a template imports.
        in_main: whether programs are run in the main module, not in a module that it imports.
        share: a short run tries one program of so many.
    """

    name: str
    oracle: str
    method: str = "spawn"
    launcher: str = ""
    backend: str = "native"
    preload: tuple[str, ...] = ()
    in_main: bool = False
    share: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """That of the supervisor: without what makes an interpreter write at once, see tests/conftest.py."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPAWNX_"))
        }
        chosen = {"PYTHONPATH": str(ROOT), "SPAWNX_BACKEND": self.backend}
        if self.launcher in {"exec", "stdlib"}:
            chosen["SPAWNX_LAUNCHER"] = self.launcher
        return kept | (chosen if self.launcher else {"PYTHONPATH": str(ROOT)})


ORACLES = {
    way.name: way
    for way in (
        Way("multiprocessing", "multiprocessing"),
        Way("multiprocessing, in main", "multiprocessing, in main", in_main=True),
        Way("multiprocessing by forkserver", "multiprocessing by forkserver", "forkserver"),
    )
}
WAYS = {
    way.name: way
    for way in (
        Way("clone", "multiprocessing", launcher="clone"),
        Way("clone, laden", "multiprocessing", launcher="clone", preload=OF_THE_LIBRARY),
        Way("clone, in main", "multiprocessing, in main", launcher="clone", in_main=True, share=4),
        Way("forkserver", "multiprocessing by forkserver", "forkserver", launcher="forkserver", share=4),
        # The interpreter ends these by itself: they are tried so that the programs are known to be sound.
        Way("exec", "multiprocessing", launcher="exec", share=8),
        Way("exec by the python backend", "multiprocessing", launcher="exec", backend="python", share=16),
        Way("stdlib", "multiprocessing", launcher="stdlib", share=16),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What a rank has left."""

    code: int | str
    stdout: str = ""
    stderr: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """All of it, as text."""
        named = [("stdout", self.stdout), ("stderr", self.stderr)]
        named += [(f"file {name}", text) for name, text in sorted(self.files.items())]
        lines = [f"exit code {self.code}"]
        for name, text in named:
            lines += [f"{name}: {line!r}"[:160] for line in text.splitlines(keepends=True)[:40]]
            lines += [f"{name}: {len(text)} characters"] if len(text) > 160 else []
            lines += [f"{name}: empty"] if name.startswith("file") and not text else []
        return lines


def difference(program: Program, expected: Outcome, actual: Outcome) -> list[str]:
    """What differs, as lines of a diff; nothing if nothing does."""
    if "raises" in program.flags:
        expected, actual = replace(expected, stderr=""), replace(actual, stderr="")
    if expected == actual:
        return []
    lines = list(difflib.unified_diff(expected.lines(), actual.lines(), lineterm="", n=0))[2:]
    return [line for line in lines if not line.startswith("@@")] or ["differs beyond what is shown"]


def run(way: Way, programs: Iterable[Program], folder: Path) -> dict[str, Outcome]:
    """Run programs by one way, below `folder`; returns what each has left, by name."""
    outcomes: dict[str, Outcome] = {}
    programs = list(programs)
    for program in programs:
        if "script" in program.flags:
            outcomes |= _run_script(way, program, folder)
    for heavy in (False, True):
        some = [
            program
            for program in programs
            if "script" not in program.flags and ("torch" in program.flags) == heavy
        ]
        if some:
            outcomes |= _run_together(way, some, folder, heavy=heavy)
    return outcomes


def _run_together(way: Way, programs: list[Program], folder: Path, *, heavy: bool) -> dict[str, Outcome]:
    """Run programs as ranks of few calls."""
    base = folder / ("heavy" if heavy else "light")
    modules = base / "modules"
    modules.mkdir(parents=True)
    for program in programs:
        (modules / f"{program.module}.py").write_text(program.text, encoding="utf-8")
    order = _order(way, base) | {
        "modules": str(modules),
        "in_main": way.in_main,
        "at_a_time": AT_A_TIME_WITH_TORCH if heavy else AT_A_TIME,
        "jobs": [(program.name, program.module, str(base / program.module)) for program in programs],
    }
    if heavy:
        order["limit"] = HUNG_WITH_TORCH_S
    if heavy and way.preload:
        order["preload"] = ("torch", "numpy", *way.preload)
    path = base / "order"
    path.write_text(json.dumps(order), encoding="utf-8")
    command = [sys.executable, driver.__file__, str(path)]
    _supervise(command, way.environment, base, base / "driver")
    by_name = {program.name: program for program in programs}
    return {
        name: _outcome(base / by_name[name].module, code, pid)
        for name, code, pid in _results(order["result"])
    }


def _run_script(way: Way, program: Program, folder: Path) -> dict[str, Outcome]:
    """Run one program as the main module of a supervisor of its own."""
    base = folder / program.module
    own = base / "own"
    own.mkdir(parents=True)
    order = _order(way, base) | {"name": program.name}
    if "preload" in program.flags:
        order["preload"] = ("aside",)
    (base / "order").write_text(json.dumps(order), encoding="utf-8")
    if program.aside:
        name = "sitecustomize.py" if "site" in program.flags else "aside.py"
        (base / name).write_text(program.aside, encoding="utf-8")
    script = base / "script.py"
    script.write_text(
        f'if __name__ == "__mp_main__":\n{textwrap.indent(program.text, "    ")}\n'
        "def begin(rank):\n    work()\n"
        'if __name__ == "__main__":\n'
        "    from tests.differential.driver import run_script\n"
        "    run_script(begin)\n",
        encoding="utf-8",
    )
    environment = {**way.environment, "DIFFERENTIAL_ORDER": str(base / "order"), "TMPDIR": str(base)}
    environment["PYTHONPATH"] += f":{base}"
    _supervise([sys.executable, str(script)], environment, own, own)
    ((_, code, pid),) = _results(order["result"])
    return {program.name: _outcome(own, code, pid)}


def _order(way: Way, base: Path) -> dict[str, Any]:
    return {
        "spawnx": bool(way.launcher),
        "launcher": way.launcher,
        "method": way.method,
        "preload": way.preload,
        "result": str(base / "result"),
        "limit": HUNG_S,
    }


def _supervise(command: list[str], environment: dict[str, str], folder: Path, streams: Path) -> None:
    """Run a supervisor to its end, with its stdout and stderr in files: so that its ranks have buffers."""
    with open(f"{streams}.out", "wb") as out, open(f"{streams}.err", "wb") as err:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment,
            timeout=LIMIT_S,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(
            f"exit code {done.returncode}: {Path(f'{streams}.err').read_text(errors='replace')}"
        )


def _results(path: str) -> list[tuple[str, int | str, int]]:
    return [tuple(json.loads(line)) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def _outcome(folder: Path, code: int | str, pid: int) -> Outcome:
    """What a rank has left beside and in its folder."""
    files = {}
    for path in folder.rglob("*"):
        name = _constant(str(path.relative_to(folder)), folder, pid)
        data = path.read_bytes() if path.is_file() else b"no file"
        if path.name.endswith(_SALTED):
            data = b"salted"
        files[name] = _constant(data.decode("latin-1"), folder, pid)
    streams = []
    for suffix in (".out", ".err"):
        path = Path(f"{folder}{suffix}")
        text = path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""
        streams.append(_constant(text, folder, pid))
    return Outcome(code, *streams, files)


def _constant(text: str, folder: Path, pid: int) -> str:
    """A text without what differs from run to run."""
    text = text.replace(str(folder), "FOLDER").replace(str(folder.parent), "BASE")
    text = re.sub(rf"(?<!\d){pid}(?!\d)", "PID", text)
    for pattern, constant in _CHANGING:
        text = pattern.sub(constant, text)
    return text

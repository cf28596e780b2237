"""Shared by the tests: the implementation under test, the start methods, and waits without sleep."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from spawnx import backends
from tests.pypy import open_pidfd

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
HAS_TORCH = importlib.util.find_spec("torch") is not None
START_METHODS = multiprocessing.get_all_start_methods()
# For tests in which the start method makes no difference: the one in which ranks of the reference don't import torch.
# Not fork on macOS, whose system libraries don't survive it.
QUICK = "fork" if "fork" in START_METHODS and sys.platform != "darwin" else "spawn"
# The start methods that pickle the arguments of a rank.
PICKLING = [method for method in START_METHODS if method != "fork"]
# Of those, the one in which the reference's ranks share one import of torch (see `_long_lived_helpers`).
QUICK_PICKLING = "forkserver" if "forkserver" in START_METHODS else "spawn"
LONG_S = 60.0
# Whether ranks are held by pidfds and have a guardian. If not, as on PyPy, multiprocessing starts them.
HAS_PIDFD = backends.named("python").has_pidfd()

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc, prctl or pidfds")
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX: signals, fork or FIFOs")
needs_pidfds = pytest.mark.skipif(not HAS_PIDFD, reason="needs pidfds in `os`, which PyPy lacks")
needs_fork = pytest.mark.skipif("fork" not in START_METHODS, reason="needs the start method fork")


@dataclass(frozen=True)
class Impl:
    """One implementation of the contract: spawnx on one backend, spawnx by exec instead of clone, or the reference."""

    name: str

    @property
    def is_torch(self) -> bool:
        """Whether this is the reference."""
        return self.name == "torch"

    @property
    def package(self) -> str:
        """The name of the package that a caller imports `as mp`."""
        return "torch.multiprocessing" if self.is_torch else "spawnx"

    @property
    def mp(self) -> ModuleType:
        """The package that a caller imports `as mp`."""
        return importlib.import_module(self.package)

    @property
    def module(self) -> ModuleType:
        """The module behind the public path `….spawn`."""
        return importlib.import_module(f"{self.package}.spawn")

    @property
    def logger(self) -> str:
        """The name of the logger that warns of terminated ranks."""
        return "torch.multiprocessing.spawn" if self.is_torch else "spawnx"

    def start(
        self, fn: Any, args: Any = (), nprocs: Any = 1, start_method: str = QUICK, **options: Any
    ) -> Any:
        """Start ranks and return their context."""
        return self.mp.start_processes(fn, args, nprocs, join=False, start_method=start_method, **options)

    def differs(self, *, torch: T, spawnx: T) -> T:
        """Return the value for this implementation, where torch and spawnx differ on purpose."""
        return torch if self.is_torch else spawnx

    def every_failure(self, context: Any, **options: Any) -> list[Any]:
        """Join until `join` returns True. Return the exceptions that it raised before, in order."""
        failures: list[Any] = []
        while True:
            try:
                finish(context, **options)
            except self.module.ProcessException as failure:
                # Without its traceback, whose frames of `join` refer to the Process objects.
                failures.append(failure.with_traceback(None))
            else:
                return failures


def finish(context: Any, **options: Any) -> None:
    """Join until all ranks have ended, for `LONG_S` at most."""
    until = time.monotonic() + LONG_S
    while not context.join(timeout=1, **options):
        if time.monotonic() > until:
            raise TimeoutError(f"ranks {sorted(context.sentinels.values())} have not ended")


@functools.cache
def forkserver_imports_main() -> bool:
    """Whether multiprocessing's forkserver imports the main module, instead of each rank: it does in newer patches."""
    source = """
import multiprocessing, os
imported_in = os.getpid()

def tell():
    print(imported_in != os.getpid())

if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=tell)
    process.start()
    process.join()
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.py")
        path.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, check=True, timeout=LONG_S
        )
    return done.stdout == "True\n"


def wait_ended(processes: Iterable[Any]) -> None:
    """Wait until processes have ended, without reaping them."""
    for process in processes:
        if not wait([process.sentinel], timeout=LONG_S):
            raise TimeoutError(f"{process} has not ended")
        # A sentinel may be a pipe. A process closes it a moment before its exit status is available.
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        elif sys.platform == "linux":  # PyPy
            with contextlib.suppress(ProcessLookupError):
                pidfd = open_pidfd(process.pid)
                wait([pidfd], LONG_S)
                os.close(pidfd)


def take(queue: Any, count: int) -> list[Any]:
    """Take `count` items off a SimpleQueue, and return them sorted by their repr."""
    return sorted((queue.get() for _ in range(count)), key=repr)


@dataclass(frozen=True)
class Program:
    """A small program on the implementation under test, in a process and a folder of its own."""

    impl: Impl
    folder: Path
    # Options of the interpreter.
    options: tuple[str, ...] = ()

    def write(self, source: str, name: str = "program.py") -> Path:
        """Write the program, with the implementation imported `as mp`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import {self.impl.package} as mp\n{textwrap.dedent(source)}", encoding="utf-8")
        return path

    def command(self, source: str, *arguments: str) -> list[str]:
        """Write the program and return the command that runs it."""
        return [sys.executable, *self.options, str(self.write(source)), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The environment, in which every process can import spawnx and the tests."""
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}

    def run(self, source: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the program until it ends."""
        return self.run_command(self.command(source, *arguments), **options)

    def run_command(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command until it ends, in the program's environment."""
        given = {"env": self.environment, "timeout": LONG_S, **options}
        if "input" not in options:
            given["stdin"] = subprocess.DEVNULL
        return subprocess.run(command, capture_output=True, text=True, check=False, **given)

    def output(self, source: str, *arguments: str) -> list[str]:
        """Run a program, check that it exits with 0, and return the lines that it printed."""
        done = self.run(source, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def popen(self, source: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the program, with pipes as its standard streams."""
        return subprocess.Popen(
            self.command(source, *arguments),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

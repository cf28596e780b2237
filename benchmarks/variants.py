"""The compared ways to start ranks, each behind the same four methods, and the function of the ranks.

- `python` (and `native`, where it is installed): spawnx on that backend. No process imports torch.
- `stdlib`: `multiprocessing.Process`, likewise without torch.
- `floor`: the cost of the system alone. A bare loop of `os.fork`, or a loop in C that waits for children that spawnx
  has forked.
- `torch`: the reference. `python+torch`, `floor+torch`: the above, but the supervisor and every rank import torch, as
  with the reference. So all of these fork as much memory, or import as much.
"""

from __future__ import annotations

import importlib
import mmap
import multiprocessing
import os
import struct
import time
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from benchmarks import harness, limit
from spawnx import backends, launchers
from spawnx.guard import Guard
from spawnx.ipc import report
from spawnx.launchers import start
from spawnx.launchers.contract import Order

_STAMP = struct.Struct("d")


def names(*, torch: bool) -> list[str]:
    """Return the variants that can be measured on this machine: either those with torch, or those without."""
    if not torch:
        return ["floor", *backends.available(), "stdlib"]
    if not harness.has_torch():
        return []
    return ["floor+torch", *(f"{name}+torch" for name in backends.available()), "torch"]


# -- functions of the ranks -----------------------------------------------------------------------------------


class Gate:
    """The benchmark's gate: each rank writes a byte when it is alive, then waits for a byte to go on.

    Args:
        stamps: how many ranks write the time when they end. Only forked ranks can.
    """

    def __init__(self, stamps: int = 0) -> None:
        """Make two pipes, and shared memory for the stamps."""
        self._arrived, self.arrive = multiprocessing.Pipe(duplex=False)
        self.passed, self._let = multiprocessing.Pipe(duplex=False)
        self.stamps = mmap.mmap(-1, _STAMP.size * stamps) if stamps else None

    def wait_for(self, ranks: int) -> None:
        """Wait until so many ranks are alive."""
        while ranks:
            ranks -= len(os.read(self._arrived.fileno(), ranks))

    def let(self, ranks: int) -> None:
        """Let so many ranks on."""
        while ranks:
            ranks -= os.write(self._let.fileno(), b"." * ranks)

    def let_fail(self) -> None:
        """Let one rank on, and make it fail."""
        os.write(self._let.fileno(), b"!")

    def last_stamp(self) -> float:
        """Return the `time.monotonic()` at which the last rank's function ended."""
        assert self.stamps is not None
        stamps: list[float] = [stamp for (stamp,) in _STAMP.iter_unpack(self.stamps)]
        return max(stamps)


def pass_gate(
    rank: int,
    arrive: Connection,
    passed: Connection,
    stamps: mmap.mmap | None,
    torch: bool,  # noqa: FBT001
) -> None:
    """Run as a rank: arrive at the gate, and end when let on."""
    if torch:
        importlib.import_module("torch")
    os.write(arrive.fileno(), b".")
    if os.read(passed.fileno(), 1) == b"!":
        raise RuntimeError("let fail")
    if stamps is not None:
        _STAMP.pack_into(stamps, _STAMP.size * rank, time.monotonic())


# -- ways to start them ---------------------------------------------------------------------------------------


class Ranks(Protocol):
    """The started ranks of one variant."""

    def join_one(self) -> None:
        """Wait until one more has ended."""

    def join_all(self) -> None:
        """Wait until all have ended."""

    def check(self) -> None:
        """Raise an error unless all have ended well. Not timed."""

    def join_failed(self) -> None:
        """Wait until one has failed and all others were ended for it. Raise an error unless the failure is reported."""


class Variant:
    """One way to start ranks. It imports all that it needs when it is made, before anything is timed.

    Args:
        name: one of `names`.
        method: the start method.
        floor: the class for the name `floor`: `Forked` or `Waited`.
    """

    def __init__(self, name: str, method: str, floor: type[Forked | Waited]) -> None:
        """Import all that is used."""
        self._method = method
        implementation, self._torch = name.removesuffix("+torch"), "torch" in name
        if self._torch:
            importlib.import_module("torch.multiprocessing")
        if implementation in {"floor", "stdlib"}:
            self._start: Any = Processes if implementation == "stdlib" else floor
            limit.load()
        elif implementation == "torch":
            self._start = _of_context("torch.multiprocessing")
        else:
            os.environ["SPAWNX_BACKEND"] = implementation
            self._start = _of_context("spawnx")

    def start(self, ranks: int, gate: Gate) -> Ranks:
        """Start ranks that pass `gate`."""
        started: Ranks = self._start(
            self._method, ranks, (gate.arrive, gate.passed, gate.stamps, self._torch)
        )
        return started


class Forked:
    """Children of a bare loop of `os.fork`. They end without exit functions."""

    def __init__(self, _method: str, ranks: int, args: tuple[Any, ...]) -> None:
        """Fork the children."""
        self._pids = []
        for rank in range(ranks):
            pid = os.fork()
            if not pid:
                pass_gate(rank, *args)
                os._exit(0)
            self._pids.append(pid)

    def join_one(self) -> None:
        """See `Ranks`."""
        pid, status = os.wait()
        self._pids.remove(pid)
        assert status == 0

    def join_all(self) -> None:
        """See `Ranks`."""
        for pid in self._pids:
            assert os.waitpid(pid, 0) == (pid, 0)

    def check(self) -> None:
        """See `Ranks`. Checked when joined."""

    def join_failed(self) -> None:
        """See `Ranks`."""
        raise NotImplementedError


class Processes:
    """Children by `multiprocessing.Process`. `join_all` joins them in order; `join_one` waits as the reference does."""

    def __init__(self, method: str, ranks: int, args: tuple[Any, ...]) -> None:
        """Start the processes."""
        context: Any = multiprocessing.get_context(method)
        self._processes = {}
        for rank in range(ranks):
            process = context.Process(target=pass_gate, args=(rank, *args))
            process.start()
            self._processes[process.sentinel] = process

    def join_one(self) -> None:
        """See `Ranks`."""
        for sentinel in wait(self._processes):
            self._processes[sentinel].join()
            assert self._processes.pop(sentinel).exitcode == 0

    def join_all(self) -> None:
        """See `Ranks`."""
        for process in self._processes.values():
            process.join()

    def check(self) -> None:
        """See `Ranks`."""
        assert all(process.exitcode == 0 for process in self._processes.values())

    def join_failed(self) -> None:
        """See `Ranks`."""
        raise NotImplementedError


class Waited:
    """Children that spawnx has forked and limit.c reaps. So they are as large as ranks of spawnx, and end like them."""

    def __init__(self, method: str, ranks: int, args: tuple[Any, ...]) -> None:
        """Start the ranks."""
        backend, _ = backends.choose()
        self._guard = Guard(backend, ranks)
        order = Order(
            pass_gate,
            args,
            daemon=False,
            start_method=method,
            report_paths=[report.path_in(self._guard.folder, rank) for rank in range(ranks)],
            backend=backend,
            guard=self._guard,
        )
        self._processes: list[Any] = []
        start.launch(launchers.choose(method, backend), order, self._processes)
        self._guard.open_gate(self._processes)
        self._limit = limit.Limit([process.pid or 0 for process in self._processes])

    def join_one(self) -> None:
        """See `Ranks`."""
        self._limit.wait_any()

    def join_all(self) -> None:
        """See `Ranks`."""
        self._limit.wait_all()

    def check(self) -> None:
        """See `Ranks`. Checked when joined."""
        self._guard.close()

    def join_failed(self) -> None:
        """See `Ranks`."""
        self._limit.end_all()
        assert os.listdir(self._guard.folder)  # noqa: PTH208 - no more work than need be: it is timed
        self._guard.close()


def _of_context(package: str) -> Any:
    start_processes = importlib.import_module(package).start_processes

    def start(method: str, ranks: int, args: tuple[Any, ...]) -> OfContext:
        return OfContext(start_processes(pass_gate, args, ranks, join=False, start_method=method))

    return start


class OfContext:
    """Ranks of a `ProcessContext` of spawnx or of the reference."""

    def __init__(self, context: Any) -> None:
        """Take the context."""
        self._context = context

    def join_one(self) -> None:
        """See `Ranks`."""
        self._context.join()

    def join_all(self) -> None:
        """See `Ranks`. Waits as `spawn` does."""
        if hasattr(self._context, "join_all"):
            self._context.join_all()
        while not self._context.join():
            pass

    def check(self) -> None:
        """See `Ranks`."""
        assert all(process.exitcode == 0 for process in self._context.processes)

    def join_failed(self) -> None:
        """See `Ranks`."""
        try:
            while not self._context.join():
                pass
        except Exception as error:
            if "let fail" not in str(error):
                raise
        else:
            raise AssertionError("the failure is not told")


def raise_fd_limit() -> None:
    """Raise the soft limit on open files to the hard limit: the standard library needs two fds for each forked rank."""
    import resource  # not at the top: Windows has none

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""What every test is given: an implementation, a start method, and a check that nothing is left behind."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import importlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import ClassVar

import psutil
import pytest

from spawnx import backends
from tests.support import HAS_TORCH, START_METHODS, Impl, Program

# A test that takes longer has hung: it fails, and the suite goes on.
TEST_LIMIT_S = 150
# How long what works by itself may take to let go: a semaphore tracker, a forkserver that reaps.
SETTLE_S = 5.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written
# How multiprocessing, torch and spawnx name what they put there; other people's programs are none of our business,
# nor are their semaphores (see `_long_lived_helpers`), which glibc puts "sem." before.
SHARED_NAMES = (f"sem.mp-{os.getpid()}-*", f"mp-{os.getpid()}-*", "psm_*", "torch_*", "*spawnx*")
HAS_FAILED = pytest.StashKey[bool]()

# What is tested runs as in a plain shell: PYTHONUNBUFFERED, for one, hides lost output. Not in a fixture: what is
# started when tests are collected has this environment as well.
for variable in [name for name in os.environ if name.startswith("PYTHON")]:
    del os.environ[variable]


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    config.addinivalue_line("markers", "torch: needs torch, whatever the implementation under test")
    config.addinivalue_line(
        "markers", "fresh: is about ranks of the start method spawn, however they are made"
    )
    config.addinivalue_line("markers", "torch_spawn: asks the reference by the start method spawn, too")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for the check at the end that a test has failed."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed or hasattr(report, "wasxfail")
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for `impl` on each backend that works here and on the reference.

    With `start_method`, on every start method of this platform, and by the exec launcher. The reference by "spawn"
    imports torch once per rank: it is asked where that may make a difference. By "forkserver" it pickles, too.
    With the mark `fresh`, on all that may be behind "spawn".
    """
    names = [*backends.available(), *(["torch"] if HAS_TORCH else [])]
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "start_method" in metafunc.fixturenames and "start_method" not in given:
        dear = metafunc.definition.get_closest_marker("torch_spawn") is None and len(START_METHODS) > 1
        pairs = [
            (name, method)
            for name in names
            for method in START_METHODS
            if not (dear and (name, method) == ("torch", "spawn"))
        ]
        if "native" in names:
            pairs.append(("exec", "spawn"))
        metafunc.parametrize(("impl", "start_method"), pairs, indirect=["impl"])
    elif metafunc.definition.get_closest_marker("fresh"):
        if "native" in names:
            names.append("exec")
        if "torch" in names and metafunc.definition.get_closest_marker("torch_spawn") is None:
            names.remove("torch")
        metafunc.parametrize("impl", names, indirect=True)
    elif "impl" in metafunc.fixturenames:
        metafunc.parametrize("impl", names, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what loads torch last, so that all else runs in a process without it."""
    for item in items:
        if item.get_closest_marker("torch") and not HAS_TORCH:
            item.add_marker(pytest.mark.skip(reason="torch is not installed"))
    items.sort(key=lambda item: bool(_is_torch(item) or item.get_closest_marker("torch")))


def _is_torch(item: pytest.Item) -> bool:
    """Whether a test runs on the reference."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("impl") == "torch"


@pytest.fixture
def impl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Impl:
    """The implementation under test; ranks find the choice in their environment."""
    chosen = Impl(request.param)
    if chosen.name == "exec":
        monkeypatch.setenv("SPAWNX_BACKEND", "native")
        monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")
    elif not chosen.is_torch:
        monkeypatch.setenv("SPAWNX_BACKEND", chosen.name)
    return chosen


@pytest.fixture
def program(impl: Impl, tmp_path: Path) -> Program:
    """Run small programs on the implementation under test."""
    return Program(impl, tmp_path)


@pytest.fixture
def without_faulthandler() -> Iterator[None]:
    """Let forked ranks find faulthandler as in a program: pytest has it enabled in this process."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__)


@pytest.fixture
def on_one_processor() -> Iterator[None]:
    """Let all threads of this process share a processor.

    There a thread that waits often preempts the one that ends, between its last wake-up and its removal.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a module of a user's, which ranks find; returns its name."""

    def make(source: str) -> str:
        name = f"of_a_user_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


@dataclass(frozen=True)
class Belongings:
    """What the process under test owns in the system, as sets of names."""

    processes: frozenset[psutil.Process]
    fds: frozenset[str]
    files: frozenset[str]
    NOTHING: ClassVar[Belongings]
    # Names of files in the test's folder that aren't counted.
    TOLERATED: ClassVar[str] = ""

    @classmethod
    def now(cls, folder: Path) -> Belongings:
        """Look at the processes, at our fds, at `folder` and at shared memory."""
        return cls(
            processes=frozenset(_processes(folder)),
            fds=frozenset(_open_fds()),
            files=frozenset(_files(folder)),
        )

    def beyond(self, before: Belongings) -> Belongings:
        """What is here now and was not before."""
        return Belongings(
            processes=self.processes - before.processes,
            fds=self.fds - before.fds,
            files=self.files - before.files,
        )

    def still(self, later: Belongings) -> Belongings:
        """What is here now and is there later, too."""
        return Belongings(
            processes=self.processes & later.processes,
            fds=self.fds & later.fds,
            files=self.files & later.files,
        )

    def names(self) -> list[str]:
        """One line for each thing; for a process with what it runs."""
        return sorted([*map(_describe, self.processes), *self.fds, *self.files])


Belongings.NOTHING = Belongings(frozenset(), frozenset(), frozenset())


def _processes(folder: Path) -> Iterator[psutil.Process]:
    """Our descendants, zombies and what the forkserver made included, and orphans of programs run by this test.

    An orphan is no descendant any more; it is known by the TMPDIR that it was started with.
    """
    ours = set(psutil.Process().children(recursive=True))
    yield from ours
    mark = str(folder)
    for process in psutil.process_iter():
        if process not in ours and process.pid != os.getpid():
            # It ended while we looked, is a zombie, or belongs to another user.
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("TMPDIR") == mark:
                    yield process


def _describe(process: psutil.Process) -> str:
    """What a process is and runs, as far as that can still be found out."""
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}"


def _open_fds() -> Iterator[str]:
    """Each open fd, on Linux with what it refers to; nothing where the system can't tell."""
    folder = next((place for place in ("/proc/self/fd", "/dev/fd") if Path(place).is_dir()), None)
    for entry in os.listdir(folder) if folder else ():
        try:
            yield f"fd {entry} -> {os.readlink(f'{folder}/{entry}')}"
        except FileNotFoundError:  # the fd by which this folder was listed
            continue
        except OSError:  # macOS: no link, so the number has to do
            yield f"fd {entry}"


def _files(folder: Path) -> Iterator[str]:
    """Each file below `folder`, by its path from there, and each one in shared memory."""
    for path in folder.rglob("*"):
        if not path.match(Belongings.TOLERATED or "/"):
            yield str(path.relative_to(folder))
    for pattern in SHARED_NAMES:
        yield from map(str, SHARED_MEMORY.glob(pattern))


def _held_by_strangers(ours: frozenset[psutil.Process]) -> frozenset[str]:
    """The files in shared memory that a process which isn't ours has mapped, by their paths."""
    own = {os.getpid(), *(process.pid for process in ours)}
    inodes = set()
    for pid in set(psutil.pids()) - own:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                if str(SHARED_MEMORY) in line:
                    # By inode: libc maps a semaphore under another name, by which it is there before its own.
                    inodes.add(int(line.split()[4]))
    held = set()
    for path in SHARED_MEMORY.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino in inodes:
                held.add(str(path))
    return frozenset(held)


@pytest.fixture(scope="session", autouse=True)
def _long_lived_helpers() -> Iterator[None]:
    """Start what multiprocessing keeps for the life of the process, so that it isn't counted as left behind.

    The forkserver imports torch once, instead of every rank of the reference by itself. Semaphores get a name by
    which they are known as ours.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.current_process()._config["semprefix"] = f"/mp-{os.getpid()}"  # type: ignore[attr-defined]
    if os.name == "posix":
        if HAS_TORCH:
            multiprocessing.set_forkserver_preload(["torch.multiprocessing"])
        multiprocessing.resource_tracker.ensure_running()
        multiprocessing.forkserver.ensure_running()
        multiprocessing.set_forkserver_preload(
            ["__main__"]
        )  # as it was: else each template would import torch, too
    arena = multiprocessing.RawValue("i")
    yield
    del arena


@functools.cache
def _load_torch() -> None:
    """Import torch before anything is counted: it opens what it keeps."""
    importlib.import_module("torch.multiprocessing")
    # Or each collection walks its 200,000 objects.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """After every test, unasked: no process, no fd and no file is left."""
    if _is_torch(request.node):
        _load_torch()
        # A declared difference: the reference never deletes its error files.
        monkeypatch.setattr(Belongings, "TOLERATED", "pytorch-errorfile-*")
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = Belongings.now(folder)
    with _time_limit():
        yield
    _stop_kept_template()
    failed = request.node.stash[HAS_FAILED]
    left = _left_after_settling(folder, before, 0 if failed else SETTLE_S)
    names = left.names()
    _end(left.processes)

    if not failed:  # else it is noise: the traceback alone holds much
        assert [] == names


def _stop_kept_template() -> None:
    """End what lives from call to call."""
    forkserver = sys.modules.get("spawnx.launchers.forkserver")
    if forkserver is not None:
        forkserver.stop()


def _left_after_settling(folder: Path, before: Belongings, seconds: float) -> Belongings:
    """Give objects in reference cycles, and helpers that work by themselves, a moment to let go."""
    deadline = time.monotonic() + seconds
    left = Belongings.now(folder).beyond(before)
    while left != Belongings.NOTHING and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        # Only what has been there all the time: other people's shared memory comes and goes.
        left = left.still(Belongings.now(folder))
        if any(name.startswith(str(SHARED_MEMORY)) for name in left.files):
            left = replace(left, files=left.files - _held_by_strangers(left.processes))
    return left


def _end(processes: frozenset[psutil.Process]) -> None:
    """Kill and reap, so that neither the next test nor the interpreter's exit meets what this test left."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for child in multiprocessing.active_children():  # before psutil, which would take the exit statuses
        child.join(SETTLE_S)
    psutil.wait_procs(processes, timeout=SETTLE_S)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise in a test that has hung, where there are alarms; everywhere, pytest dumps its stacks before."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def give_up(_signum: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test has hung for {TEST_LIMIT_S} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

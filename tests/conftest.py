"""Fixtures of all tests: an implementation, a start method, and a check that no process, fd or file leaks."""

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
# Seconds that helpers may take to release what they hold: the semaphore tracker, a forkserver that reaps.
SETTLE_S = 5.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written
# The names of files of multiprocessing, torch and spawnx in shared memory. Files of other programs don't count, nor do
# their semaphores: ours have this process's pid in the name (see `_long_lived_helpers`), to which glibc adds "sem.".
SHARED_NAMES = (f"sem.mp-{os.getpid()}-*", f"mp-{os.getpid()}-*", "psm_*", "torch_*", "*spawnx*")
HAS_FAILED = pytest.StashKey[bool]()

# Tests run as in a plain shell: PYTHONUNBUFFERED, for example, hides lost output. Not in a fixture: processes that are
# started while tests are collected need this environment, too.
for variable in [name for name in os.environ if name.startswith("PYTHON")]:
    del os.environ[variable]


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "torch: needs torch, whatever the implementation under test")
    config.addinivalue_line(
        "markers", "fresh: is about ranks of the start method spawn, however they are made"
    )
    config.addinivalue_line("markers", "torch_spawn: asks the reference by the start method spawn, too")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test has failed, for the check at its end."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed or hasattr(report, "wasxfail")
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that uses `impl` on each available backend and on the reference.

    With `start_method`, the test runs by every start method of the platform, and by the launcher exec. By "spawn" each
    rank of the reference imports torch. So the reference runs by "spawn" only with the mark `torch_spawn`, if there are
    other start methods; "forkserver" pickles, too. With the mark `fresh`, the test also runs by the launcher exec.
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
    """Run tests that load torch last, so that all others run in a process without it."""
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
    """The implementation under test. Ranks read the choice from their environment."""
    chosen = Impl(request.param)
    if chosen.name == "exec":
        monkeypatch.setenv("SPAWNX_BACKEND", "native")
        monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")
    elif not chosen.is_torch:
        monkeypatch.setenv("SPAWNX_BACKEND", chosen.name)
    return chosen


@pytest.fixture
def program(impl: Impl, tmp_path: Path) -> Program:
    """Runs small programs on the implementation under test."""
    return Program(impl, tmp_path)


@pytest.fixture
def without_faulthandler() -> Iterator[None]:
    """Disable faulthandler, which pytest has enabled in this process, so that forked ranks start as in a program."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__)


@pytest.fixture
def on_one_processor() -> Iterator[None]:
    """Restrict all threads of this process to one processor.

    A waiting thread then often preempts a thread that ends, between its last wake-up and its removal.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a user's module that ranks can import, and returns its name."""

    def make(source: str) -> str:
        name = f"of_a_user_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


@dataclass(frozen=True)
class Belongings:
    """The processes, fds and files that the process under test owns, as sets."""

    processes: frozenset[psutil.Process]
    fds: frozenset[str]
    files: frozenset[str]
    NOTHING: ClassVar[Belongings]
    # Names of files in the test's folder that aren't counted.
    TOLERATED: ClassVar[str] = ""

    @classmethod
    def now(cls, folder: Path) -> Belongings:
        """Look at the processes, the fds of this process, `folder` and shared memory."""
        return cls(
            processes=frozenset(_processes(folder)),
            fds=frozenset(_open_fds()),
            files=frozenset(_files(folder)),
        )

    def beyond(self, before: Belongings) -> Belongings:
        """Return the items of this set that were not in `before`."""
        return Belongings(
            processes=self.processes - before.processes,
            fds=self.fds - before.fds,
            files=self.files - before.files,
        )

    def still(self, later: Belongings) -> Belongings:
        """Return the items of this set that are in `later`, too."""
        return Belongings(
            processes=self.processes & later.processes,
            fds=self.fds & later.fds,
            files=self.files & later.files,
        )

    def names(self) -> list[str]:
        """Return one line for each item; for a process, with its command line."""
        return sorted([*map(_describe, self.processes), *self.fds, *self.files])


Belongings.NOTHING = Belongings(frozenset(), frozenset(), frozenset())


def _processes(folder: Path) -> Iterator[psutil.Process]:
    """Yield our descendants, including zombies and children of the forkserver, and orphans of programs of this test.

    An orphan is no longer a descendant. It is recognized by the TMPDIR in its environment.
    """
    ours = set(psutil.Process().children(recursive=True))
    yield from ours
    mark = str(folder)
    for process in psutil.process_iter():
        if process not in ours and process.pid != os.getpid():
            # Suppressed: it has ended meanwhile, is a zombie, or belongs to another user.
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("TMPDIR") == mark:
                    yield process


def _describe(process: psutil.Process) -> str:
    """Describe a process by pid, status and command line; by pid alone if it has ended."""
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}"


def _open_fds() -> Iterator[str]:
    """Yield each open fd, on Linux with its target; nothing on systems that don't list fds."""
    folder = next((place for place in ("/proc/self/fd", "/dev/fd") if Path(place).is_dir()), None)
    for entry in os.listdir(folder) if folder else ():
        try:
            yield f"fd {entry} -> {os.readlink(f'{folder}/{entry}')}"
        except FileNotFoundError:  # the fd by which this folder was listed
            continue
        except OSError:  # macOS: no link, so only the number
            yield f"fd {entry}"


def _files(folder: Path) -> Iterator[str]:
    """Yield each file below `folder`, by its relative path, and each of `SHARED_NAMES` in shared memory."""
    for path in folder.rglob("*"):
        if not path.match(Belongings.TOLERATED or "/"):
            yield str(path.relative_to(folder))
    for pattern in SHARED_NAMES:
        yield from map(str, SHARED_MEMORY.glob(pattern))


def _held_by_strangers(ours: frozenset[psutil.Process]) -> frozenset[str]:
    """Return the paths of files in shared memory that foreign processes have mapped."""
    own = {os.getpid(), *(process.pid for process in ours)}
    inodes = set()
    for pid in set(psutil.pids()) - own:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                if str(SHARED_MEMORY) in line:
                    # By inode: libc creates and maps a semaphore under a temporary name, then links it to its own.
                    inodes.add(int(line.split()[4]))
    held = set()
    for path in SHARED_MEMORY.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino in inodes:
                held.add(str(path))
    return frozenset(held)


@pytest.fixture(scope="session", autouse=True)
def _long_lived_helpers() -> Iterator[None]:
    """Start the helpers that multiprocessing keeps for the life of the process, so that they don't count as leaks.

    The forkserver imports torch once, instead of each rank of the reference. Semaphores get a name with our pid, so
    that they can be recognized.
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
        )  # the default: otherwise each template would import torch, too
    arena = multiprocessing.RawValue("i")
    yield
    del arena


@functools.cache
def _load_torch() -> None:
    """Import torch before anything is counted: it opens files that it keeps open."""
    importlib.import_module("torch.multiprocessing")
    # Without the freeze, each collection walks torch's 200,000 objects.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Check after every test that no process, no fd and no file is left."""
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
    _stop_zygote()
    failed = request.node.stash[HAS_FAILED]
    left = _left_after_settling(folder, before, 0 if failed else SETTLE_S)
    names = left.names()
    _end(left.processes)

    if not failed:  # otherwise it is noise: the traceback alone keeps many objects alive
        assert [] == names


def _stop_zygote() -> None:
    """End the zygote, which lives from call to call."""
    forkserver = sys.modules.get("spawnx.launchers.forkserver")
    if forkserver is not None:
        forkserver.stop()


def _left_after_settling(folder: Path, before: Belongings, seconds: float) -> Belongings:
    """Return what is left. Collects reference cycles, and gives helpers up to `seconds` to release resources."""
    deadline = time.monotonic() + seconds
    left = Belongings.now(folder).beyond(before)
    while left != Belongings.NOTHING and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        # Only items that were present at every look: shared memory of other programs comes and goes.
        left = left.still(Belongings.now(folder))
        if any(name.startswith(str(SHARED_MEMORY)) for name in left.files):
            left = replace(left, files=left.files - _held_by_strangers(left.processes))
    return left


def _end(processes: frozenset[psutil.Process]) -> None:
    """Kill and reap leaked processes, so that they affect neither the next test nor the interpreter's exit."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for child in multiprocessing.active_children():  # before psutil, which would reap them
        child.join(SETTLE_S)
    psutil.wait_procs(processes, timeout=SETTLE_S)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise in a test that has hung, on systems with setitimer(2). pytest dumps the stacks before, on all systems."""
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

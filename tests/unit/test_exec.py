"""The exec launcher, and the thread that launches for it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import spawnx
from spawnx import backends, launchers
from spawnx.backends.contract import Backend
from spawnx.guard import Guard
from spawnx.launchers import exec as exec_
from spawnx.launchers import start as starting
from spawnx.launchers import threads
from tests import ranks
from tests.support import LONG_S, ROOT, finish, linux_only, needs_pidfds
from tests.unit.test_fork import failing_after

pytestmark = linux_only


@pytest.fixture(params=backends.available())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each backend, by which the ranks of the test are launched."""
    monkeypatch.setenv("SPAWNX_BACKEND", request.param)
    monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")
    return backends.named(request.param)


@needs_pidfds
@pytest.mark.parametrize(
    ("method", "expected"), [("spawn", "exec"), ("fork", "fork"), ("forkserver", "stdlib")]
)
def test_launcher_follows_the_start_method(backend: Backend, method: str, expected: str) -> None:
    """The context says which one served."""
    context = spawnx.start_processes(ranks.nothing, (), 1, join=False, start_method=method)
    assert context is not None
    finish(context)

    assert expected == context.launcher


@pytest.mark.parametrize("reason", ["frozen", "debugger", "setting", "no pidfds"])
def test_spawn_is_left_to_multiprocessing_where_it_must_be(
    backend: Backend, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen programs, debuggers that patch multiprocessing, a user's wish, old kernels."""
    if reason == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif reason == "debugger":
        monkeypatch.setitem(sys.modules, "pydevd", sys)
    elif reason == "setting":
        monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")
    else:
        monkeypatch.setattr(type(backend), "has_pidfd", lambda _: False)

    assert launchers.choose("spawn", backend).name == "stdlib"


@needs_pidfds
def test_launch_that_fails_leaves_no_rank_and_names_the_limit(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All or nothing."""
    failure = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    failing = failing_after(3, backend.launch, failure)  # the guardian, and two ranks
    monkeypatch.setattr(type(backend), "launch", lambda _self, program: failing(program))
    with pytest.raises(OSError, match=r"rank 2 of 4 could not be started: .*RLIMIT_NPROC") as raised:
        spawnx.spawn(ranks.stay_as_rank, (), 4)

    assert errno.EAGAIN == raised.value.errno


@needs_pidfds
def test_interpreter_that_cannot_be_executed_is_named(backend: Backend) -> None:
    """Instead of a bare "No such file or directory"."""
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/nowhere/python")
    try:
        with pytest.raises(OSError, match=r"rank 0 of 2 could not be started: .*'/nowhere/python'"):
            spawnx.spawn(ranks.nothing, (), 2)
    finally:
        multiprocessing.set_executable(before)


@needs_pidfds
def test_interrupt_while_ranks_are_launched_leaves_none(backend: Backend) -> None:
    """The launching thread finishes what it does; then the interrupt is raised, and what was launched is ended."""
    source = """
        import os, signal, subprocess
        import spawnx
        from tests import ranks
        from spawnx.launchers import popen

        real_adopt, adopted = popen.Holder.adopt, []

        def adopt(self, rank, pid, pidfd):
            real_adopt(self, rank, pid, pidfd)
            adopted.append(pid)
            if len(adopted) == 5:
                os.kill(os.getpid(), signal.SIGINT)

        popen.Holder.adopt = adopt
        try:
            spawnx.spawn(ranks.stay_as_rank, (), 200)
        except KeyboardInterrupt:
            print("interrupted")
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = file.read().split()
        commands = [open(f"/proc/{pid}/cmdline").read() for pid in children]
        print([command for command in commands if "resource_tracker" not in command])
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert ("interrupted\n[]\n", "") == (done.stdout, done.stderr)


def launching_threads() -> list[threading.Thread]:
    """Those that live."""
    return [one for one in threading.enumerate() if one.name == "spawnx-launch"]


@needs_pidfds
def test_launching_thread_lives_as_long_as_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ties their death signals to it. It ends with the last of them, though nobody joins."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")
    gate = ranks.Gate(spawnx.get_context("spawn"))
    context = spawnx.spawn(ranks.wait_at, (gate,), 2, join=False)
    assert context is not None
    gate.wait_for(2)
    (thread_of_call,) = launching_threads()
    context.processes[1].kill()
    thread_of_call.join(0.1)
    lived = thread_of_call.is_alive()
    context.processes[0].kill()
    thread_of_call.join(LONG_S)

    assert [True, False] == [lived, thread_of_call.is_alive()]
    with pytest.raises(spawnx.ProcessExitedException):
        finish(context)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_joined_call_leaves_no_thread(method: str) -> None:
    """Whoever counts threads after it finds none of ours."""
    for _ in range(5):
        spawnx.start_processes(ranks.nothing, (), 2, start_method=method)
        assert [] == launching_threads()


def wait_no_launching_threads() -> None:
    """Wait until those of earlier tests have ended."""
    for one in launching_threads():
        one.join(LONG_S)


@needs_pidfds
def test_callers_at_once_do_not_wait_for_each_other() -> None:
    """Each has a thread of its own; a forked child, too."""
    all_there = threading.Barrier(3)
    callers = [
        threading.Thread(target=threads.launch_in_thread, args=(lambda _: all_there.wait(LONG_S) and None,))
        for _ in range(3)
    ]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    pid = os.fork()
    if pid == 0:
        done: list[threads.Job] = []
        threads.launch_in_thread(done.append)
        os._exit(len(done))
    _, status = os.waitpid(pid, 0)

    assert 1 == os.waitstatus_to_exitcode(status)


@needs_pidfds
def test_call_that_gets_no_thread_works_in_the_calling_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many threads, or the interpreter ends."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == "spawnx-launch":
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    context: Any = spawnx.spawn(ranks.nothing, (), 2, join=False)
    finish(context)

    assert [0, 0] == [process.exitcode for process in context.processes]


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """What interrupts the main thread."""

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handler)
    yield partial(os.kill, os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_second_interrupt_waits_for_the_end_of_the_launch_as_well(interrupt: Callable[[], None]) -> None:
    """It may come while the launching thread is told of the first: what that makes would be lost."""
    cancels, ended, let_go = [], [], threading.Event()

    def cancel() -> None:
        cancels.append(True)
        if len(cancels) == 1:
            interrupt()
        else:
            let_go.set()

    def work(job: threads.Job) -> None:
        job.on_cancel = cancel
        interrupt()
        ended.append(let_go.wait(LONG_S))

    try:
        with pytest.raises(KeyboardInterrupt):
            threads.launch_in_thread(work)
        was_waited_for = list(ended)
    finally:
        let_go.set()
        wait_no_launching_threads()

    assert ([True], 2) == (was_waited_for, len(cancels))


def test_second_interrupt_while_ranks_are_ended_leaves_none(
    interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has come when all had been started."""
    left: list[Any] = []
    real = starting.abandon

    def abandon(started: list[Any]) -> None:
        left.extend(started)
        interrupt()
        real(started)

    def open_gate(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(starting, "abandon", abandon)
    monkeypatch.setattr(Guard, "open_gate", open_gate)
    with pytest.raises(KeyboardInterrupt):
        spawnx.spawn(ranks.stay_as_rank, (), 2)

    assert [True] * 2 == [one._closed for one in left]


@needs_pidfds
def test_error_in_the_launching_thread_is_raised_in_the_callers() -> None:
    """And the thread goes on."""

    def fail(_: threads.Job) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    for _ in range(2):
        with pytest.raises(OSError, match="no memory"):
            threads.launch_in_thread(fail)


def test_affinity_is_that_of_the_callers_thread(backend: Backend) -> None:
    """As it is when the ranks are asked for."""
    cpus = os.sched_getaffinity(0)
    one = {min(cpus)}
    queue = spawnx.get_context("spawn").SimpleQueue()
    spawnx.spawn(ranks.put_affinity, (queue,), 1)
    os.sched_setaffinity(0, one)
    try:
        spawnx.spawn(ranks.put_affinity, (queue,), 1)
    finally:
        os.sched_setaffinity(0, cpus)
    seen = [queue.get(), queue.get()]
    queue.close()

    assert [cpus, one] == seen


@pytest.mark.parametrize("launcher", ["auto", "stdlib"])
def test_spawnx_is_found_in_a_rank_however_the_supervisor_found_it(launcher: str, tmp_path: Path) -> None:
    """A path that only the program itself has added is there before the main module is imported."""
    program = tmp_path / "program.py"
    places = [str(ROOT), sysconfig.get_path("purelib")]
    program.write_text(
        f"import sys\nsys.path += {places!r}\nimport spawnx as mp\n"
        "def work(rank, queue):\n    queue.put(rank)\n"
        "if __name__ == '__main__':\n    queue = mp.get_context('spawn').SimpleQueue()\n"
        "    context = mp.spawn(work, (queue,), 2, join=False)\n    while not context.join(): pass\n"
        "    print(queue.get() + queue.get())\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "SPAWNX_LAUNCHER": launcher}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-S", str(program)],
        env=environment, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ("1\n", "") == (done.stdout, done.stderr)


def test_large_arguments_are_inherited_by_many_ranks(backend: Backend) -> None:
    """More than a pipe holds, made once."""
    data = b"x" * 200_000
    context: Any = spawnx.spawn(ranks.check_length, (data, len(data)), 30, join=False)
    finish(context)

    assert [0] * 30 == [process.exitcode for process in context.processes]


def test_launched_rank_has_its_death_signal(backend: Backend) -> None:
    """Whether the launch arms it, or the rank itself."""
    queue = spawnx.get_context("spawn").SimpleQueue()
    spawnx.spawn(ranks.put_death_signal, (queue,), 1)
    signum = queue.get()
    queue.close()

    assert signal.SIGINT == signum


@needs_pidfds
def test_rank_of_a_privileged_interpreter_arms_itself(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its exec clears what the launch has armed. CPython on musl can't tell: there, all arm themselves."""
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    privileged = tmp_path / "privileged"
    privileged.write_bytes(b"")
    privileged.chmod(0o4755)
    found = []
    for path in (plain, privileged):
        monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda path=path: os.fsencode(path))
        found.append(exec_._armed_at_exec(backend))

    assert [backend.arms_at_launch and hasattr(os, "getxattr"), False] == found


@needs_pidfds
def test_rank_of_a_system_that_tells_no_capabilities_arms_itself(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython has no `getxattr` on musl."""
    monkeypatch.delattr(os, "getxattr", raising=False)

    assert not exec_._armed_at_exec(backend)

"""What stands between a clone and harm: each of these tests fails without the guard that it is about."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import psutil
import pytest

from spawnx import backends
from tests import interpreter
from tests.support import LONG_S, ROOT
from tests.unit.test_clone import SHOW, run_with_template_that, told

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root")
x86_64_only = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="has system calls by their numbers there"
)


@pytest.fixture(autouse=True)
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone")


def output(source: str, *command: str) -> str:
    """What a program prints that must end well, and quietly."""
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=LONG_S, check=False, cwd=ROOT,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def served(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """By which launcher, and with which exit codes; how many children were left."""
    lines = [json.loads(line) for line in done.stdout.splitlines()[-2:]]
    assert "" == done.stderr
    return lines


# Whether to clone


@x86_64_only
def test_libc_whose_thread_can_not_be_renewed_is_not_cloned(tmp_path: Path) -> None:
    """The address that the kernel clears doesn't hold the tid, as with musl: locks would know no owner."""
    code = """
        import ctypes
        elsewhere = ctypes.c_int(0)
        ctypes.CDLL(None).syscall(218, ctypes.byref(elsewhere))  # set_tid_address
        sys.elsewhere = elsewhere  # the kernel writes there when this process ends
    """
    done = run_with_template_that(code, SHOW, tmp_path)

    assert [["exec", [0] * 4], 0] == served(done)
    assert f"OSError: [Errno {errno.ENOTSUP}]" in done.stdout


@needs_root
@pytest.mark.parametrize("backend", ["native", "python"])
def test_children_in_a_pid_namespace_of_their_own_are_not_cloned(backend: str) -> None:
    """Their parent is nobody there, and the pids that they see are other processes' here: so by exec."""
    source = """
        import ctypes, logging, sys
        import spawnx
        from multiprocessing import resource_tracker
        from tests import ranks

        assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID: for the children, not for this process
        resource_tracker.ensure_running()  # the first process there, with which all others end
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """
    told = "ranks are started by exec, not cloned: ProcessLookupError: the supervisor is seen as 0, not as "
    printed = output(source, "env", f"SPAWNX_BACKEND={backend}", "SPAWNX_LAUNCHER=auto")

    assert printed.startswith(told if backend == "native" else "exec")
    assert printed.endswith("exec [0, 0, 0]\n")


@needs_root
def test_supervisor_that_is_the_first_of_its_pid_namespace_has_clones() -> None:
    """As in a container: its pid is 1, which is nobody's mark of an orphan."""
    source = """
        import os, spawnx
        from tests import ranks

        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(os.getpid(), context.launcher, [process.exitcode for process in context.processes])
    """

    assert "1 clone [0, 0, 0]\n" == output(source, "unshare", "--pid", "--mount-proc", "--fork")


@x86_64_only
def test_sandbox_that_forbids_siblings_gets_its_ranks_by_exec() -> None:
    """Both system calls refuse: nothing was cloned, and nothing is tried in the next call."""
    source = """
        import errno, logging, sys
        import spawnx
        from tests import ranks, sandbox

        sandbox.deny("clone3", errno.EPERM)
        sandbox.deny("clone", errno.EPERM, only_with=0x8000)  # CLONE_PARENT
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        for _ in range(2):
            context = spawnx.spawn(ranks.nothing, (), 2, join=False)
            while not context.join():
                pass
            print(context.launcher, [process.exitcode for process in context.processes])
    """
    told = "ranks are started by exec, not cloned: PermissionError: [Errno 1] Operation not permitted\n"

    assert f"{told}exec [0, 0]\n" * 2 == output(source)


# Before the clone


def test_signals_do_not_disturb_a_template(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole group: it would leave the clones half-made. It reaches each of them, once all exist."""
    code = """
        import signal
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM):
            os.kill(os.getpid(), signum)
    """
    source = """
        import spawnx
        from tests import ranks

        if __name__ == "__main__":
            context = spawnx.spawn(ranks.do, (ranks.stay,), 4, join=False)
            for process in context.processes:
                process.join()
            print(context.launcher, *(process.exitcode for process in context.processes))
    """

    assert "clone -1 -1 -1 -1\n" == run_with_template_that(code, source, tmp_path).stdout


def test_what_a_preload_prints_is_printed_once(
    module: Callable[[str], str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's buffers are flushed before the clone, or each rank would do it."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    name = module("print('printed', end=' ')\nVALUE = 7")

    assert [(True, 7)] * 3 == told(interpreter.put_value, 3, name, preload=[name])
    assert "printed " == capfd.readouterr().out


def test_preload_that_makes_a_semaphore_uses_the_supervisors_tracker(
    module: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A tracker of its own would be a process, and so a reason to give the preload up."""
    name = module("import multiprocessing\nVALUE = multiprocessing.get_context('spawn').Lock().acquire()")

    assert [(True, True)] * 2 == told(interpreter.put_value, 2, name, preload=[name])
    assert [] == caplog.records


def test_what_the_template_has_is_frozen_in_clones() -> None:
    """A collection in a rank would copy every page that has an object of the template's."""
    assert [True, True] == told(interpreter.put_whether_frozen, 2)


def test_audit_hooks_are_told_of_the_clones(tmp_path: Path) -> None:
    """As of a fork, once."""
    seen = tmp_path / "seen"
    code = f"""
        def hook(event, arguments):
            if event == "os.fork":
                os.close(os.open({str(seen)!r}, os.O_CREAT | os.O_EXCL))
        sys.addaudithook(hook)
        os.environ["SPAWNX_PRELOAD"] = "off"
    """
    done = run_with_template_that(code, SHOW.replace(", join=False", ", join=False, preload=()"), tmp_path)

    assert [["clone", [0] * 4], 0] == served(done)
    assert seen.exists()


# In the clone, before it is Python's

WRAPPED = """
    import ctypes
    import spawnx.backends.native as native
    real = native.clone_siblings

    def wrapped(memory, pids_at, count, parent, signum):
        {then}

    native.clone_siblings = wrapped
"""


def test_clone_has_sigkill_as_its_death_signal_at_once(tmp_path: Path) -> None:
    """Not only when it boots: a supervisor that is killed while clones are made leaves none."""
    then = f"""
        position = real(memory, pids_at, count, parent, signum)
        if position:
            found = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0)  # PR_GET_PDEATHSIG
            with open({str(tmp_path / "signal")!r} + str(position), "w") as file:
                file.write(str(found.value))
        return position
    """
    done = run_with_template_that(WRAPPED.format(then=then.strip()), SHOW, tmp_path)

    assert [["clone", [0] * 4], 0] == served(done)
    assert [str(int(signal.SIGKILL))] * 4 == [
        (tmp_path / f"signal{position}").read_text(encoding="utf-8") for position in range(1, 5)
    ]


def test_clone_whose_parent_is_not_the_supervisor_leaves(tmp_path: Path) -> None:
    """It has been orphaned before it was armed: here, as it is told of another supervisor."""
    then = "return real(memory, pids_at, count, 1, signum)"
    done = run_with_template_that(WRAPPED.format(then=then), SHOW, tmp_path)

    assert [["ProcessExitedException", "process 0 terminated with exit code 1"], 0] == served(done)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which has a system call fail")
def test_no_clone_is_made_after_one_that_failed(tmp_path: Path) -> None:
    """A later one might succeed, and be a rank behind a gap, of which nobody knows."""
    script = tmp_path / "python"
    strace = f"strace -D -o {tmp_path / 'calls'} -e trace=clone3 -e inject=clone3:error=EAGAIN:when=3"
    lines = [
        "#!/bin/sh",
        f'case "$*" in *remote.template*) exec {strace} "{sys.executable}" "$@";; esac',
        f'exec "{sys.executable}" "$@"',
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    script.chmod(0o755)
    source = f"""
        import multiprocessing
        import spawnx
        from tests import ranks

        multiprocessing.set_executable({str(script)!r})
        try:
            spawnx.spawn(ranks.stay_as_rank, (), 6, preload=())
        except OSError as error:
            print(str(error).partition(";")[0])
    """
    told = "[Errno 11] rank 2 of 6 could not be started: Resource temporarily unavailable\n"

    assert told == output(source)
    assert 3 == (tmp_path / "calls").read_text(encoding="utf-8").count("clone3(")


def test_robust_mutex_of_a_clone_that_died_is_given_to_the_next() -> None:
    """The kernel knows the list of those that it holds: else the next one would wait for ever."""
    memory = SharedMemory(create=True, size=256)
    libc = ctypes.CDLL(None)
    attributes, mutex = ctypes.create_string_buffer(64), ctypes.c_char.from_buffer(memory.buf)
    try:
        libc.pthread_mutexattr_init(attributes)
        libc.pthread_mutexattr_setpshared(attributes, 1)
        libc.pthread_mutexattr_setrobust(attributes, 1)
        assert libc.pthread_mutex_init(ctypes.byref(mutex), attributes) == 0
        locked = told(interpreter.lock_and_die, 1, memory)
        result = libc.pthread_mutex_trylock(ctypes.byref(mutex))
    finally:
        del mutex
        memory.close()
        memory.unlink()

    assert ([0], errno.EOWNERDEAD) == (locked, result)


# After it


@needs_root
def test_rank_that_has_given_up_its_rights_ends_with_its_supervisor() -> None:
    """Its death signal is gone with them (prctl(2)); the guardian, which has its own, ends it."""
    source = """
        import sys
        import spawnx
        from tests import interpreter, ranks

        if __name__ == "__main__":
            context = spawnx.get_context("spawn")
            gate, queue = ranks.Gate(context), context.SimpleQueue()
            started = spawnx.spawn(interpreter.give_up_rights_and_stay, (gate, queue), 2, join=False)
            gate.wait_for(2)
            print(started.launcher, queue.get(), queue.get(), *started.pids(), flush=True)
            started.join()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "SPAWNX_ORPHAN_GRACE": "1"},
    ) as supervisor:  # fmt: skip
        assert supervisor.stdout is not None
        launcher, *signals, first, second = supervisor.stdout.readline().split()
        orphans = [psutil.Process(int(pid)) for pid in (first, second)]
        uids = [orphan.uids().real for orphan in orphans]
        supervisor.kill()
    _, left = psutil.wait_procs(orphans, timeout=LONG_S)

    assert ("clone", ["0", "0"], [65534, 65534]) == (launcher, signals, uids)
    assert [] == left

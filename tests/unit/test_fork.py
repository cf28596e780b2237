"""The fork launcher: what may come between a fork and its becoming a rank, forced."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import spawnx
from spawnx import backends
from spawnx.backends.python import PythonBackend
from tests import ranks
from tests.support import ROOT, linux_only, needs_pidfds

pytestmark = linux_only


def failing_after(count: int, call: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """The call, which raises `error` from the count-th time on."""
    left = [count]

    def wrapped(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return call(*args)

    return wrapped


def start(nprocs: int, fn: Callable[..., None] = ranks.nothing) -> spawnx.ProcessContext:
    """Forked ranks, not joined."""
    context = spawnx.start_processes(fn, (), nprocs, join=False, start_method="fork")
    assert context is not None
    assert context.launcher == "fork"
    return context


@needs_pidfds
@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EAGAIN, "RLIMIT_NPROC"), (errno.ENOMEM, "too little memory")],
)
def test_fork_that_fails_names_rank_errno_and_limit(
    number: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error says which rank, why, and what to raise; those before it are gone."""
    monkeypatch.setattr(os, "fork", failing_after(3, os.fork, OSError(number, os.strerror(number))))
    with pytest.raises(OSError, match="rank 3 of 5 could not be started") as raised:
        start(5, ranks.stay_as_rank)

    assert number == raised.value.errno
    assert hint in str(raised.value)


@needs_pidfds
def test_interrupt_in_the_middle_of_a_fork_loses_no_rank() -> None:
    """The signal is blocked in this thread, but another one may take it: then Python runs the handler here.

    It arrives while a fork is under way, so that the handler runs at the first bytecode after it: where
    `pids.append(os.fork())` would have lost the pid.
    """
    source = """
        import os, signal, subprocess, sys, threading
        import spawnx
        from tests import ranks

        idle = threading.Thread(target=threading.Event().wait, daemon=True)
        idle.start()  # it takes the signals that the main thread blocks
        read, write = os.pipe()
        kill = f"while read line; do sleep 0.002; kill -INT {os.getpid()}; done"
        path = {"PATH": os.environ["PATH"]}  # and no LD_PRELOAD: a shell crashes under TSan
        killer = subprocess.Popen(["sh", "-c", kill], stdin=read, env=path)
        forks = 0

        def tell_killer():
            global forks
            forks += 1
            if forks == 10:
                os.write(write, b"now\\n")

        os.register_at_fork(before=tell_killer)
        interrupted = rounds = 0
        while interrupted < 10:
            rounds += 1
            assert rounds < 200, "the interrupts come too late, or while Python runs the hook, which swallows them"
            forks = 0
            try:
                spawnx.start_processes(ranks.nothing, (), 300, start_method="fork")
            except KeyboardInterrupt:
                interrupted += forks < 300
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                left = set(map(int, file.read().split())) - {killer.pid}
            assert not left, f"{len(left)} ranks were lost"
        os.close(write)
        killer.kill()
        killer.wait()
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert done.returncode == 0, done.stderr


def test_mask_of_signals_is_the_callers_in_supervisor_and_rank() -> None:
    """All are blocked while ranks are forked, and none stays so."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        spawnx.start_processes(ranks.put_mask, (queue,), 1, start_method="fork")
        after = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert ({signal.SIGUSR2} | before, {signal.SIGUSR2} | before) == (after, queue.get())
    queue.close()


@needs_pidfds
def test_only_one_fd_is_held_per_rank() -> None:
    """No pipe pairs: one pidfd each."""
    before = len(os.listdir("/proc/self/fd"))
    context = start(20, ranks.stay_as_rank)
    held = len(os.listdir("/proc/self/fd")) - before
    for process in context.processes:
        process.kill()
    context._join_procs_with_timeout(60)

    # And one selector, that over all contexts, the folder, the scoreboard, both ends of the notices, the guardian, the
    # channel to it.
    assert held == 28


def test_backend_that_has_no_pidfds_leaves_fork_to_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An old kernel, or a sandbox that forbids them."""
    monkeypatch.setenv("SPAWNX_BACKEND", "python")
    monkeypatch.setattr(PythonBackend, "has_pidfd", lambda _: False)
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="fork")
    assert context is not None
    while not context.join():
        pass

    assert context.launcher == "stdlib"


@needs_pidfds
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_kernel_that_refuses_pidfds_is_believed_for_good(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSYS and EPERM are no passing failures."""
    calls = []

    def refuse(_: int) -> int:
        calls.append(1)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("spawnx.backends.python._has_pidfd", None)
    monkeypatch.setattr(os, "pidfd_open", refuse)

    assert (False, False, [1]) == (backends.named("python").has_pidfd(), PythonBackend().has_pidfd(), calls)


@needs_pidfds
def test_forked_child_never_returns_whatever_its_exit_code() -> None:
    """`sys.exit(2**40)` is no int for os._exit: the child must not run on as a second supervisor."""
    with pytest.raises(spawnx.ProcessExitedException, match="exit code 255"):
        spawnx.start_processes(ranks.do, (ranks.exit_with, 2**40), 1, start_method="fork")

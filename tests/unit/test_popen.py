"""Children held by pidfds, and those for which there is none: no status is lost, and nobody else is hit."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import spawnx
from spawnx import backends
from spawnx.backends.contract import Backend
from spawnx.fd_room import FdRoom
from spawnx.launchers import popen
from tests import ranks
from tests.support import finish, linux_only, needs_pidfds, wait_ended

pytestmark = linux_only


@pytest.fixture(params=backends.available())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each backend, by which the ranks of the test are held."""
    monkeypatch.setenv("SPAWNX_BACKEND", request.param)
    return backends.named(request.param)


@pytest.fixture
def limit() -> Iterator[Any]:
    """Set the soft limit on fds, and with it the hard one as this process is to see it; both are restored."""
    real = resource.getrlimit(resource.RLIMIT_NOFILE)

    def set_limit(soft: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, real[1]))

    yield set_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, real)


def start(nprocs: int, fn: Any = ranks.nothing, args: Any = ()) -> Any:
    """Forked ranks, not joined."""
    return spawnx.start_processes(fn, args, nprocs, join=False, start_method="fork")


def end(context: Any) -> None:
    """Kill all ranks and reap them."""
    for process in context.processes:
        process.kill()
    context._join_procs_with_timeout(60)


@needs_pidfds
def test_status_asked_for_in_the_middle_of_reaping_is_the_same(backend: Backend) -> None:
    """A signal handler that looks between the look and the reaping of the interrupted code sees the same code."""
    context = start(1, ranks.exit_7)
    process = context.processes[0]
    wait_ended([process])
    popen = process._popen
    seen_inside = []

    class Interrupting:
        def peek(self, pidfd: int) -> int | None:
            code = backend.peek(pidfd)
            popen._backend = backend
            seen_inside.append(process.exitcode)  # what a handler would do here
            return code

        def reap(self, pidfds: Any) -> None:
            backend.reap(pidfds)

    popen._backend = Interrupting()

    assert (7, [7]) == (process.exitcode, seen_inside)
    with pytest.raises(spawnx.ProcessExitedException, match="exit code 7"):
        context.join()


def test_status_asked_for_by_a_handler_during_join_is_the_same(backend: Backend) -> None:
    """Lightning's handlers call `is_alive` in the middle of a join: neither side loses a status."""
    context = start(30, ranks.exit_on_its_own_time)
    seen: list[list[int | None]] = []
    before = signal.signal(
        signal.SIGALRM,
        lambda *_: seen.append([process.is_alive() or process.exitcode for process in context.processes]),
    )
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
    try:
        finish(context)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert seen
    assert [0] * 30 == [process.exitcode for process in context.processes]


def test_two_threads_that_ask_get_the_same_status(backend: Backend) -> None:
    """No status is lost to the other one."""
    context = start(50, ranks.exit_7)
    wait_ended(context.processes)
    barrier = threading.Barrier(2)
    codes: list[list[int | None]] = [[], []]

    def ask(mine: list[int | None]) -> None:
        for process in context.processes:
            barrier.wait()
            mine.append(process.exitcode)

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context._join_procs_with_timeout(0)

    assert [[7] * 50, [7] * 50] == codes


def test_two_threads_that_join_one_context_see_all_ranks_end(backend: Backend) -> None:
    """Neither hangs, and neither sees an error of the other one's making."""
    context = start(40, ranks.exit_on_its_own_time)
    results: list[object] = []

    def join() -> None:
        try:
            finish(context)
            results.append("joined")
        except BaseException as error:  # noqa: BLE001 - shown by the comparison
            results.append(error)

    threads = [threading.Thread(target=join) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["joined", "joined"] == results


@needs_pidfds
def test_status_taken_by_another_reaper_is_asked_of_the_kernel(backend: Backend) -> None:
    """Since Linux 6.15 a pidfd tells the exit code of a child that somebody else has reaped."""
    context = start(2, ranks.exit_7)
    wait_ended(context.processes)
    taken = context.processes[0]
    os.waitpid(taken.pid, 0)
    told = backend.peek(taken.sentinel)
    context._join_procs_with_timeout(0)

    assert taken.exitcode == (7 if told == 7 else 255)
    if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 15):
        assert told == 7


@needs_pidfds
def test_status_that_nobody_can_tell_is_a_failure_that_says_so(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a success, nor a hang, nor an OSError."""
    context = start(1)
    monkeypatch.setattr(type(backend), "peek", lambda *_: popen.LOST)
    monkeypatch.setattr("spawnx.watch.watcher.Watcher._look", lambda *_: [(0, popen.LOST, 0)])
    wait_ended(context.processes)
    with pytest.raises(spawnx.ProcessExitedException, match="another reaper took its exit status") as raised:
        context.join()

    assert (0, 255) == (raised.value.error_index, raised.value.exit_code)


@needs_pidfds
@pytest.mark.parametrize(("fn", "expected"), [(ranks.nothing, None), (ranks.exit_7, 255)])
def test_ignored_sigchld_tells_successes_from_failures(
    backend: Backend, fn: Any, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reaps at once: a rank that ended well has left word, one that didn't has not, whenever it is held."""
    # With a guardian, no rank comes so far before it is held.
    monkeypatch.setenv("SPAWNX_ORPHAN_GRACE", "off")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    real_open = type(backend).open_pidfd
    sent: list[int] = []

    def open_when_gone(self: Backend, pid: int) -> int:
        while os.path.exists(f"/proc/{pid}"):
            threading.Event().wait(0.001)
        return real_open(self, pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "open_pidfd", open_when_gone)
        patch.setattr(os, "kill", lambda pid, _: sent.append(pid))
        try:
            context = start(2, fn)
            code = None
            try:
                finish(context)
            except spawnx.ProcessExitedException as failure:
                code = failure.exit_code
                context._join_procs_with_timeout(0)
        finally:
            signal.signal(signal.SIGCHLD, before)

    assert (expected, []) == (code, sent)


@needs_pidfds
def test_ignored_sigchld_and_ranks_that_live_are_told_apart_by_their_codes(backend: Backend) -> None:
    """Held while they live, they are asked of the kernel, or leave word."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    read, write = os.pipe()
    try:
        context = start(3, ranks.read_then_exit_by_rank, (read,))
        os.write(write, b"...")
        with pytest.raises(spawnx.ProcessExitedException, match=r"process [12] ") as raised:
            finish(context)
        context._join_procs_with_timeout(10)
    finally:
        signal.signal(signal.SIGCHLD, before)
        os.close(read)
        os.close(write)

    assert raised.value.exit_code in {1, 2, 255, -signal.SIGTERM}
    assert context.processes[0].exitcode in {0, 255, -signal.SIGTERM}


@needs_pidfds
def test_pidfds_go_above_the_soft_limit_when_they_are_many(backend: Backend, limit: Any) -> None:
    """User code still finds low numbers, and the limit is what it was."""
    lowest = os.dup(0)
    os.close(lowest)
    soft = 2 * lowest + 60
    limit(soft)
    context = start(200, ranks.stay_as_rank)
    free = os.dup(0)
    os.close(free)
    limit_then = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    sentinels = [process.sentinel for process in context.processes]
    end(context)

    assert (soft, True) == (limit_then, free < soft * 3 // 4)
    assert all(sentinel < soft // 2 or sentinel >= soft for sentinel in sentinels)
    assert [-signal.SIGKILL] * 200 == [process.exitcode for process in context.processes]


@needs_pidfds
def test_ranks_do_not_inherit_a_raised_limit(backend: Backend, limit: Any) -> None:
    """The limit is raised only while a pidfd is moved."""
    limit(100)
    queue = spawnx.get_context("spawn").SimpleQueue()
    context = spawnx.spawn(ranks.put_fd_limit, (queue,), 60, join=False)
    assert context is not None
    limits = {queue.get() for _ in range(60)}
    finish(context)
    queue.close()

    assert {100} == limits


def full(self: FdRoom, fd: int) -> None:
    """Stand for a hard limit that leaves no room."""
    os.close(fd)


@needs_pidfds
def test_ranks_without_room_for_pidfds_are_watched_and_ended_all_the_same(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the hard limit they are asked every now and then."""
    monkeypatch.setattr(FdRoom, "place", full)
    read, write = os.pipe()
    context = start(20, ranks.read_then_exit_by_rank, (read,))
    unheld = [process.is_unheld for process in context.processes]
    os.write(write, b"." * 20)
    failures = []
    while True:
        try:
            finish(context)
            break
        except spawnx.ProcessExitedException as failure:
            failures.append(failure.with_traceback(None))
    os.close(read)
    os.close(write)

    assert [True] * 20 == unheld
    assert (
        failures[0].error_index == failures[0].exit_code > 0
    )  # what came first is no rank that was ended for it
    assert context.sentinels == {}


@needs_pidfds
def test_rank_without_a_pidfd_has_all_the_methods_of_a_process(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sentinel is no fd; everything else works."""
    monkeypatch.setattr(FdRoom, "place", full)
    context = start(1, ranks.stay_as_rank)
    process = context.processes[0]
    before = (process.is_alive(), process.exitcode, process.join(0.01), context.join(0.01))
    process.terminate()
    process.join(60)
    after = (process.is_alive(), process.exitcode, process.sentinel < 0)
    context._join_procs_with_timeout(0)
    process.close()

    assert (True, None, None, False) == before
    assert (False, -signal.SIGTERM, True) == after


@needs_pidfds
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_pidfds_that_cannot_be_opened_are_done_without(
    backend: Backend, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is full concerns this call only."""

    def refuse(_self: Backend, _pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(type(backend), "open_pidfd", refuse)
    context = start(4)
    finish(context)

    assert [0] * 4 == [process.exitcode for process in context.processes]


@needs_pidfds
def test_opening_a_pidfd_of_no_child_is_refused(backend: Backend) -> None:
    """A pid is hearsay: of a stranger, such as a process that got a dead rank's number, no fd stays open."""
    with pytest.raises(ChildProcessError):
        backend.open_pidfd(os.getppid())


@needs_pidfds
def test_popen_waits_no_longer_than_asked(backend: Backend) -> None:
    """0 and less only look."""
    context = start(1, ranks.stay_as_rank)
    one = context.processes[0]._popen
    waits = [one.wait(0), one.wait(-1), one.wait(0.01)]
    one.kill()
    code = one.wait(None)
    context._join_procs_with_timeout(0)

    assert ([None, None, None], -signal.SIGKILL) == (waits, code)
    assert isinstance(one, popen.Popen)


def test_process_closed_before_it_was_joined_is_joined_all_the_same(backend: Backend) -> None:
    """Its number may be another fd's by then: the watch has let it go."""
    context = start(3)
    wait_ended(context.processes)
    for process in context.processes:
        process.is_alive()
        process.close()
    finish(context)

    assert context.sentinels == {}

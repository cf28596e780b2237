"""What `.processes` are: multiprocessing's Process objects in all that callers touch, before and after the end."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.process
import os
import shutil
import signal
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from tests import pypy, ranks
from tests.pypy import open_pidfd
from tests.ranks import Gate
from tests.support import (
    HAS_PIDFD,
    LONG_S,
    QUICK,
    Impl,
    Program,
    finish,
    linux_only,
    posix_only,
    take,
    wait_ended,
)

CONTEXT = multiprocessing.get_context(QUICK)
PREFIX = {"fork": "ForkProcess-", "spawn": "SpawnProcess-", "forkserver": "ForkServerProcess-"}


@pytest.fixture
def gate() -> Gate:
    """A gate for ranks of the quick start method."""
    return Gate(CONTEXT)


def _start(impl: Impl, gate: Gate, nprocs: int = 1, **options: Any) -> Any:
    """Start ranks that wait at a gate, and wait until all are there."""
    context = impl.start(ranks.wait_at, (gate,), nprocs, **options)
    gate.wait_for(nprocs)
    return context


# Alive


def test_process_is_one_of_multiprocessing_s(impl: Impl, start_method: str) -> None:
    """`isinstance` with multiprocessing's own base class holds."""
    context = impl.start(ranks.nothing, nprocs=1, start_method=start_method)
    finish(context)

    assert isinstance(context.processes[0], multiprocessing.process.BaseProcess)


def test_live_process_says_so(impl: Impl, gate: Gate) -> None:
    """A rank that runs is alive, has a pid and no exit code, and is a child of this process."""
    context = _start(impl, gate)
    process = context.processes[0]

    assert (True, None, False) == (process.is_alive(), process.exitcode, process.daemon)
    assert process.ident == process.pid
    assert process.authkey == multiprocessing.current_process().authkey
    assert [process] == multiprocessing.active_children()
    gate.let()
    finish(context)


def test_sentinel_of_live_process_is_not_ready(impl: Impl, gate: Gate) -> None:
    """A sentinel becomes ready when its rank ends, and stays so."""
    context = _start(impl, gate)
    process = context.processes[0]

    assert [] == wait([process.sentinel], timeout=0)
    gate.let()
    assert [process.sentinel] == wait([process.sentinel], timeout=LONG_S)
    finish(context)
    assert [process.sentinel] == wait([process.sentinel], timeout=0)


def test_join_of_live_process_with_timeout_returns(impl: Impl, gate: Gate) -> None:
    """`Process.join(timeout)` returns None after its time, whatever the rank does."""
    context = _start(impl, gate)
    process = context.processes[0]

    assert [None, None, None] == [process.join(0), process.join(timeout=0.01), process.join(-1)]
    assert process.is_alive()
    gate.let()
    assert process.join() is None
    assert (False, 0) == (process.is_alive(), process.exitcode)
    assert context.join() is True


def test_live_process_can_not_be_closed(impl: Impl, gate: Gate) -> None:
    """`close` on a running process is a ValueError."""
    context = _start(impl, gate)

    with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
        context.processes[0].close()
    gate.let()
    finish(context)


def test_process_can_not_be_started_again(impl: Impl, gate: Gate) -> None:
    """`start` is over: an AssertionError, as for each process."""
    context = _start(impl, gate)

    with pytest.raises(AssertionError, match="cannot start a process twice"):
        context.processes[0].start()
    gate.let()
    finish(context)


def test_daemon_flag_of_live_process_can_not_be_set(impl: Impl, gate: Gate) -> None:
    """`daemon` is settled by the call that started the ranks."""
    context = _start(impl, gate)

    with pytest.raises(AssertionError, match="process has already started"):
        context.processes[0].daemon = True
    gate.let()
    finish(context)


def test_repr_of_process_tells_its_state(impl: Impl, gate: Gate) -> None:
    """The text names the process, its pid, its parent and how it stands."""
    context = _start(impl, gate)
    process = context.processes[0]
    common = f"name='{process.name}' pid={process.pid} parent={os.getpid()}"

    assert f"<{type(process).__name__} {common} started>" == repr(process)
    process.kill()
    assert ["process 0 terminated with signal SIGKILL"] == list(map(str, impl.every_failure(context)))
    assert f"<{type(process).__name__} {common} stopped exitcode=-SIGKILL>" == repr(process)
    process.close()
    assert f"<{type(process).__name__} name='{process.name}' parent={os.getpid()} closed>" == repr(process)


def test_repr_of_daemon_says_so(impl: Impl, gate: Gate) -> None:
    """A daemon is called one."""
    context = _start(impl, gate, daemon=True)

    assert repr(context.processes[0]).endswith(" started daemon>")
    gate.let()
    finish(context)


def test_processes_are_told_apart(impl: Impl, gate: Gate) -> None:
    """A process equals itself only, and can be a key."""
    context = _start(impl, gate, 2)
    first, second = context.processes

    assert first != second
    assert {first: 0, second: 1} == {process: index for index, process in enumerate(context.processes)}
    gate.let(2)
    finish(context)


def test_names_are_numbered_on(impl: Impl, start_method: str) -> None:
    """Names tell the start method, count on over all calls, and are the same inside the ranks."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    context = impl.start(ranks.put_identity, (queue,), 2, start_method)
    names = [process.name for process in context.processes]
    finish(context)
    inside = sorted(take(queue, 2), key=lambda found: found["rank"])
    numbers = [int(name.removeprefix(PREFIX[start_method])) for name in names]

    assert names == [found["name"] for found in inside]
    assert [numbers[0], numbers[0] + 1] == numbers
    following = multiprocessing.get_context(start_method).Process(target=os.getpid)
    assert f"{PREFIX[start_method]}{numbers[1] + 1}" == following.name
    queue.close()


def test_process_can_be_renamed(impl: Impl, gate: Gate) -> None:
    """`name` can be set at any time, to a text."""
    context = _start(impl, gate)
    context.processes[0].name = "renamed"

    assert "renamed" == context.processes[0].name
    gate.let()
    finish(context)


def test_active_children_are_the_live_ones(impl: Impl) -> None:
    """`multiprocessing.active_children()` holds the ranks that live, and none that has ended."""
    gates = [Gate(CONTEXT) for _ in range(2)]
    context = impl.start(ranks.wait_at_own, (gates,), 2)
    for gate in gates:
        gate.wait_for()

    assert set(context.processes) == set(multiprocessing.active_children())
    gates[0].let()
    wait_ended(context.processes[:1])
    assert [context.processes[1]] == multiprocessing.active_children()
    gates[1].let()
    finish(context)
    assert [] == multiprocessing.active_children()


# Ended, and who took its status


@pytest.mark.parametrize(
    "ask",
    [
        lambda context: multiprocessing.active_children(),  # noqa: ARG005
        lambda context: [process.exitcode for process in context.processes],
        lambda context: [process.is_alive() for process in context.processes],
        lambda context: [process.join() for process in context.processes],
    ],
    ids=["active_children", "exitcode", "is_alive", "join"],
)
def test_status_that_was_asked_for_before_join_is_not_lost(impl: Impl, ask: Any) -> None:
    """Whoever learns of an end first, `join` tells of it."""
    context = impl.start(ranks.one_does, (1, ranks.exit_with, 3), 3)
    wait_ended(context.processes)
    ask(context)

    assert [("process 1 terminated with exit code 3", context.pids()[1])] == [
        (str(failure), failure.error_pid) for failure in impl.every_failure(context)
    ]


@pytest.mark.torch_spawn
def test_process_can_be_used_after_the_end(impl: Impl, start_method: str) -> None:
    """After the context has ended, every method still works, and harms nobody."""
    context = impl.start(ranks.one_does, (1, ranks.exit_with, 3), 2, start_method)
    wait_ended(context.processes)
    assert [1] == [failure.error_index for failure in impl.every_failure(context)]

    for process, code in zip(context.processes, [0, 3], strict=True):
        assert isinstance(process.pid, int)
        assert (code, False, None) == (process.exitcode, process.is_alive(), process.join())
        assert [None, None, None] == [process.terminate(), process.kill(), process.join(0.1)]
        # Not at once: the forkserver closes a sentinel some time after it has sent the exit code over it.
        assert [process.sentinel] == wait([process.sentinel], timeout=LONG_S)
        assert code == process.exitcode


def test_closed_process_refuses_all(impl: Impl) -> None:
    """After `close` nothing can be asked any more; `close` again does nothing."""
    context = impl.start(ranks.nothing)
    finish(context)
    process = context.processes[0]

    assert [None, None] == [process.close(), process.close()]
    for ask in ("is_alive", "join", "terminate", "kill"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, ask)()
    for name in ("pid", "exitcode", "sentinel"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)


def test_process_may_outlive_its_context(impl: Impl, gate: Gate) -> None:
    """Callers may keep `.processes` and drop the context."""
    processes = _start(impl, gate, 2).processes
    gate.let(2)

    assert [None, None] == [process.join() for process in processes]
    assert [0, 0] == [process.exitcode for process in processes]


@linux_only
@pytest.mark.parametrize("how", [(ranks.pass_by,), (ranks.exit_with, 3)], ids=["ended well", "failed"])
def test_dropped_context_gives_its_fds_back_at_once(impl: Impl, how: tuple[Any, ...]) -> None:
    """The last reference is enough: no fd waits for the cycle collector, which may come late or be off.

    Not on PyPy, which has no other way to destroy an object.
    """
    gc.collect()
    gc.disable()
    try:
        before = set(os.listdir("/proc/self/fd"))
        context = impl.start(ranks.do, how, 3)
        impl.every_failure(context)
        del context
        pypy.drop()
        after = set(os.listdir("/proc/self/fd"))
    finally:
        gc.enable()

    assert set() == after - before


def test_list_of_processes_may_be_kept_before_join(impl: Impl, gate: Gate) -> None:
    """What callers took from `.processes` is what `join` works on."""
    context = _start(impl, gate, 2)
    processes = list(context.processes)
    gate.let(2)
    finish(context)

    assert processes == context.processes
    assert [0, 0] == [process.exitcode for process in processes]


@posix_only
def test_terminate_in_a_loop_ends_ranks(impl: Impl, gate: Gate) -> None:
    """What nerfstudio does on Ctrl-C: `is_alive`, `terminate`, `join` on each process, and never the context's join."""
    context = _start(impl, gate, 2)
    for process in context.processes:
        if process.is_alive():
            process.terminate()
        process.join()

    assert [-signal.SIGTERM] * 2 == [process.exitcode for process in context.processes]


@posix_only
def test_signal_to_pid_reaches_the_rank(impl: Impl, gate: Gate) -> None:
    """`os.kill(process.pid, signum)` is how Lightning ends its ranks."""
    context = _start(impl, gate)
    os.kill(context.processes[0].pid, signal.SIGKILL)

    assert [-signal.SIGKILL] == [failure.exit_code for failure in impl.every_failure(context)]


@linux_only
def test_questions_in_a_signal_handler_during_join_are_answered(impl: Impl, gate: Gate) -> None:
    """A handler that runs in the middle of `join` may ask for and end ranks."""
    context = _start(impl, gate, 2)
    asked: list[list[bool]] = []

    def handle(_signum: int, _frame: object) -> None:
        asked.append([process.is_alive() for process in context.processes])
        for process in context.processes:
            process.join(0)
        gate.let(2)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        interrupter = CONTEXT.Process(target=ranks.send_when_asleep, args=(os.getpid(), signal.SIGUSR1))
        interrupter.start()
        finish(context)
        interrupter.join()
        interrupter.close()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert [[True, True]] == asked


# What ranks know of themselves


@pytest.mark.torch_spawn
def test_rank_knows_its_parent(impl: Impl, start_method: str) -> None:
    """`parent_process()` in a rank is the supervisor, and lives."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    finish(impl.start(ranks.put_identity, (queue,), 1, start_method))
    found = queue.get()

    assert (os.getpid(), "MainProcess", True) == (
        found["parent's pid"],
        found["parent's name"],
        found["parent is alive"],
    )
    assert (False, []) == (found["daemon"], found["children"])
    if start_method != "forkserver":
        assert os.getpid() == found["ppid"]
    queue.close()


def test_rank_has_the_environment_of_now(
    impl: Impl, start_method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that the supervisor set before the call are there in the ranks, but for the old forkserver's."""
    monkeypatch.setenv("SET_BEFORE_THE_CALL", "value")
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    finish(impl.start(ranks.put_environment, (queue, "SET_BEFORE_THE_CALL"), 1, start_method))

    if start_method != "forkserver":
        assert (0, "value") == queue.get()
    queue.close()


def test_daemon_knows_that_it_is_one(impl: Impl, start_method: str) -> None:
    """The flag is set on both sides."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    context = impl.start(ranks.put_identity, (queue,), 1, start_method, daemon=True)
    finish(context)

    assert [True, True] == [context.processes[0].daemon, queue.get()["daemon"]]
    queue.close()


@pytest.mark.torch_spawn
def test_daemon_can_not_have_children(impl: Impl, start_method: str) -> None:
    """A daemon that starts a process gets multiprocessing's AssertionError."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    finish(impl.start(ranks.put_daemon_error, (queue,), 1, start_method, daemon=True))

    assert "daemonic processes are not allowed to have children" == queue.get()
    queue.close()


def test_rank_can_have_children(impl: Impl, start_method: str) -> None:
    """A rank that is no daemon starts processes as it likes."""
    finish(impl.start(ranks.do, (ranks.start_a_child,), 1, start_method))


def test_rank_can_have_ranks(impl: Impl) -> None:
    """A rank may itself be a supervisor; the failure of its rank is its own."""
    context = impl.start(ranks.be_supervisor, (impl.package, QUICK, ranks.exit_with, 3))
    (failure,) = impl.every_failure(context)

    # Rank 0 of the rank may still have been there: then a note says that it was ended.
    assert "ProcessExitedException: process 1 terminated with exit code 3\n" in str(failure)


def test_rank_is_in_what_a_plain_process_is_in(impl: Impl, start_method: str) -> None:
    """Handlers, mask, streams, paths, threads and all else that a start sets are those of a Process of that method."""
    context = multiprocessing.get_context(start_method)
    queue = context.SimpleQueue()
    plain = context.Process(target=ranks.put_description, args=(0, queue))
    plain.start()
    expected = queue.get()
    plain.join()
    plain.close()
    finish(impl.start(ranks.put_description, (queue,), 1, start_method))

    assert expected == queue.get()
    queue.close()


@linux_only
@pytest.mark.torch_spawn
def test_rank_gets_sigint_when_its_parent_ends(impl: Impl, start_method: str) -> None:
    """The kernel is told to: on Linux a rank doesn't outlive a supervisor that was killed."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    finish(impl.start(ranks.put_death_signal, (queue,), 1, start_method))

    assert signal.SIGINT == queue.get()
    queue.close()


@linux_only
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_ranks_end_when_their_supervisor_is_killed(program: Program, start_method: str) -> None:
    """After SIGKILL to the supervisor no rank is left, as long as SIGINT ends it: the check after each test sees that.

    Not by "forkserver": it lives as long as its ranks, and they as long as it does. Without pidfds nobody removes the
    folder.
    """
    with program.popen(
        f"""
        import multiprocessing
        from tests import pypy, ranks

        if __name__ == "__main__":
            gate = ranks.Gate(multiprocessing.get_context({start_method!r}))
            context = mp.start_processes(ranks.wait_at, (gate,), 2, join=False, start_method={start_method!r})
            gate.wait_for(2)
            print(*context.pids(), flush=True)
            context.join()
        """
    ) as supervisor:
        assert supervisor.stdout is not None
        pidfds = [open_pidfd(int(pid)) for pid in supervisor.stdout.readline().split()]
        supervisor.kill()
        ended = [wait([pidfd], LONG_S) for pidfd in pidfds]
        for pidfd in pidfds:
            os.close(pidfd)

    if not HAS_PIDFD:
        for folder in Path(os.environ["TMPDIR"]).glob("spawnx-*"):
            shutil.rmtree(folder)

    assert [[pidfds[0]], [pidfds[1]]] == ended


# At a rank's end


@posix_only
@pytest.mark.parametrize(
    "how",
    [(ranks.pass_by,), (ranks.raise_value_error, "x"), (ranks.exit_with, 3)],
    ids=["returns", "raises", "exits"],
)
def test_rank_runs_its_handlers_as_a_plain_process_does(
    impl: Impl, start_method: str, how: tuple[Any, ...]
) -> None:
    """atexit and multiprocessing's finalizers run in ranks when they do in a Process of that start method."""
    context = multiprocessing.get_context(start_method)
    traces = []
    for start in (
        lambda args: context.Process(target=ranks.leave_traces, args=(0, *args)),
        lambda args: impl.start(ranks.leave_traces, args, 1, start_method),
    ):
        receiver, sender = context.Pipe(duplex=False)
        started = start((sender, *how))
        if isinstance(started, multiprocessing.process.BaseProcess):
            started.start()
            started.join()
            started.close()
        else:
            impl.every_failure(started)
        sender.close()
        traces.append(_read_all(receiver))

    assert traces[0] == traces[1]
    assert ["rank", "finalizer with priority"] == [
        line for line in traces[0].splitlines() if line in ("rank", "finalizer with priority")
    ]


def _read_all(receiver: Any) -> str:
    """Read raw text until nobody can write any more."""
    with open(receiver.fileno(), "rb", closefd=False) as file:
        text = file.read().decode()
    receiver.close()
    return text


@posix_only
def test_rank_flushes_what_it_printed(program: Program, start_method: str) -> None:
    """Text that a rank printed without a newline is there when `join` returns."""
    assert ["printed, warned, joined"] == program.output(
        f"""
        from tests import pypy, ranks

        if __name__ == "__main__":
            mp.start_processes(ranks.print_unfinished, start_method={start_method!r})
            print("joined")
        """
    )


@posix_only
def test_rank_does_not_print_what_the_supervisor_had_buffered(program: Program) -> None:
    """Streams are flushed before a fork, so buffered text comes out once, and first."""
    assert ["buffered", "from rank 0", "joined"] == program.output(
        f"""
        import sys
        from tests import pypy, ranks

        if __name__ == "__main__":
            sys.stdout.reconfigure(line_buffering=False)
            print("buffered")
            mp.start_processes(ranks.print_rank, start_method={QUICK!r})
            print("joined")
        """
    )


# At the supervisor's end


@posix_only
def test_ranks_are_joined_at_exit(program: Program) -> None:
    """A program that ends without joining waits for its ranks at exit, as for each process that is no daemon."""
    assert ["main ends", "rank 0 ends", "main has ended"] == program.output(
        f"""
        import atexit, multiprocessing, os
        from multiprocessing import util
        from tests import pypy, ranks

        if __name__ == "__main__":
            gate = ranks.Gate(multiprocessing.get_context({QUICK!r}))
            mp.start_processes(ranks.wait_then_write, (gate, b"rank 0 ends\\n"), join=False, start_method={QUICK!r})
            gate.wait_for()
            # Of the lowest priority: called when multiprocessing has joined its children.
            util.Finalize(None, os.write, args=(1, b"main has ended\\n"), exitpriority=-100)
            atexit.register(gate.let)
            os.write(1, b"main ends\\n")
        """
    )


@posix_only
def test_daemons_are_terminated_at_exit(program: Program) -> None:
    """A program that ends without joining ends its daemons; the check after each test sees that none is left."""
    assert ["main ends", "SIGTERM"] == program.output(
        f"""
        import multiprocessing, os
        from tests import pypy, ranks

        if __name__ == "__main__":
            gate = ranks.Gate(multiprocessing.get_context({QUICK!r}))
            mp.start_processes(
                ranks.write_when_terminated, (gate,), join=False, daemon=True, start_method={QUICK!r}
            )
            gate.wait_for()
            os.write(1, b"main ends\\n")
        """
    )


def test_join_of_process_of_ended_rank_is_quick(impl: Impl) -> None:
    """`Process.join(timeout)` on a rank that has ended returns at once."""
    context = impl.start(ranks.nothing, nprocs=4)
    finish(context)
    start = time.monotonic()
    for process in context.processes:
        process.join(LONG_S)

    assert time.monotonic() - start < LONG_S / 2

"""The call sites of public projects, one test each: a drop-in is judged by code that was written for the original."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from tests import ranks
from tests.ranks import Gate
from tests.support import LONG_S, QUICK, Impl, finish, posix_only, take, wait_ended

# Lightning, strategies/launchers/multiprocessing.py


def test_lightning_s_launch_returns_the_result(impl: Impl, start_method: str) -> None:
    """A bound method, a list of arguments, a SimpleQueue of `mp.get_context`, a loop of `join`, then the queue."""
    queue = impl.mp.get_context(start_method).SimpleQueue()
    wrapper = ranks.Worker(0)
    context = impl.mp.start_processes(
        wrapper.wrap, args=[divmod, (7, 2), {}, queue], nprocs=2, start_method=start_method, join=False
    )
    processes = context.processes
    while not context.join():
        pass

    assert (3, 1) == queue.get()
    assert [0, 0] == [process.exitcode for process in processes]
    queue.close()


@posix_only
def test_lightning_s_signal_handler_ends_ranks(impl: Impl) -> None:
    """The processes were kept before `join`; a handler asks `is_alive` and kills by pid, in the middle of it."""
    gate = Gate(multiprocessing.get_context(QUICK))
    context = impl.mp.start_processes(ranks.wait_at, args=[gate], nprocs=2, start_method=QUICK, join=False)
    processes = context.processes
    gate.wait_for(2)

    def kill(_signum: int, _frame: object) -> None:
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)

    previous = signal.signal(signal.SIGUSR1, kill)
    try:
        sender = multiprocessing.get_context(QUICK).Process(
            target=ranks.send_when_asleep, args=(os.getpid(), signal.SIGUSR1)
        )
        sender.start()
        failures = impl.every_failure(context)
        sender.join()
        sender.close()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert ["SIGKILL", "SIGKILL"] == [failure.signal_name for failure in failures]


@pytest.mark.parametrize("start_method", ["fork"] if QUICK == "fork" else ["spawn"])
def test_fabric_s_launch_joins_and_reads_the_queue(impl: Impl, start_method: str) -> None:
    """`join` left at its default, `args` a list, then the queue."""
    queue = impl.mp.get_context(start_method).SimpleQueue()
    impl.mp.start_processes(
        ranks.Worker(0).wrap, args=[max, (1, 2), {}, queue], nprocs=2, start_method=start_method
    )

    assert 2 == queue.get()
    queue.close()


# torch elastic, MultiprocessContext


def _elastic_start(impl: Impl, start_method: str, how: Any, **options: Any) -> tuple[Any, Any, Any, Any]:
    """Start two ranks as elastic does: dicts, queues and an event through `args`."""
    context = impl.mp.get_context(start_method)
    queues = {i: context.SimpleQueue() for i in range(2)}
    event, gate = context.Event(), Gate(context)
    started = impl.mp.start_processes(
        fn=ranks.elastic_wrap,
        args=({0: "zero", 1: "one"}, {0: how, 1: None}, queues, event, gate),
        nprocs=2,
        join=False,
        daemon=False,
        start_method=start_method,
        **options,
    )
    return started, queues, event, gate


@pytest.mark.torch_spawn
def test_elastic_s_poll_ends_with_results(impl: Impl, start_method: str) -> None:
    """`join(-1)` is False while ranks run, `join` in a loop ends, and each queue has its rank's result."""
    context, queues, event, gate = _elastic_start(impl, start_method, None)
    gate.wait_for(2)

    assert context.join(-1) is False
    assert context.pids() == [process.pid for process in context.processes]
    results = [queues[i].get() for i in range(2)]
    event.set()
    finish(context)
    assert ["zero", "one"] == results
    for queue in queues.values():
        queue.close()


def test_elastic_s_poll_raises_for_a_rank_that_raised(impl: Impl, start_method: str) -> None:
    """Both classes have the index and the pid; the other ranks are gone, and can be asked."""
    context, queues, event, gate = _elastic_start(impl, start_method, (ranks.raise_value_error, "no good"))
    gate.wait_for(2)
    event.set()
    wait_ended(context.processes)
    try:
        finish(context)
    except (impl.mp.ProcessRaisedException, impl.mp.ProcessExitedException) as error:
        failed = context.processes[error.error_index]
        found = (error.error_index, error.error_pid, failed.exitcode)
    failed.join(1)
    expected = (0, failed.pid, 1)

    assert expected == found
    assert [False, False] == [process.is_alive() for process in context.processes]
    for queue in queues.values():
        queue.close()


@posix_only
def test_elastic_s_close_kills_and_joins(impl: Impl) -> None:
    """Each live process gets a signal by pid, a `join(timeout)`, and a kill."""
    context, queues, _, gate = _elastic_start(impl, QUICK, None)
    gate.wait_for(2)
    for process in context.processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    for process in context.processes:
        process.join(LONG_S)
        process.kill()

    assert [-signal.SIGTERM] * 2 == [process.exitcode for process in context.processes]
    for queue in queues.values():
        queue.close()
    impl.every_failure(context)


@posix_only
def test_elastic_s_parallel_start_keeps_ranks_in_order(impl: Impl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that makes the reference start from threads is accepted; processes stay in the order of ranks."""
    monkeypatch.setenv(impl.mp.ENV_VAR_PARALLEL_START, "1")
    queue = multiprocessing.get_context("forkserver").SimpleQueue()
    context = impl.start(ranks.put_identity, (queue,), 4, "forkserver")
    finish(context)

    assert list(enumerate(context.pids())) == sorted(
        (found["rank"], found["pid"]) for found in take(queue, 4)
    )
    queue.close()


def test_elastic_s_numa_options_of_none_are_accepted(impl: Impl) -> None:
    """Some versions of 2025 pass `numa_options=None`: spawnx takes it, torch 2.13 doesn't any more."""
    accepted = impl.differs(torch=False, spawnx=True)
    try:
        impl.mp.start_processes(ranks.nothing, numa_options=None, start_method=QUICK)
    except TypeError:
        found = False
    else:
        found = True

    assert accepted == found


def test_elastic_s_numa_options_are_refused(impl: Impl) -> None:
    """What spawnx can't do it doesn't pretend to do."""
    with pytest.raises(TypeError, match="numa_options"):
        impl.mp.start_processes(ranks.nothing, numa_options=object(), start_method=QUICK)


# Accelerate, launchers.py


@pytest.mark.skipif(QUICK != "fork", reason="needs the start method fork")
def test_accelerate_s_notebook_launcher_reads_the_text(impl: Impl) -> None:
    """`from ….spawn import ProcessRaisedException`, and a substring test on `e.args[0]`."""
    raised = importlib.import_module(f"{impl.package}.spawn").ProcessRaisedException
    try:
        impl.mp.start_processes(
            ranks.do,
            args=(ranks.raise_value_error, "Cannot re-initialize CUDA in forked subprocess"),
            nprocs=1,
            start_method="fork",
        )
    except raised as error:
        found = "Cannot re-initialize CUDA in forked subprocess" in error.args[0]

    assert found


# ignite, detectron2, fairseq


@pytest.mark.parametrize(
    "options", [{}, {"join": True}, {"daemon": False}, {"join": True, "daemon": True}], ids=str
)
def test_ignite_s_and_fairseq_s_calls_run(impl: Impl, options: dict[str, bool]) -> None:
    """All by keyword, `daemon` given or not."""
    queue = multiprocessing.get_context(QUICK).SimpleQueue()
    impl.mp.start_processes(fn=ranks.put_rank, args=(queue,), nprocs=2, start_method=QUICK, **options)

    assert [0, 1] == take(queue, 2)
    queue.close()


def test_detectron2_s_call_runs(impl: Impl) -> None:
    """`mp.spawn(fn, nprocs=, args=, daemon=)`: the one that is used most."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    impl.mp.spawn(ranks.put_rank, nprocs=1, args=(queue,), daemon=False)

    assert [0] == take(queue, 1)
    queue.close()


# nerfstudio


@posix_only
def test_nerfstudio_s_cleanup_ends_ranks(impl: Impl) -> None:
    """`join` once; on Ctrl-C, `is_alive`, `terminate` and `join` on each process."""
    gate = Gate(multiprocessing.get_context(QUICK))
    context = impl.start(ranks.wait_at, (gate,), 2)
    gate.wait_for(2)
    try:
        raise KeyboardInterrupt  # as if `join` had been interrupted
    except KeyboardInterrupt:
        for process in context.processes:
            if process.is_alive():
                process.terminate()
            process.join()

    assert [-signal.SIGTERM] * 2 == [process.exitcode for process in context.processes]


# Test suites and scripts


@posix_only
def test_suite_that_waits_with_a_deadline_and_cleans_up(impl: Impl) -> None:
    """`while not ctx.join(timeout=0.1)`, and in the end `terminate`, `kill`, `join` and `is_alive` on each process."""
    context = impl.start(ranks.one_does, (1, ranks.raise_value_error, "EADDRINUSE: in use"), 2)
    wait_ended(context.processes)
    deadline = time.monotonic() + LONG_S
    text = ""
    try:
        while not context.join(timeout=0.1, grace_period=5.0):
            assert time.monotonic() < deadline
    except impl.module.ProcessException as error:
        text = str(error)
    for process in context.processes:
        process.terminate()
        process.join(timeout=1)
        process.kill()

    assert "EADDRINUSE" in text
    assert text.rstrip().endswith("\nValueError: EADDRINUSE: in use")
    assert [False, False] == [process.is_alive() for process in context.processes]

"""Contexts that callers build themselves, from plain Process objects and files in which ranks report."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import ranks
from tests.ranks import Gate
from tests.support import LONG_S, QUICK, Impl, finish, posix_only, wait_ended

CONTEXT = multiprocessing.get_context(QUICK)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Where three processes may report; no file is there."""
    return [str(tmp_path / f"{index}.pickle") for index in range(3)]


def _started(start_method: str, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Start a plain Process for each function and its arguments."""
    processes = [
        multiprocessing.get_context(start_method).Process(target=target, args=args) for target, *args in calls
    ]
    for process in processes:
        process.start()
    return processes


def _closed(context: Any) -> None:
    """Close the Process objects, which hold fds as long as they live."""
    for process in context.processes:
        process.close()


@pytest.mark.parametrize("name", ["ProcessContext", "SpawnContext"])
@pytest.mark.filterwarnings("ignore:SpawnContext is renamed:UserWarning")
def test_processes_that_end_well_are_joined(
    impl: Impl, start_method: str, paths: list[str], name: str
) -> None:
    """A context of plain Process objects is joined as any."""
    processes = _started(start_method, [(ranks.pass_by,)] * 3)
    context = getattr(impl.mp, name)(processes, paths)

    assert (processes, paths) == (context.processes, context.error_files)
    assert [process.pid for process in processes] == context.pids()
    assert {process.sentinel: index for index, process in enumerate(processes)} == context.sentinels
    finish(context)
    assert ([0, 0, 0], {}) == ([process.exitcode for process in processes], context.sentinels)
    _closed(context)


def test_context_of_no_processes_is_done(impl: Impl) -> None:
    """Nothing to wait for."""
    assert impl.mp.ProcessContext([], []).join() is True


def test_process_that_left_a_report_is_told_with_it(impl: Impl, start_method: str, paths: list[str]) -> None:
    """A file that holds a pickled text is the traceback, whoever wrote it; the process must have failed."""
    context = impl.mp.ProcessContext(
        _started(start_method, [(ranks.pass_by,), (ranks.report_and_exit, paths[1], "a text\n", 1)]),
        paths[:2],
    )
    wait_ended(context.processes)
    (failure,) = impl.every_failure(context)

    assert impl.mp.ProcessRaisedException is type(failure)
    assert (
        "\n\n-- Process 1 terminated with the following error:\na text\n",
        1,
        context.pids()[1],
    ) == failure.__reduce__()[1]
    _closed(context)


def test_report_written_by_the_caller_is_told(impl: Impl, paths: list[str]) -> None:
    """The file need not come from the process."""
    Path(paths[0]).write_bytes(pickle.dumps("from elsewhere"))
    context = impl.mp.ProcessContext(_started(QUICK, [(ranks.exit_with, 5)]), paths[:1])
    (failure,) = impl.every_failure(context)

    assert "\n\n-- Process 0 terminated with the following error:\nfrom elsewhere" == str(failure)
    _closed(context)


def test_report_outlives_a_context_by_hand(impl: Impl, paths: list[str]) -> None:
    """Files that the caller named are the caller's: they stay."""
    context = impl.mp.ProcessContext(
        _started(QUICK, [(ranks.report_and_exit, paths[0], "a text", 1)]), paths[:1]
    )
    impl.every_failure(context)

    assert "a text" == pickle.loads(Path(paths[0]).read_bytes())
    _closed(context)


def test_report_of_a_process_that_ended_well_is_not_read(impl: Impl, paths: list[str]) -> None:
    """In a context by hand the exit code decides, as in the reference: the file may be of any age."""
    context = impl.mp.ProcessContext(
        _started(QUICK, [(ranks.report_and_exit, paths[0], "a text", 0)]), paths[:1]
    )

    assert [] == impl.every_failure(context)
    _closed(context)


def test_process_without_report_is_told_with_its_exit_code(
    impl: Impl, start_method: str, paths: list[str]
) -> None:
    """Where there is no file, the exit code is all there is to tell."""
    context = impl.mp.ProcessContext(_started(start_method, [(ranks.exit_with, 3)]), paths[:1])
    (failure,) = impl.every_failure(context)

    assert ("process 0 terminated with exit code 3", 0, context.pids()[0], 3, None) == failure.__reduce__()[1]
    _closed(context)


@posix_only
def test_process_that_died_by_signal_is_told_with_its_name(impl: Impl, paths: list[str]) -> None:
    """A signal is named."""
    context = impl.mp.ProcessContext(_started(QUICK, [(ranks.die_by, signal.SIGKILL)]), paths[:1])
    (failure,) = impl.every_failure(context)

    assert ("process 0 terminated with signal SIGKILL", -9, "SIGKILL") == (
        str(failure),
        failure.exit_code,
        failure.signal_name,
    )
    _closed(context)


def test_wrap_of_the_implementation_can_be_the_target(
    impl: Impl, start_method: str, paths: list[str]
) -> None:
    """`_wrap(fn, i, args, error_file)` runs a rank that reports, in a process that the caller starts."""
    calls = [
        (impl.module._wrap, ranks.one_does, i, (1, ranks.raise_value_error, "no good"), paths[i])
        for i in range(2)
    ]
    context = impl.mp.ProcessContext(_started(start_method, calls), paths[:2])
    wait_ended(context.processes)
    (failure,) = impl.every_failure(context)

    assert impl.mp.ProcessRaisedException is type(failure)
    assert str(failure).startswith("\n\n-- Process 1 terminated with the following error:\nTraceback ")
    assert str(failure).endswith("\nValueError: no good\n")
    assert pickle.loads(Path(paths[1]).read_bytes()) in str(failure)
    assert ([0, 1], False) == ([process.exitcode for process in context.processes], Path(paths[0]).exists())
    _closed(context)


@pytest.mark.parametrize(("code", "expected"), [(3, 3), ("text", 1)])
def test_wrap_lets_exits_through(impl: Impl, paths: list[str], code: Any, expected: int) -> None:
    """`sys.exit` below `_wrap` is an exit code, without a report."""
    calls = [(impl.module._wrap, ranks.do, 0, (ranks.exit_with, code), paths[0])]
    context = impl.mp.ProcessContext(_started(QUICK, calls), paths[:1])
    (failure,) = impl.every_failure(context)

    assert (expected, False) == (failure.exit_code, Path(paths[0]).exists())
    _closed(context)


@posix_only
def test_others_are_terminated_after_failure(impl: Impl, paths: list[str]) -> None:
    """Plain processes are ended as ranks are."""
    gate = Gate(CONTEXT)
    calls = [(ranks.one_does_others_stay, i, 1, gate, ranks.exit_with, 3) for i in range(3)]
    context = impl.mp.ProcessContext(_started(QUICK, calls), paths)
    gate.wait_for(2)
    gate.let()
    failures = impl.every_failure(context)

    assert [-signal.SIGTERM, 3, -signal.SIGTERM] == [process.exitcode for process in context.processes]
    assert (1, {0, 2}) == (failures[0].error_index, {failure.error_index for failure in failures[1:]})
    _closed(context)


def test_join_of_context_by_hand_returns_as_any(impl: Impl, paths: list[str]) -> None:
    """False after one end, polls, True at the end."""
    gates = [Gate(CONTEXT) for _ in range(2)]
    context = impl.mp.ProcessContext(
        _started(QUICK, [(ranks.wait_at_own, i, gates) for i in range(2)]), paths[:2]
    )
    for gate in gates:
        gate.wait_for()
    answers = [context.join(0), context.join(-1)]
    gates[1].let()
    answers.append(context.join())

    assert [False, False, False] == answers
    assert [0] == list(context.sentinels.values())
    gates[0].let()
    assert [True, True] == [context.join(), context.join()]
    _closed(context)


@pytest.mark.parametrize(
    "ask",
    [
        lambda process: process.join(),
        lambda process: process.exitcode,
        lambda process: multiprocessing.active_children(),  # noqa: ARG005
    ],
    ids=["join", "exitcode", "active_children"],
)
def test_process_that_was_reaped_before_is_joined(
    impl: Impl, paths: list[str], ask: Callable[[Any], Any]
) -> None:
    """A process whose end the caller has seen already is told of as well."""
    (process,) = _started(QUICK, [(ranks.exit_with, 3)])
    wait_ended([process])
    ask(process)
    context = impl.mp.ProcessContext([process], paths[:1])
    (failure,) = impl.every_failure(context)

    assert "process 0 terminated with exit code 3" == str(failure)
    _closed(context)


class Odd:
    """A Process-like object of another library: it tells what is called, and knows its exit code by `join` alone."""

    def __init__(self, process: Any) -> None:
        """Stand before a process."""
        self._process = process
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Pass everything on."""
        self.called.add(name)
        if name == "exitcode" and "join" not in self.called:
            return None
        return getattr(self._process, name)


def test_context_uses_the_methods_of_its_processes(impl: Impl, paths: list[str]) -> None:
    """A context asks the objects that it was given, whatever their class."""
    processes = [Odd(process) for process in _started(QUICK, [(ranks.pass_by,), (ranks.exit_with, 3)])]
    context = impl.mp.ProcessContext(processes, paths[:2])
    (failure,) = impl.every_failure(context)

    assert ("process 1 terminated with exit code 3", processes[1].pid) == (str(failure), failure.error_pid)
    assert {"sentinel", "join", "exitcode"} <= processes[0].called & processes[1].called
    _closed(context)


@posix_only
def test_teardown_uses_the_methods_of_its_processes(impl: Impl, paths: list[str]) -> None:
    """A library's own `terminate` and `kill` are called."""
    gate = Gate(CONTEXT)
    calls = [(ranks.one_does_others_ignore_sigterm, i, 1, gate, ranks.exit_with, 3) for i in range(2)]
    processes = [Odd(process) for process in _started(QUICK, calls)]
    context = impl.mp.ProcessContext(processes, paths[:2])
    gate.wait_for()
    gate.let()
    failures = impl.every_failure(context, grace_period=0)

    assert [1, 0] == [failure.error_index for failure in failures]
    assert {"is_alive", "terminate", "kill"} <= processes[0].called
    _closed(context)


def test_shared_timeout_is_for_all_processes_together(impl: Impl, paths: list[str]) -> None:
    """`_join_procs_with_timeout` works on plain processes as well."""
    gate = Gate(CONTEXT)
    context = impl.mp.ProcessContext(_started(QUICK, [(ranks.wait_at, i, gate) for i in range(3)]), paths)
    gate.wait_for(3)
    start = time.monotonic()
    context._join_procs_with_timeout(0.2)

    assert 0.19 <= time.monotonic() - start < 0.59
    gate.let(3)
    context._join_procs_with_timeout(LONG_S)
    assert [0, 0, 0] == [process.exitcode for process in context.processes]
    assert context.join() is True
    _closed(context)

"""How a rank may fail, what `join` raises for it to the letter, and what happens to the other ranks."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
import traceback
from typing import Any

import pytest

from tests import ranks
from tests.ranks import Gate
from tests.support import LONG_S, QUICK, Impl, finish, linux_only, posix_only, wait_ended

CONTEXT = multiprocessing.get_context(QUICK)
# Signals that stop or continue a process, or that nobody minds.
HARMLESS = {
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGWINCH",
    "SIGINFO",
}
DEADLY = [member for member in signal.Signals if member.name not in HARMLESS]
UNKNOWN = sorted(set(map(int, signal.valid_signals())) - set(map(int, signal.Signals)))[:1]


def _failure_of(
    impl: Impl, how: Any, *args: Any, which: int = 1, nprocs: int = 2, **options: Any
) -> tuple[Any, Any]:
    """Let one rank end in a way; return its context and what `join` raised."""
    context = impl.start(ranks.one_does, (which, how, *args), nprocs, **options)
    wait_ended(context.processes)
    with pytest.raises(impl.module.ProcessException) as caught:
        finish(context)
    return context, caught.value


def _start_with_one_to_fail(
    impl: Impl, others: Any, nprocs: int = 3, how: Any = ranks.exit_with, arg: Any = 3
) -> Any:
    """Start ranks of which rank 1 fails once all others are there."""
    gate = Gate(CONTEXT)
    context = impl.start(others, (1, gate, how, arg), nprocs)
    gate.wait_for(nprocs - 1)
    gate.let()
    return context


def _exit_codes(context: Any) -> list[int]:
    """How each rank ended."""
    return [process.exitcode for process in context.processes]


def _warnings(impl: Impl, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the implementation's logger warned of."""
    return [record.getMessage() for record in caplog.records if record.name == impl.logger]


# A rank that raises


def _traceback_of_users(function: Any, *args: Any) -> str:
    """What Python says of an exception below a function, from the first frame of its own on."""
    try:
        function(*args)
    except Exception:  # noqa: BLE001
        text = traceback.format_exc()
    return text[text.index(f'  File "{function.__code__.co_filename}"') :]


@pytest.mark.torch_spawn
def test_rank_that_raised_is_told_with_its_traceback(impl: Impl, start_method: str) -> None:
    """The text is the reference's head, the traceback down to the user's line, and the exception."""
    context, failure = _failure_of(impl, ranks.raise_value_error, "no good", start_method=start_method)
    text = str(failure)

    assert impl.mp.ProcessRaisedException is type(failure)
    assert text.startswith(
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File "
    )
    assert text.endswith(_traceback_of_users(ranks.one_does, 1, 1, ranks.raise_value_error, "no good"))
    assert (text, 1, context.pids()[1]) == failure.__reduce__()[1]


def test_rank_that_raised_is_told_without_frames_of_multiprocessing(impl: Impl) -> None:
    """Nothing but the user's frames, below the reference's own one."""
    _, failure = _failure_of(impl, ranks.raise_value_error, "no good")
    frames = [line.rpartition(" in ")[2] for line in str(failure).splitlines() if line.startswith("  File ")]

    assert [*impl.differs(torch=["_wrap"], spawnx=[]), "one_does", "raise_value_error"] == frames


def test_rank_that_raised_ends_with_exit_code_1(impl: Impl, start_method: str) -> None:
    """The Process object of a rank that raised says exit code 1."""
    context, _ = _failure_of(impl, ranks.raise_value_error, "no good", start_method=start_method)

    assert [0, 1] == _exit_codes(context)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (
            ranks.raise_chained,
            ["KeyError: 'cause'", "direct cause of the following exception", "ValueError: x"],
        ),
        (ranks.raise_unpicklable, ["tests.ranks.endings.UnpicklableError: x"]),
        (ranks.raise_silent, ["tests.ranks.endings.SilentError: <exception str() failed>"]),
        (ranks.recurse, ["[Previous line repeated", "RecursionError: maximum recursion depth exceeded"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_awkward_exception_is_told(impl: Impl, how: Any, expected: list[str]) -> None:
    """Only text travels, so every exception arrives: with its cause, unpicklable, without a text, of any depth."""
    _, failure = _failure_of(impl, how, "x")

    assert expected == [text for text in expected if text in str(failure)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Umlaut: ü, 漢字, 🙂",
        "lone surrogate: \udcff",
        "nul: \0, bell: \a",
        "line one\nline two\n",
        "%s %d {0}",
        "x" * 5_000_000,
    ],
    ids=["empty", "unicode", "surrogate", "control", "lines", "format", "5 MB"],
)
def test_text_of_exception_arrives_to_the_letter(impl: Impl, text: str) -> None:
    """No encoding, no length and no character changes a text on its way."""
    _, failure = _failure_of(impl, ranks.raise_value_error, text)

    assert str(failure).endswith(f"\nValueError: {text}\n" if text else "\nValueError\n")


# A rank that exits


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ((ranks.exit_with, 3), 3),
        ((ranks.exit_with, 300), 44),
        ((ranks.exit_with, -1), 255),
        ((ranks.exit_with, True), 1),
        ((ranks.exit_with, "text"), 1),
        ((ranks.exit_with, ""), 1),
        ((ranks.exit_with, 2.5), 1),
        ((ranks.exit_with, 0.0), 1),
        ((ranks.exit_with, (1, 2)), 1),
        ((ranks.exit_at_once, 7), 7),
        ((ranks.raise_base_exception, "GeneratorExit"), 1),
        ((ranks.raise_base_exception, "OwnBaseError"), 1),
    ],
    ids=lambda value: f"{value[0].__name__}-{value[1]!r}" if isinstance(value, tuple) else "",
)
@posix_only
def test_rank_that_exited_is_told_with_its_exit_code(impl: Impl, how: tuple[Any, ...], expected: int) -> None:
    """What `sys.exit` is given becomes an exit code as in the reference; other BaseExceptions are 1, unreported."""
    context, failure = _failure_of(impl, *how)
    text = f"process 1 terminated with exit code {expected}"

    assert impl.mp.ProcessExitedException is type(failure)
    assert (text, 1, context.pids()[1], expected, None) == failure.__reduce__()[1]
    assert [0, expected] == _exit_codes(context)


@pytest.mark.parametrize(
    "how",
    [
        (ranks.exit_with, None),
        (ranks.exit_with, 0),
        (ranks.exit_with, False),
        (ranks.exit_with, 256),
        (ranks.exit_at_once, 0),
    ],
    ids=lambda how: f"{how[0].__name__}-{how[1]!r}",
)
@posix_only
def test_rank_that_exited_with_zero_ended_well(impl: Impl, how: tuple[Any, ...]) -> None:
    """Whatever makes exit code 0 is a success, 256 included."""
    context = impl.start(ranks.do, how)
    finish(context)

    assert [0] == _exit_codes(context)


@pytest.mark.parametrize("code", [3, "text"])
def test_exit_code_does_not_depend_on_start_method(impl: Impl, start_method: str, code: Any) -> None:
    """`sys.exit` means the same in each kind of rank."""
    _, failure = _failure_of(impl, ranks.exit_with, code, which=0, nprocs=1, start_method=start_method)

    assert f"process 0 terminated with exit code {1 if code == 'text' else code}" == str(failure)


@pytest.mark.parametrize("code", ["a text", 2.5])
def test_text_of_exit_goes_to_stderr(impl: Impl, capfd: pytest.CaptureFixture[str], code: Any) -> None:
    """`sys.exit("text")` prints the text, as it does in a program."""
    _failure_of(impl, ranks.exit_with, code)

    assert [str(code)] == capfd.readouterr().err.splitlines()


def test_other_base_exception_goes_to_stderr(impl: Impl, capfd: pytest.CaptureFixture[str]) -> None:
    """What isn't reported is at least printed, as in every process of multiprocessing."""
    _failure_of(impl, ranks.raise_base_exception, "OwnBaseError")

    assert "tests.ranks.endings.OwnBaseError: base" == capfd.readouterr().err.splitlines()[-1]


# A rank that dies by a signal


@pytest.mark.parametrize("member", DEADLY, ids=lambda member: member.name)
@posix_only
def test_rank_that_died_by_signal_is_told_with_its_name(impl: Impl, member: signal.Signals) -> None:
    """Each signal is named; `exit_code` is its negative number."""
    context, failure = _failure_of(impl, ranks.die_by, int(member))
    text = f"process 1 terminated with signal {member.name}"

    assert impl.mp.ProcessExitedException is type(failure)
    assert (text, 1, context.pids()[1], -member, member.name) == failure.__reduce__()[1]
    assert [0, -member] == _exit_codes(context)


@pytest.mark.parametrize("signum", UNKNOWN)
def test_rank_that_died_by_signal_without_name_is_told_with_its_number(impl: Impl, signum: int) -> None:
    """A real-time signal has no name."""
    context, failure = _failure_of(impl, ranks.die_by, signum)
    name = f"<Unknown signal {signum}>"

    assert (
        f"process 1 terminated with signal {name}",
        1,
        context.pids()[1],
        -signum,
        name,
    ) == failure.__reduce__()[1]


@posix_only
@pytest.mark.torch_spawn
def test_death_by_signal_does_not_depend_on_start_method(impl: Impl, start_method: str) -> None:
    """A signal's name arrives from each kind of rank."""
    _, failure = _failure_of(impl, ranks.die_by, signal.SIGKILL, which=0, nprocs=1, start_method=start_method)

    assert "process 0 terminated with signal SIGKILL" == str(failure)


@pytest.mark.parametrize(("way", "name"), [("terminate", "SIGTERM"), ("kill", "SIGKILL")])
@posix_only
def test_rank_ended_by_caller_has_failed(impl: Impl, way: str, name: str) -> None:
    """A rank that the caller terminated or killed is a failure like any other."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    gate.wait_for()
    getattr(context.processes[0], way)()

    assert [f"process 0 terminated with signal {name}"] == list(map(str, impl.every_failure(context)))


# What happens to the others


@posix_only
@pytest.mark.torch_spawn
def test_others_are_terminated_after_failure(impl: Impl, start_method: str) -> None:
    """When one rank fails, all others get SIGTERM, and have ended when `join` raises."""
    gate = Gate(multiprocessing.get_context(start_method))
    context = impl.start(ranks.one_does_others_stay, (1, gate, ranks.exit_with, 3), 3, start_method)
    gate.wait_for(2)
    gate.let()
    with pytest.raises(impl.module.ProcessExitedException):
        finish(context)

    assert [-signal.SIGTERM, 3, -signal.SIGTERM] == _exit_codes(context)
    impl.every_failure(context)


@posix_only
def test_others_are_terminated_after_one_raised(impl: Impl) -> None:
    """It makes no difference that the failing rank left a report."""
    context = _start_with_one_to_fail(impl, ranks.one_does_others_stay, 3, ranks.raise_value_error, "x")
    failures = impl.every_failure(context)

    assert ["ProcessRaisedException", "ProcessExitedException", "ProcessExitedException"] == [
        type(failure).__name__ for failure in failures
    ]
    assert 1 == failures[0].error_index
    assert [-signal.SIGTERM, 1, -signal.SIGTERM] == _exit_codes(context)


@posix_only
@pytest.mark.parametrize("grace_period", [0, 0.2])
def test_others_that_ignore_sigterm_are_killed_after_grace_period(impl: Impl, grace_period: float) -> None:
    """A rank that survives SIGTERM for the grace period gets SIGKILL; 0 means at once."""
    context = _start_with_one_to_fail(impl, ranks.one_does_others_ignore_sigterm)
    start = time.monotonic()
    failures = impl.every_failure(context, grace_period=grace_period)
    took = time.monotonic() - start

    assert "process 1 terminated with exit code 3" == str(failures[0])
    assert {"process 0 terminated with signal SIGKILL", "process 2 terminated with signal SIGKILL"} == set(
        map(str, failures[1:])
    )
    assert [-signal.SIGKILL, 3, -signal.SIGKILL] == _exit_codes(context)
    # Once for the others to end by themselves, once for SIGTERM to do its work; all ranks share this time.
    assert 2 * grace_period - 0.05 <= took < 2 * grace_period + 10


@linux_only
def test_others_that_end_within_grace_period_are_not_terminated(
    impl: Impl, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranks that stop by themselves when another one is gone are let finish, and nothing is logged."""
    gate = Gate(CONTEXT)
    queue = CONTEXT.SimpleQueue()
    context = impl.start(ranks.first_raises_then_others_end, (gate, queue), 2)
    gate.wait_for()
    gate.let()
    with caplog.at_level(logging.WARNING):
        failures = impl.every_failure(context, grace_period=LONG_S)

    assert [0] == [failure.error_index for failure in failures]
    assert [1, 0] == _exit_codes(context)
    assert [] == _warnings(impl, caplog)
    queue.close()


@posix_only
def test_each_terminated_rank_is_logged(impl: Impl, caplog: pytest.LogCaptureFixture) -> None:
    """Each rank that gets SIGTERM is a WARNING with its pid; the failed one isn't."""
    with caplog.at_level(logging.WARNING):
        context = _start_with_one_to_fail(impl, ranks.one_does_others_stay)
        impl.every_failure(context)
    pids = context.pids()

    assert [
        (impl.logger, logging.WARNING, f"Terminating process {pids[0]} via signal SIGTERM"),
        (impl.logger, logging.WARNING, f"Terminating process {pids[2]} via signal SIGTERM"),
    ] == caplog.record_tuples


@posix_only
def test_each_killed_rank_is_logged(impl: Impl, caplog: pytest.LogCaptureFixture) -> None:
    """Each rank that gets SIGKILL is one more WARNING, after all of those for SIGTERM."""
    with caplog.at_level(logging.WARNING):
        context = _start_with_one_to_fail(impl, ranks.one_does_others_ignore_sigterm)
        impl.every_failure(context, grace_period=0)
    pids = context.pids()

    assert [
        f"Terminating process {pids[0]} via signal SIGTERM",
        f"Terminating process {pids[2]} via signal SIGTERM",
        f"Unable to shutdown process {pids[0]} via SIGTERM , forcefully exiting via SIGKILL",
        f"Unable to shutdown process {pids[2]} via SIGTERM , forcefully exiting via SIGKILL",
    ] == _warnings(impl, caplog)


@posix_only
def test_eight_terminated_ranks_are_logged_one_by_one(impl: Impl, caplog: pytest.LogCaptureFixture) -> None:
    """Up to 8 terminated ranks are told one by one; for more see `test_differences.py`."""
    with caplog.at_level(logging.WARNING):
        context = _start_with_one_to_fail(impl, ranks.one_does_others_stay, 9)
        impl.every_failure(context)
    pids = context.pids()

    assert [f"Terminating process {pid} via signal SIGTERM" for pid in [pids[0], *pids[2:]]] == _warnings(
        impl, caplog
    )


def test_failure_without_others_logs_nothing(impl: Impl, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody is terminated, nobody is warned."""
    with caplog.at_level(logging.WARNING):
        _failure_of(impl, ranks.raise_value_error, "x")

    assert [] == _warnings(impl, caplog)


def test_timeout_of_join_does_not_cut_the_teardown_short(impl: Impl) -> None:
    """A `join` with a timeout, once it has seen a failure, ends all ranks before it raises."""
    context = _start_with_one_to_fail(impl, ranks.one_does_others_stay)
    wait_ended(context.processes[1:2])
    with pytest.raises(impl.module.ProcessExitedException):
        context.join(timeout=0)

    assert [False] * 3 == [process.is_alive() for process in context.processes]
    impl.every_failure(context)


def test_joining_call_raises_what_join_raises(impl: Impl, start_method: str) -> None:
    """`start_processes(..., join=True)` raises the failure itself."""
    with pytest.raises(impl.mp.ProcessExitedException, match=r"^process 0 terminated with exit code 3$"):
        impl.mp.start_processes(ranks.do, (ranks.exit_with, 3), start_method=start_method)


def test_failure_has_no_context_of_ours(impl: Impl) -> None:
    """The exception stands alone: no "during handling of" above the user's traceback."""
    _, failure = _failure_of(impl, ranks.raise_value_error, "x")

    assert (None, None) == (failure.__cause__, failure.__context__)


@pytest.mark.parametrize("code", [3, "text"])
def test_exit_in_thread_of_rank_is_none_of_the_rank(impl: Impl, code: Any) -> None:
    """A thread that fails in a rank doesn't make the rank fail."""
    context = impl.start(ranks.fail_in_thread, (ranks.exit_with, code))
    finish(context)

    assert [0] == _exit_codes(context)


if sys.platform == "win32":
    DEADLY.clear()

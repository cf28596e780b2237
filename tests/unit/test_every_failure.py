"""What spawnx tells beyond the reference: every failure, when it happens, with its stage and stack; and a time limit.

The reference has none of it: these tests run on each way in which spawnx starts ranks.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import spawnx
from spawnx import backends
from spawnx.failure import Failure
from spawnx.failures import postmortem, stacks, teardown, text
from spawnx.ipc import scoreboard
from tests import ranks
from tests.campaigns import failures
from tests.ranks import Gate
from tests.support import (
    HAS_PIDFD,
    LONG_S,
    Impl,
    Program,
    finish,
    forkserver_imports_main,
    linux_only,
    wait_ended,
)

pytestmark = linux_only

FATAL = [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL]


@dataclass(frozen=True)
class Way:
    """One way in which ranks come into being."""

    backend: str
    launcher: str
    method: str

    def start(
        self, fn: Callable[..., object], args: tuple[Any, ...] = (), nprocs: int = 1, **options: Any
    ) -> Any:
        """Start ranks and return their context, by which they came as they should."""
        context: Any = spawnx.start_processes(
            fn, args, nprocs, join=False, start_method=self.method, **options
        )
        assert context.launcher == self.launcher
        return context

    def gate(self) -> Gate:
        """A gate for ranks of this way."""
        return Gate(multiprocessing.get_context(self.method))


WAYS = [
    *(Way(name, "fork" if HAS_PIDFD else "stdlib", "fork") for name in backends.available()),
    *(Way(name, "exec", "spawn") for name in backends.available() if HAS_PIDFD),
    Way("python", "stdlib", "spawn"),
    Way("python", "stdlib", "forkserver"),
    *([Way("native", "clone", "spawn")] if "native" in backends.available() else []),
]


def _id(way: object) -> str:
    return f"{way.backend}-{way.launcher}-{way.method}" if isinstance(way, Way) else ""


FRESH = pytest.mark.parametrize("way", [way for way in WAYS if way.method != "fork"], indirect=True, ids=_id)
# Their interpreters start with the call.
OWN = pytest.mark.parametrize("way", [way for way in WAYS if way.method == "spawn"], indirect=True, ids=_id)
# The forkserver's standard error is that of the test which has started it.
NOT_FORKSERVER = pytest.mark.parametrize(
    "way", [way for way in WAYS if way.method != "forkserver"], indirect=True, ids=_id
)


@pytest.fixture(params=WAYS, ids=_id)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Each way, in use."""
    chosen: Way = request.param
    monkeypatch.setenv("SPAWNX_BACKEND", chosen.backend)
    if chosen.method != "fork":
        monkeypatch.setenv("SPAWNX_LAUNCHER", chosen.launcher)
    return chosen


def failure_of(context: Any, **options: Any) -> Any:
    """What `join` raises; without its traceback, whose frames hold the processes."""
    try:
        while not context.join(LONG_S, **options):
            pass
    except spawnx.ProcessException as error:
        return error.with_traceback(None)
    pytest.fail("no rank has failed")


def notes_of(error: BaseException) -> str:
    """What is told beside the message; nothing before CPython 3.11."""
    return "\n".join(getattr(error, "__notes__", ()))


has_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since CPython 3.11")


# Known when it happens


@pytest.mark.parametrize("stay", [ranks.raise_but_stay, ranks.raise_but_stay_at_exit])
def test_rank_that_hangs_after_it_raised_is_told_when_it_raises(way: Way, stay: Callable[..., None]) -> None:
    """After the half second in which it may end by itself, not after the 60 s of its finalizer."""
    context = way.start(ranks.one_does_others_wait, (0, stay, "no good"), 3)
    error = failure_of(context)
    took = time.monotonic() - context._post_mortem._began - error.failures[0].seconds

    assert str(error).endswith("\nValueError: no good\n")
    assert 0 == error.error_index
    assert teardown.SPARED <= took < 5  # 0.6 on a machine that has nothing else to do


def test_rank_that_raised_ends_by_itself_if_it_is_quick(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is spared SIGTERM, so that its exit code is its own, and its finalizers run."""
    monkeypatch.setattr(teardown, "SPARED", LONG_S)  # quick enough on any machine
    gate = way.gate()
    queue = multiprocessing.get_context(way.method).SimpleQueue()
    context = way.start(ranks.raise_and_finish, (0, gate, queue), 2)
    gate.wait_for(1)
    gate.let()
    error = failure_of(context)

    assert [1, -signal.SIGTERM] == [process.exitcode for process in context.processes]
    assert [1, -signal.SIGTERM] == [failure.exit_code for failure in error.failures]
    assert "finished" == queue.get()
    queue.close()


def test_ranks_that_raise_at_once_are_all_told_with_their_tracebacks(way: Way) -> None:
    """Who is about to report is let do it: nobody's traceback is lost to our SIGTERM."""
    gate = way.gate()
    context = way.start(ranks.raise_what_waits_when_told, (gate,), 4)
    gate.wait_for(4)
    gate.let(4)
    error = failure_of(context)

    assert ["tests.ranks.endings.WaitsWhenToldError"] * 4 == [failure.type_name for failure in error.failures]
    assert [False] * 4 == [failure.signalled for failure in error.failures]


def test_ranks_that_can_not_be_ended_are_told_and_left(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those in state D: they are named, also the one that has raised, and later calls wait for them."""
    monkeypatch.setattr(teardown, "LAST_WAIT", 0.1)
    context = way.start(ranks.one_does_others_wait, (0, ranks.raise_but_stay, "no good"), 3)
    unkillable = context.processes[::2]
    with monkeypatch.context() as patch:
        for process in unkillable:
            patch.setattr(process, "terminate", lambda: None)
            patch.setattr(process, "kill", lambda: None)
        errors = [failure_of(context, grace_period=0), failure_of(context, grace_period=0)]
        began = time.monotonic()
        before = [context.join(0.05) for _ in range(2)]
        took = time.monotonic() - began
        end_for_good(unkillable[1])
        errors.append(failure_of(context, grace_period=0))
    end_for_good(unkillable[0])
    while not context.join(LONG_S):
        pass

    assert str(errors[0]).endswith(
        "\nValueError: no good\n\n(not ended 0.1 s after SIGKILL, and left to the system: process 0, 2)"
    )
    assert (None, None) == (errors[0].failures[0].exit_code, errors[0].failures[0].signal_name)
    assert [0, 1, 2] == [error.error_index for error in errors]
    assert [False, False] == before
    assert took >= 0.1  # it has waited, not looked
    assert {} == context.sentinels


def end_for_good(process: Any) -> None:
    """Kill a process whose methods don't."""
    os.kill(process.pid, signal.SIGKILL)
    wait_ended([process])


# The cause before its consequences


def test_consequence_waits_for_its_cause(way: Way) -> None:
    """A reset connection is known first; the rank that has caused it raises when that one is dead."""
    queue = multiprocessing.get_context(way.method).SimpleQueue()
    hows = (ranks.raise_connection_reset,), (ranks.raise_value_error, "cause")
    error = failure_of(way.start(ranks.end_one_after_the_other, (0, queue, *hows), 2))

    assert [(1, "ValueError"), (0, "ConnectionResetError")] == [
        (failure.rank, failure.type_name) for failure in error.failures
    ]
    queue.close()


def test_consequence_without_a_cause_is_raised_after_a_second(way: Way) -> None:
    """The others live, and are ended for it."""
    began = time.monotonic()
    error = failure_of(way.start(ranks.one_does_others_wait, (1, ranks.raise_connection_reset), 3))

    assert 1 == error.error_index
    assert 1 <= time.monotonic() - began - error.failures[0].seconds + 0.1 < 5


# All failures


def test_every_failure_has_all_that_is_known(way: Way) -> None:
    """Ranks that raise, exit and are killed, in that order."""
    gates = [way.gate() for _ in range(4)]
    hows = [
        (ranks.raise_value_error, "no good"),
        (ranks.exit_at_once, 7),
        (ranks.die_by, 9),
        (ranks.pass_by,),
    ]
    context = way.start(ranks.wait_at_own_then_do_own, (gates, hows), 4)
    for rank, gate in enumerate(gates):
        gate.wait_for()
        gate.let()
        wait_ended(context.processes[rank : rank + 1])
    error = failure_of(context)
    by_rank = {failure.rank: failure for failure in error.failures}

    assert {0, 1, 2} == set(by_rank)
    assert context.pids()[:3] == [by_rank[rank].pid for rank in range(3)]
    assert ["run"] * 3 == [by_rank[rank].stage for rank in range(3)]
    assert [1, 7, -9] == [by_rank[rank].exit_code for rank in range(3)]
    assert [None, None, "SIGKILL"] == [by_rank[rank].signal_name for rank in range(3)]
    assert ["ValueError", None, None] == [by_rank[rank].type_name for rank in range(3)]
    assert by_rank[0].traceback.endswith("\nValueError: no good\n")
    assert ["", ""] == [by_rank[rank].traceback for rank in (1, 2)]
    assert [False] * 3 == [failure.signalled for failure in error.failures]
    assert all(0 < failure.seconds < LONG_S for failure in error.failures)
    assert by_rank[0].peak_kib > 1000
    if way.backend == "native":
        assert by_rank[2].peak_kib > 1000


def test_failures_come_back_whole_from_a_pickle(way: Way) -> None:
    """With the notes."""
    error = failure_of(way.start(ranks.do, (ranks.raise_value_error, "no good"), 2))
    back = pickle.loads(pickle.dumps(error))

    assert error.failures == back.failures
    assert notes_of(error) == notes_of(back)
    assert str(error) == str(back)


def test_each_exception_of_a_context_has_all_failures(way: Way) -> None:
    """Whichever is kept; the first is the cause, and only that has notes."""
    context = way.start(ranks.do, (ranks.exit_with, 3), 3)
    errors = []
    while True:
        try:
            if context.join():
                break
        except spawnx.ProcessException as error:
            errors.append(error.with_traceback(None))

    assert [failure.rank for failure in errors[0].failures] == [error.error_index for error in errors]
    assert [errors[0].failures] * 3 == [error.failures for error in errors]
    assert ["", ""] == [notes_of(error) for error in errors[1:]]


@has_notes
def test_other_failures_are_a_table_beside_the_message(way: Way) -> None:
    """Each in a line, those that we have ended in one."""
    gate = way.gate()
    context = way.start(ranks.two_fail_others_stay, (gate, "no good"), 4)
    gate.wait_for(2)
    gate.let(2)
    error = failure_of(context, grace_period=1)
    other = error.failures[1]

    assert str(error).endswith("\nValueError: no good\n")
    assert f"process {other.rank} (pid {other.pid}), after " in notes_of(error)
    assert "exit code 1, at run: ValueError: no good" in notes_of(error)
    assert notes_of(error).endswith("and ended: 2 by signal SIGTERM")


def test_exception_of_the_callers_own_making_has_no_failures() -> None:
    """It is the reference's."""
    assert () == spawnx.ProcessExitedException("text", 1, 22, 3).failures


def test_failure_tells_itself_in_one_line() -> None:
    """For a log; two that say the same are equal."""
    one, other = (
        Failure(1, 22, "run", -9, "SIGKILL", 1.5, None, "", 1000, signalled=False) for _ in range(2)
    )

    assert "Failure(rank=1, pid=22, stage='run', ended='signal SIGKILL'" in repr(one)
    assert {one} == {other}


# Stages


def test_stage_is_that_in_which_the_rank_was(way: Way) -> None:
    """While it unpickles, runs, and after it has returned."""
    told = []
    for fn, args in [
        (ranks.do, (ranks.die_by, 9)),
        (ranks.register_at_exit, (ranks.die_by, 9)),
        *([(ranks.accept, (ranks.BreaksOnArrival(),))] if way.method != "fork" else []),
    ]:
        told.append(failure_of(way.start(fn, args)).failures[0].stage)

    assert ["run", "exit", "unpickle"][: len(told)] == told


def _said_by_forkserver(way: Way, done: subprocess.CompletedProcess[str], text: str) -> bool:
    """Whether it was multiprocessing's forkserver that has met the main module, and ended: no rank has come to be.

    Then the error names the module, and what has become of it is on the standard error. CPython 3.15's goes on where
    the module raises, and each rank meets it.
    """
    if (way.launcher, way.method) != ("stdlib", "forkserver") or not forkserver_imports_main():
        return False
    if "multiprocessing's forkserver has ended; its standard error says why" not in done.stderr:
        return False
    # Not the last line: the server may write its own after that.
    assert f"it may have been the import of {done.args[-1]}\n" in done.stderr
    assert text in done.stderr
    return True


@FRESH
def test_rank_that_dies_while_it_imports_main_says_so(way: Way, tmp_path: Path) -> None:
    """Killed, so that it can't report: the scoreboard has it."""
    done = Program(Impl(way.backend), tmp_path).run(
        f"""
        import os
        from tests import ranks

        if __name__ == "__main__":
            try:
                mp.start_processes(ranks.nothing, nprocs=2, start_method={way.method!r})
            except mp.ProcessExitedException as error:
                print(error.failures[0].stage, error.failures[0].signal_name)
        else:
            os.kill(os.getpid(), 9)
        """
    )

    assert _said_by_forkserver(way, done, "") or "import SIGKILL\n" == done.stdout, done.stderr


@FRESH
def test_main_that_raises_is_told_with_stage_and_traceback(way: Way, tmp_path: Path) -> None:
    """In each fresh interpreter."""
    done = Program(Impl(way.backend), tmp_path).run(
        f"""
        from tests import ranks

        if __name__ == "__main__":
            try:
                mp.start_processes(ranks.nothing, nprocs=2, start_method={way.method!r})
            except mp.ProcessRaisedException as error:
                print(error.failures[0].stage, error.failures[0].type_name)
                print(error.failures[0].traceback.splitlines()[-1])
        else:
            raise LookupError("in main")
        """
    )

    expected = "import LookupError\nLookupError: in main\n"
    assert _said_by_forkserver(way, done, "LookupError: in main") or expected == done.stdout, done.stderr


@pytest.mark.parametrize("backend", backends.available())
def test_interpreter_that_does_not_start_is_tried_again_and_quoted(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its standard error was ours, and is left to be that."""
    monkeypatch.setenv("SPAWNX_BACKEND", backend)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no codec for this >&2\nexit 7\n", encoding="utf-8")
    broken.chmod(0o755)
    before = multiprocessing.spawn.get_executable()  # type: ignore[attr-defined]
    multiprocessing.set_executable(str(broken))
    try:
        context = spawnx.spawn(ranks.nothing, (), 2, join=False)
        error = failure_of(context)
    finally:
        multiprocessing.set_executable(before)

    assert "process 0 terminated with exit code 7" == str(error)
    assert "boot" == error.failures[0].stage
    assert error.failures[0].remark.endswith(f"{broken} ends with exit code 7 and says:\nno codec for this")
    assert "no codec for this" in capfd.readouterr().err


# Fatal signals


def test_rank_that_crashed_is_told_with_its_stack(way: Way, without_faulthandler: None) -> None:
    """As faulthandler writes it; the message stays the reference's."""
    error = failure_of(way.start(ranks.one_does_others_wait, (1, ranks.crash), 2))
    stack = error.failures[0].traceback

    assert "process 1 terminated with signal SIGSEGV" == str(error)
    assert stack.startswith("Fatal Python error: Segmentation fault\n")
    assert f'File "{ranks.crash.__code__.co_filename}", line ' in stack
    assert " in crash\n" in stack
    assert sys.version_info < (3, 11) or stack.strip() in notes_of(error)


@pytest.mark.parametrize("signum", FATAL, ids=lambda signum: signum.name)
def test_each_fatal_signal_comes_with_a_stack(signum: signal.Signals, without_faulthandler: None) -> None:
    """Of the five."""
    context = spawnx.start_processes(
        ranks.do, (ranks.send_self, int(signum)), join=False, start_method="fork"
    )
    error = failure_of(context)

    assert f"process 0 terminated with signal {signum.name}" == str(error)
    assert " in send_self\n" in error.failures[0].traceback


def test_faulthandler_of_the_users_is_left_as_it_is(way: Way, tmp_path: Path) -> None:
    """Who enables it in a rank finds the stack where he wants it."""
    path = tmp_path / "stack"
    error = failure_of(way.start(ranks.enable_faulthandler_and_do, (str(path), ranks.send_self, 11)))

    assert "" == error.failures[0].traceback
    assert path.read_text(encoding="utf-8").startswith("Fatal Python error: Segmentation fault")


@OWN
def test_faulthandler_of_the_interpreters_is_left_as_it_is(
    way: Way, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """PYTHONFAULTHANDLER says stderr."""
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    error = failure_of(way.start(ranks.do, (ranks.send_self, 11)))

    assert "" == error.failures[0].traceback
    assert "Fatal Python error: Segmentation fault" in capfd.readouterr().err


@NOT_FORKSERVER
def test_crash_of_a_process_that_the_rank_forked_is_not_the_ranks(
    way: Way, capfd: pytest.CaptureFixture[str], without_faulthandler: None
) -> None:
    """Its stack goes to stderr, as that of any program does; the rank then dies of something else."""
    error = failure_of(way.start(ranks.crash_in_grandchild_and_do, (ranks.send_self, 6)))

    assert "Aborted" in error.failures[0].traceback
    assert "Segmentation" not in error.failures[0].traceback
    assert "Fatal Python error: Segmentation fault" in capfd.readouterr().err


def test_user_who_closes_all_files_keeps_what_he_opens_then(way: Way, tmp_path: Path) -> None:
    """A rank writes to its scoreboard only as long as that is what is behind the fd."""
    path = tmp_path / "mine"
    path.write_bytes(b"x" * 4096)
    error = failure_of(way.start(ranks.close_all_and_open, (str(path),)))

    assert 3 == error.failures[0].exit_code
    assert b"x" * 4096 == path.read_bytes()


def test_rank_that_closes_all_files_and_crashes_does_not_write_into_others(way: Way, tmp_path: Path) -> None:
    """What faulthandler writes to has a number that new files don't come to; its stack is lost with it."""
    error = failure_of(way.start(ranks.close_all_open_and_crash, (str(tmp_path),)))

    assert "process 0 terminated with signal SIGSEGV" == str(error)
    assert [b"precious"] * 20 == [path.read_bytes() for path in tmp_path.iterdir()]


def test_process_that_a_rank_forked_without_stderr_does_not_write_into_others(
    way: Way, tmp_path: Path, without_faulthandler: None
) -> None:
    """Its stack goes nowhere: the number of stderr is another file's."""
    context = way.start(ranks.crash_in_grandchild_without_stderr, (str(tmp_path / "mine"),))
    finish(context)

    assert b"precious" == (tmp_path / "mine").read_bytes()


def test_process_that_a_rank_forked_keeps_no_stderr_open(way: Way) -> None:
    """Who reads what a rank writes there comes to the end, also where a daemon stays."""
    context = way.start(ranks.leave_a_daemon_and_read_stderr)
    finish(context)

    assert [0] == [process.exitcode for process in context.processes]


# Hostile places


def test_rank_whose_folder_was_emptied_is_told_with_its_traceback(way: Way) -> None:
    """A cleaner of the temporary directory was there: the report is on the scoreboard."""
    how = ranks.empty_folder_and_raise, os.environ["TMPDIR"], "no good"
    error = failure_of(way.start(ranks.one_does_others_wait, (1, *how), 2))

    assert spawnx.ProcessRaisedException is type(error)
    assert str(error).endswith("\nValueError: no good\n")
    assert "ValueError" == error.failures[0].type_name


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up its rights")
def test_rank_that_has_given_up_root_is_told_with_its_traceback(way: Way, tmp_path: Path) -> None:
    """It may not enter the folder, and sees another root."""
    how = ranks.give_up_rights_and_raise, str(tmp_path), "no good"
    error = failure_of(way.start(ranks.do, how))

    assert spawnx.ProcessRaisedException is type(error)
    assert str(error).endswith("\nValueError: no good\n")


def test_folder_has_no_names_but_of_reports(way: Way) -> None:
    """A file system that has neither FIFOs nor room will do."""
    gate = way.gate()
    context = way.start(ranks.wait_at, (gate,), 2)
    gate.wait_for(2)
    found = [path.name for path in Path(os.environ["TMPDIR"]).glob("spawnx-*/*")]
    gate.let(2)
    finish(context)

    assert [] == found


# Hostile ranks


@pytest.mark.parametrize("data", [b"\xff" * 4096, b"\x05\1\1\1" + b"\x80" * 300], ids=["255", "text"])
@pytest.mark.parametrize("size", [4096, 130, 0])
def test_scoreboard_that_a_rank_has_written_over_is_read(way: Way, data: bytes, size: int) -> None:
    """How it ended is known all the same."""
    error = failure_of(way.start(ranks.write_over_board, (data, size)))

    assert 7 == error.exit_code


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", *ranks.EVIL_PICKLES])
def test_what_is_no_report_is_not_read(way: Way, kind: str) -> None:
    """Nothing is waited for, followed, unpickled or raised."""
    error = failure_of(way.start(ranks.leave_instead_of_report, (os.environ["TMPDIR"], kind)))

    assert (spawnx.ProcessExitedException, 7) == (type(error), error.exit_code)
    for path in Path(os.environ["TMPDIR"]).glob("spawnx-*"):  # with what is none of ours
        shutil.rmtree(path)


@pytest.mark.parametrize(("other", "number"), [(1, 0), (1, errno.ENOSPC), (1, 2**32 - 1), (7, errno.ENOSPC)])
def test_notice_that_names_another_rank_does_nothing(way: Way, other: int, number: int) -> None:
    """There is no report of it."""
    gate = way.gate()
    context = way.start(ranks.notify_of_another, (other, number, gate), 2)
    gate.wait_for(2)
    returned = context.join(timeout=0.2)
    gate.let(2)
    finish(context)

    assert [0, 0] == [process.exitcode for process in context.processes]
    assert returned is False


# Reports that can't be written


def test_rank_on_a_full_disk_is_told_by_its_headline(way: Way) -> None:
    """What it raised, why that is not all, and where the rest is."""
    how = ranks.raise_more_than_files_may_have, "no good, "
    error = failure_of(way.start(ranks.one_does_others_wait, (1, *how), 2))

    assert spawnx.ProcessRaisedException is type(error)
    assert 1 == error.error_index
    assert "ValueError" == error.failures[0].type_name
    assert "\nValueError: no good, no good, " in str(error)
    assert (
        f"on the standard error of the rank, as its report could not be written: {os.strerror(errno.EFBIG)}"
        in str(error)
    )


def test_rank_that_is_killed_while_it_reports_is_told_as_that(way: Way) -> None:
    """It had raised; what, nobody knows."""
    error = failure_of(way.start(ranks.do, (ranks.raise_what_kills_when_told,)))

    assert "process 0 terminated with signal SIGKILL" == str(error)
    assert "ended before its report was whole" in error.failures[0].remark
    assert sys.version_info < (3, 11) or "ended before its report was whole" in notes_of(error)


# Who has killed


@pytest.mark.parametrize(("kills", "said"), [(1, True), (0, False), (None, False)])
def test_rank_that_was_killed_for_want_of_memory_is_told_with_evidence_only(
    kills: int | None, said: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The count of the cgroup has risen since the start: it may have been this rank."""
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 2\noom_kill 2\noom_group_kill 0\n", encoding="ascii")
    monkeypatch.setattr(postmortem, "_counters", lambda: [str(tmp_path / "none"), str(counter)])
    gate = Gate(multiprocessing.get_context("fork"))
    context: Any = spawnx.start_processes(ranks.wait_at, (gate,), join=False, start_method="fork")
    gate.wait_for()
    if kills is None:
        counter.unlink()
    else:
        counter.write_text(f"oom 2\noom_kill {2 + kills}\n", encoding="ascii")
    context.processes[0].kill()
    error = failure_of(context)

    assert said is ("memory ran out" in error.failures[0].remark)


def test_count_of_this_systems_cgroup_can_be_read() -> None:
    """Where the kernel tells it: a number that is not less the second time."""
    first, second = postmortem.oom_kills(), postmortem.oom_kills()

    assert (first is None) == (second is None)
    assert (first or 0) <= (second or 0)


# Waits


def test_grace_of_the_environment_is_given_before_sigterm(
    way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranks that end by themselves in it are not signalled."""
    monkeypatch.setenv("SPAWNX_GRACE", str(LONG_S))
    gate, queue = way.gate(), multiprocessing.get_context(way.method).SimpleQueue()
    context = way.start(ranks.first_raises_then_others_end, (gate, queue), 2)
    gate.wait_for()
    gate.let()
    with caplog.at_level(logging.WARNING):
        failure_of(context)

    assert [1, 0] == [process.exitcode for process in context.processes]
    assert [] == caplog.records
    queue.close()


def test_wait_before_sigkill_is_that_of_the_environment(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not 30 s."""
    monkeypatch.setenv("SPAWNX_KILL_AFTER", "0.2")
    gate = way.gate()
    context = way.start(ranks.one_does_others_ignore_sigterm, (0, gate, ranks.exit_with, 3), 2)
    gate.wait_for()
    gate.let()
    began = time.monotonic()
    error = failure_of(context)

    assert [3, -signal.SIGKILL] == [failure.exit_code for failure in error.failures]
    assert 0.15 < time.monotonic() - began < 10


def test_grace_period_of_join_comes_before_the_environment(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its waits."""
    monkeypatch.setenv("SPAWNX_GRACE", str(LONG_S))
    monkeypatch.setenv("SPAWNX_KILL_AFTER", str(LONG_S))
    gate = way.gate()
    context = way.start(ranks.one_does_others_ignore_sigterm, (0, gate, ranks.exit_with, 3), 2)
    gate.wait_for()
    gate.let()
    began = time.monotonic()
    failure_of(context, grace_period=0)

    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["SPAWNX_GRACE", "SPAWNX_KILL_AFTER", "SPAWNX_TIMEOUT"])
def test_wait_that_has_no_meaning_is_refused_before_any_rank(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it is needed: then it would stand in the way of a failure."""
    monkeypatch.setenv(name, "soon")
    with pytest.raises(ValueError, match=f"{name}='soon' is no time"):
        spawnx.spawn(ranks.nothing, (), 1)

    assert [] == multiprocessing.active_children()


# The time of the whole run


def test_ranks_that_take_too_long_are_named_with_their_stacks(way: Way) -> None:
    """Also one that is busy in C; those that have ended are not named."""
    gate = way.gate()
    context = way.start(ranks.one_ends_one_computes_others_stay, (gate,), 4, timeout=LONG_S)
    gate.wait_for(3)
    wait_ended(context.processes[:1])
    where = {1: " in compute_for_ever\n", 2: " in stay\n", 3: " in stay\n"}
    while not all(where[rank] in text for rank, text in context.dump_tracebacks().items() if rank in where):
        pass
    context._ends = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        context.join_all()
    error: Any = caught.value.with_traceback(None)

    assert spawnx.ProcessTimeoutError is type(error)
    assert str(error).startswith("3 of 4 processes have not ended within 60 s\n\n-- Process")
    assert {1, 2, 3} == set(error.tracebacks)
    assert " in compute_for_ever\n" in error.tracebacks[1]
    assert " in stay\n" in error.tracebacks[2]
    assert " in compute_for_ever\n" in str(error)
    assert 1 == str(error).count(" in stay\n")  # told once for both
    assert [False] * 4 == [process.is_alive() for process in context.processes]
    assert context.join() is True
    assert {} == context.sentinels


@pytest.mark.parametrize("address", ["0x{:x}", "0x{:X}"], ids=["CPython", "PyPy"])
def test_ranks_in_the_same_place_are_told_together_whatever_their_threads_are_called(address: str) -> None:
    """Each interpreter writes addresses in its way."""
    stacks_of = {
        rank: f'Thread {address.format(0x7FABCDEF0000 + rank)} (most recent call first):\n  File "a", line 1 in stay\n'
        for rank in range(2)
    }

    assert 1 == str(text.timeout_error(1, 2, stacks_of, [])).count(" in stay")


def test_time_counts_from_the_call(way: Way) -> None:
    """Whatever has been waited for since."""
    began = time.monotonic()
    context = way.start(ranks.stay_as_rank, (), 1, timeout=0.5)
    context.join(0)
    with pytest.raises(TimeoutError):
        context.join(LONG_S)

    assert 0.5 <= time.monotonic() - began < LONG_S


def test_time_of_the_environment_is_that_of_callers_who_say_none(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of no others."""
    monkeypatch.setenv("SPAWNX_TIMEOUT", "0.01")
    with pytest.raises(TimeoutError, match=r"^1 of 1 processes have not ended within 0\.01 s"):
        spawnx.start_processes(ranks.stay_as_rank, start_method=way.method)
    spawnx.start_processes(ranks.nothing, start_method=way.method, timeout=LONG_S)


def test_time_limit_survives_a_pickle() -> None:
    """With what it has found."""
    error = spawnx.ProcessTimeoutError("text", 2.5, {1: "stack"})
    back = pickle.loads(pickle.dumps(error))

    assert ("text", 2.5, {1: "stack"}) == (str(back), back.timeout, back.tracebacks)


def test_failure_comes_before_the_end_of_the_time(way: Way) -> None:
    """A rank that has failed is why the others have not ended."""
    context = way.start(ranks.one_does_others_wait, (0, ranks.exit_with, 3), 2, timeout=LONG_S)
    wait_ended(context.processes[:1])
    context._ends = time.monotonic()

    assert "process 0 terminated with exit code 3" == str(failure_of(context))


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), [1]])
def test_time_that_has_no_meaning_is_refused(timeout: Any) -> None:
    """Before any rank."""
    with pytest.raises(TypeError, match="timeout must be seconds"):
        spawnx.spawn(ranks.nothing, (), 1, timeout=timeout)

    assert [] == multiprocessing.active_children()


def test_stacks_of_ranks_that_go_on_can_be_asked_for_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is the latest, and nobody is harmed; a stopped rank has none, and says why."""
    gate = way.gate()
    context = way.start(ranks.wait_at, (gate,), 2)
    gate.wait_for(2)
    first, second = context.dump_tracebacks(), context.dump_tracebacks()
    os.kill(context.pids()[0], signal.SIGSTOP)
    monkeypatch.setattr(stacks, "_ANSWERS_WITHIN", 0.3)
    stopped = context.dump_tracebacks()
    os.kill(context.pids()[0], signal.SIGCONT)
    gate.let(2)
    while not context.join(LONG_S):
        pass

    assert [{0, 1}] * 3 == [set(one) for one in (first, second, stopped)]
    assert all(one[rank].count(" in pass_through\n") == 1 for one in (first, second) for rank in (0, 1))
    assert "(no stack: it has not answered within 0.3 s; is it stopped?)\n" == stopped[0]
    assert {} == context.dump_tracebacks()


def test_stacks_of_processes_by_hand_are_not_known() -> None:
    """They have no scoreboard, and are not signalled."""
    gate = Gate(multiprocessing.get_context("fork"))
    process = multiprocessing.get_context("fork").Process(target=gate.pass_through)
    process.start()
    context = spawnx.ProcessContext([process], ["/nowhere"])
    gate.wait_for()
    told = context.dump_tracebacks()
    gate.let()
    while not context.join():
        pass
    process.close()

    assert {0: "(no stack: the rank is still booting, or can't receive the signal)\n"} == told


def test_signal_that_asks_for_stacks_is_ignored_by_who_has_not_registered_for_it() -> None:
    """So that a rank which runs another program by now comes to no harm."""
    assert signal.SIG_DFL == signal.getsignal(scoreboard.ASK)
    os.kill(os.getpid(), scoreboard.ASK)


def test_signal_that_the_user_handles_is_left_to_him(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked rank inherits his handler, and has no stacks to tell."""
    before = signal.signal(scoreboard.ASK, lambda *_: None)
    gate = Gate(multiprocessing.get_context("fork"))
    try:
        context: Any = spawnx.start_processes(ranks.wait_at, (gate,), join=False, start_method="fork")
        gate.wait_for()
        told = context.dump_tracebacks()
    finally:
        signal.signal(scoreboard.ASK, before)
    gate.let()
    while not context.join():
        pass

    assert {0: "(no stack: the rank is still booting, or can't receive the signal)\n"} == told


# All of it


@pytest.mark.parametrize(
    ("how", "seen_after", "expected"), [("exit 3", 0.1, {0}), ("exit 3", 0.4, {0, 1}), ("raise", 0.4, {0})]
)
def test_campaign_expects_an_exit_by_when_it_was_seen(
    how: str, seen_after: float, expected: set[int]
) -> None:
    """A rank notes it 0.6 s before another one is killed; on a busy machine it ends a moment before that."""
    told = {
        "began": 10.0,
        "notes": [{"rank": 0, "how": how, "time": 20.0}, {"rank": 1, "how": "killed", "time": 20.6}],
        "failures": [
            {"rank": 0, "seconds": 10.0 + seen_after, "type_name": None if how == "exit 3" else "ValueError"},
            {"rank": 1, "seconds": 10.65, "type_name": None},
        ],
    }

    assert expected == failures.may_be_told(told)


def test_campaign_of_random_failures_tells_every_cause_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The short form of `python -m tests.campaigns.failures`."""
    seed = secrets.randbelow(2**32)
    good = failures.campaign(30, seed, 3)

    assert good, f"seed {seed}:\n{capsys.readouterr().out}"

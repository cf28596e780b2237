"""The texts of failures: the reference's words, and the notes beside them."""

from __future__ import annotations

import logging
import signal
import sys

import pytest

from spawnx.errors import ProcessExitedException, ProcessRaisedException
from spawnx.failure import Failure
from spawnx.failures import text as texts
from spawnx.ipc.report import Report
from spawnx.watch.ended import Ended

TERM, KILL = signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)
needs_notes = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="exceptions have notes since CPython 3.11"
)


def failure(rank: int, **fields: object) -> Failure:
    """Return a rank that raised, but for what is given."""
    given = {
        "pid": 100 + rank,
        "stage": "run",
        "exit_code": 1,
        "signal_name": None,
        "seconds": 0.5,
        "type_name": "ValueError",
        "traceback": f"Traceback (most recent call last):\n  File\nValueError: of {rank}\n",
        "peak_kib": None,
        "signalled": False,
        **fields,
    }
    return Failure(rank, **given)  # type: ignore[arg-type]


def notes_of(*failures: Failure) -> list[str]:
    """Return the notes that an exception gets."""
    error = RuntimeError()
    texts.add_notes(error, failures)
    return list(getattr(error, "__notes__", []))


def test_rank_that_raised_is_named_with_its_traceback() -> None:
    """As the reference's message has it."""
    error = texts.exception_of(Ended(3, 7, 1, report=Report("Traceback…")), [])

    assert ProcessRaisedException is type(error)
    assert "\n\n-- Process 3 terminated with the following error:\nTraceback…" == str(error)
    assert (3, 7) == (error.error_index, error.error_pid)


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(3, 7, 5), "process 3 terminated with exit code 5"),
        (Ended(3, 7, -TERM), "process 3 terminated with signal SIGTERM"),
        (Ended(3, 7, -60), "process 3 terminated with signal <Unknown signal 60>"),
        (
            Ended(3, 7, 255, status_lost=True),
            "process 3 ended, but another reaper took its exit status (is SIGCHLD ignored?)",
        ),
    ],
    ids=["exit code", "signal", "unknown signal", "lost"],
)
def test_rank_that_ended_is_named_with_how(ended: Ended, expected: str) -> None:
    """As the reference's message has it; what nobody knows is said to be so."""
    error = texts.exception_of(ended, [])

    assert ProcessExitedException is type(error)
    assert expected == str(error)


def test_ranks_that_could_not_be_ended_are_named() -> None:
    """They are left to the system, and the caller must know."""
    error = texts.exception_of(Ended(0, 7, 5), [1, 4])

    assert str(error).endswith("\n(not ended 30 s after SIGKILL, and left to the system: process 1, 4)")


@pytest.mark.parametrize("signum", [TERM, KILL], ids=["term", "kill"])
def test_many_ranks_are_signalled_with_one_warning(signum: int, caplog: pytest.LogCaptureFixture) -> None:
    """Up to eight have one each; none have none."""
    counts = []
    for pids in ([], list(range(1, 9)), list(range(1, 1001))):
        caplog.clear()
        texts.warn(signum, pids)
        counts.append(len(caplog.records))

    assert [0, 8, 1] == counts
    assert "1000 processes" in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_ranks_with_one_stack_are_told_together_at_a_timeout() -> None:
    """Addresses of threads are not compared."""
    stacks = {
        0: "Thread 0x00aF (most recent call first):\n  x\n",
        2: "Thread 0x11bE (most recent call first):\n  x\n",
        1: "other\n",
    }
    error = texts.timeout_error(1.5, 4, stacks, [])

    assert str(error).split("\n\n") == [
        "3 of 4 processes have not ended within 1.5 s",
        "-- Processes 0, 2:\nThread 0x00aF (most recent call first):\n  x",
        "-- Process 1:\nother",
    ]
    assert (1.5, stacks) == (error.timeout, error.tracebacks)


@needs_notes
def test_only_failure_has_no_note() -> None:
    """Its message says all."""
    assert [] == notes_of(failure(0))


@needs_notes
def test_other_failures_are_in_a_table() -> None:
    """In their order, with the last line of what each raised; ranks that spawnx ended are counted."""
    ended = {
        "type_name": None,
        "traceback": "",
        "signalled": True,
        "exit_code": -15,
        "signal_name": "SIGTERM",
    }
    (table,) = notes_of(
        failure(0), failure(2), failure(1, stage="import"), failure(3, **ended), failure(4, **ended)
    )

    assert table.split("\n") == [
        "-- Other failures, in order:",
        "process 2 (pid 102), after 0.500 s, exit code 1, at run: ValueError: of 2",
        "process 1 (pid 101), after 0.500 s, exit code 1, at import: ValueError: of 1",
        "-- Signalled by spawnx because of that, and ended: 2 by signal SIGTERM",
    ]


@needs_notes
def test_table_of_thousands_is_short() -> None:
    """And so is each line: a rank may raise what is as long as a book."""
    long = failure(1, traceback="ValueError: " + "x" * 10_000)
    (table,) = notes_of(failure(0), *[long] * 2000)
    lines = table.split("\n")

    assert (18, "... and 1984 more") == (len(lines), lines[-1])
    assert max(map(len, lines)) < 200


@needs_notes
def test_remark_and_stack_of_the_cause_are_notes() -> None:
    """What its message, the reference's, has no room for."""
    cause = failure(0, type_name=None, traceback="Fatal Python error: Aborted\n\n", remark="It was cold.")

    assert ["It was cold.", "-- Process 0, as faulthandler saw it:\nFatal Python error: Aborted"] == notes_of(
        cause
    )

"""What the supervisor reads of what ranks write: whatever that is, it is read, and nothing is raised."""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as given_
from hypothesis import strategies as st

from spawnx.failure import Failure
from spawnx.failures import text as texts
from spawnx.failures import verdict
from spawnx.ipc import names, notices, report, scoreboard
from spawnx.ipc import report_reader as reports
from spawnx.ipc.scoreboard_reader import Scoreboard
from spawnx.watch.watcher import Watcher
from tests import ranks
from tests.campaigns import parsers
from tests.support import LONG_S, ROOT, posix_only

RANKS = 3
STAGES = {scoreboard.IMPORT, scoreboard.UNPICKLE, scoreboard.RUN}
TEXTS = st.text(st.characters(codec=None))  # lone surrogates as well: os.fsdecode makes some


def given(*strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Any of these, however long that takes on a machine that has other things to do."""
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    return lambda test: patient(given_(*strategies)(test))


@given(st.binary())
def test_any_bytes_are_a_report_or_none(data: bytes) -> None:
    """Nothing is raised, and what is found can be told."""
    found = reports.parse(data)

    assert found is None or (isinstance(found.message, str) and found.stage in STAGES)


@given(TEXTS, st.integers(2, 5), st.binary())
def test_text_of_the_references_file_is_read_whatever_follows(text: str, protocol: int, more: bytes) -> None:
    """As `pickle.load` reads it."""
    found = reports.parse(pickle.dumps(text, protocol) + more)

    assert found is not None
    assert text == found.text


@given(TEXTS, st.sampled_from(sorted(STAGES)), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
def test_report_of_ours_is_read_as_it_was_packed(text: str, stage: str, when: float, name: str) -> None:
    """And from the scoreboard, where zeros follow."""
    packed = report.pack(report.Report(text, stage, when, type_name=name, peak_kib=7))
    for data in (packed, packed + bytes(1000)):
        found = reports.parse(data)

        assert found is not None
        assert (text, stage, when, name, 7) == (
            found.text, found.stage, found.time, found.type_name, found.peak_kib,
        )  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["stage", "time", "type_name", "peak_kib", "text", "told"]),
        st.sampled_from(
            [None, True, -1, 7, 2**70, 1.5, float("nan"), float("inf"), "run", "exit", "x" * 2000, [], {}]
        ),
    )
)
def test_details_that_can_not_be_so_are_left_out(said: dict[str, Any]) -> None:
    """Each has its type, and its bounds."""
    import json

    found = reports.parse(pickle.dumps("text") + json.dumps(said).encode())

    assert found is not None
    assert "text" == found.text
    assert found.stage in STAGES
    assert found.time is None or (isinstance(found.time, float) and abs(found.time) < float("inf"))
    assert found.type_name is None or isinstance(found.type_name, str)
    assert found.peak_kib is None or (type(found.peak_kib) is int and found.peak_kib >= 0)


@posix_only
@pytest.mark.parametrize("kind", ranks.EVIL_PICKLES)
def test_pickle_that_is_no_text_is_no_report(kind: str, tmp_path: Path) -> None:
    """Nothing is called, and no memory is taken: in an interpreter that has little."""
    path = tmp_path / "0.pickle"
    path.write_bytes(ranks.EVIL_PICKLES[kind])
    source = """
import resource, sys
from spawnx.ipc import report_reader
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(report_reader.read(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", source, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ("None\n", "") == (done.stdout, done.stderr)


@posix_only
@given(st.binary(max_size=600))
def test_any_bytes_on_the_scoreboard_are_lines(data: bytes) -> None:
    """One for each rank, also where the scoreboard is too short; and parts that can be read."""
    fd = os.memfd_create("scoreboard") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
    os.pwrite(fd, data, 0)
    read = Scoreboard(fd, RANKS)
    lines, failing = read.lines(), read.failing()
    read.close()

    assert RANKS == len(lines)
    assert [rank for rank in range(RANKS) if lines[rank].failing] == failing


class Guard:
    """The guard of a context none of whose ranks has reported."""

    def __init__(self, data: bytes) -> None:
        """Have notices that say anything."""
        self.notices, self._writer = notices.make()
        os.write(self._writer, data)
        self.scoreboard = Scoreboard(-1, RANKS)

    def report(self, rank: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close both ends."""
        os.close(self.notices)
        os.close(self._writer)


@posix_only
@given(st.binary(max_size=600))
def test_any_notices_without_reports_fail_no_rank(data: bytes) -> None:
    """Whatever rank and errno they name."""
    guard: Any = Guard(data)
    watcher: Any = SimpleNamespace(_guard=guard, _alive=dict.fromkeys(range(RANKS)), reported={}, failed=[])
    Watcher._read_notices(watcher)
    guard.close()

    assert ({}, []) == (watcher.reported, watcher.failed)


@given(st.integers(0, 2**32 - 1), st.text())
def test_any_errno_can_be_told(errno: int, headline: str) -> None:
    """It comes from a rank, as the headline does."""
    assert headline in reports.unwritten(errno, headline, 0.0).text


@given(st.text("09²./") | st.from_regex(r"[0-9x]*\.?(pickle|scoreboard)\.?(part|ended|old|/)?"))
def test_name_that_is_removed_with_the_folder_is_a_ranks(name: str) -> None:
    """Of few names, and none leads elsewhere."""
    stem = name.partition(".")[0]

    assert not names.is_ours(name) or name == "scoreboard" or stem.isdigit()
    assert not (names.is_ours(name) and "/" in name)


# Texts of 20 MB


LONG = ["x" * 20_000_000, "a b\n" * 5_000_000, "\n" * 20_000_000, "connection " * 2_000_000]


@pytest.mark.parametrize("said", LONG, ids=["one line", "lines", "empty lines", "nearly"])
def test_long_text_is_judged_and_told_quickly(said: str) -> None:
    """What is searched is bounded: to search it all takes 8 s."""
    text = f"Traceback (most recent call last):\n  File\nValueError: {said}\n"
    failure = Failure(0, 1, "run", 1, None, 0.0, "ValueError", text, None, False)
    began = time.process_time()
    genuine = [verdict.is_genuine(verdict.Fact(0, text=text, raised=1.0)) for _ in range(10)]
    last = texts._last_line(failure)
    took = time.process_time() - began

    assert ([True] * 10, True) == (genuine, len(last) <= 110)
    assert took < 1


def test_long_text_that_is_a_consequence_is_known_as_one() -> None:
    """By what it begins with, and by what its first line ends with."""
    for said in ("Connection reset by peer " + LONG[0], "x" * 100_000 + " Connection reset by peer"):
        text = f"Traceback (most recent call last):\n  File\nRuntimeError: {said}\n"

        assert verdict.is_consequence(verdict.Fact(0, text=text))


def test_text_that_is_too_long_is_told_without_its_middle() -> None:
    """With its frames and its end, and how much is missing."""
    text = "begin" + "x" * 100_000 + "end"
    found = reports.parse(report.pack(report.Report(text), 1000))

    assert found is not None
    assert len(found.text) < 1100
    assert found.text.startswith("beginx")
    assert found.text.endswith("xend")
    assert "\n[... 99008 characters are left out ...]\n" in found.text


# All of it


def test_campaign_of_random_inputs_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `python -m tests.campaigns.parsers`."""
    seed = secrets.randbelow(2**32)
    began = time.monotonic()
    good = parsers.campaign(2, seed)

    assert good, f"seed {seed}:\n{capsys.readouterr().out}"
    assert time.monotonic() - began < LONG_S

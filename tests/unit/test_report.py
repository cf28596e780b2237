"""What a failing rank leaves, and what is read from it."""

from __future__ import annotations

import errno
import pickle
import time
from pathlib import Path

import pytest

from spawnx.remote import rank, report


@pytest.fixture
def raised() -> Exception:
    """An exception with a traceback."""
    try:
        raise ValueError("the cause")
    except ValueError as error:
        return error


def test_report_is_read_as_it_was_written(tmp_path: Path, raised: Exception) -> None:
    """Text, stage and time survive, and no other file is left."""
    path = tmp_path / "0.pickle"
    before = time.monotonic()
    report.write(str(path), report.UNPICKLE, raised, raised.__traceback__)
    found = report.read(str(path))

    assert found is not None
    assert found.text.endswith("\nValueError: the cause\n")
    assert found.stage == "unpickle"
    assert before <= (found.time or 0) <= time.monotonic()
    assert "ValueError" == found.type_name
    assert (found.peak_kib or 0) > 1000
    assert [path] == list(tmp_path.iterdir())


def test_report_begins_as_the_references_file(tmp_path: Path, raised: Exception) -> None:
    """Who unpickles an error file as the reference does gets the traceback's text."""
    path = tmp_path / "0.pickle"
    report.write(str(path), report.RUN, raised, raised.__traceback__)
    with path.open("rb") as file:
        text = pickle.load(file)

    assert text.startswith("Traceback (most recent call last):\n")


def test_references_file_is_read(tmp_path: Path) -> None:
    """A file that holds one pickled string has a text and no time."""
    path = tmp_path / "error.pickle"
    path.write_bytes(pickle.dumps("Traceback: …"))
    found = report.read(str(path))

    assert found is not None
    assert ("Traceback: …", "run", None) == (found.text, found.stage, found.time)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x05X\x10\x00", pickle.dumps("text")[:-3]])
def test_file_that_is_missing_or_torn_is_no_report(tmp_path: Path, content: bytes | None) -> None:
    """What can't be read is not taken for a report."""
    path = tmp_path / "error.pickle"
    if content is not None:
        path.write_bytes(content)

    assert report.read(str(path)) is None


def test_report_that_cannot_be_written_leaves_nothing_half(tmp_path: Path, raised: Exception) -> None:
    """It is told by the errno, and no part of it is left."""
    path = tmp_path / "0.pickle"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        report.write(str(path), report.RUN, raised, raised.__traceback__)

    assert [path] == list(tmp_path.iterdir())


def test_rank_that_cannot_report_prints_its_traceback(
    tmp_path: Path, raised: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not lost with the folder it should go to."""
    path = str(tmp_path / "gone" / "0.pickle")

    assert errno.ENOENT == rank.report_or_print(path, report.RUN, raised, raised.__traceback__)
    assert capsys.readouterr().err.endswith("\nValueError: the cause\n")


def test_unwritten_report_is_told_by_its_headline() -> None:
    """Why it is not there, and what was raised, in the form of a traceback."""
    told = report.unwritten(errno.ENOSPC, "ValueError: the cause", 2.5)

    assert ("ValueError", 2.5) == (told.type_name, told.time)
    assert "\nValueError: the cause\n" in told.text
    assert "No space left on device" in told.text


def test_place_of_a_path_is_what_it_was_made_of() -> None:
    """Folder and rank."""
    assert ("/some/folder.x", 17) == report.place_of(report.path_in("/some/folder.x", 17))


def test_stage_before_the_call_is_told() -> None:
    """A failure before the function was called says so; a later one is the bare traceback."""
    early = report.Report("Traceback…", report.IMPORT)
    late = report.Report("Traceback…", report.RUN)

    assert early.told == "(before it called the function, while it imported the main module)\nTraceback…"
    assert late.told == "Traceback…"

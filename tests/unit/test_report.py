"""What a failing rank leaves, and what is read from it."""

from __future__ import annotations

import errno
import os
import pickle
import time
from pathlib import Path

import pytest

from spawnx.ipc import report
from spawnx.ipc import report_reader as reports
from spawnx.remote import rank


@pytest.fixture
def raised() -> Exception:
    """An exception with a traceback."""
    try:
        raise ValueError("the cause")
    except ValueError as error:
        return error


def leave(path: Path, raised: Exception) -> None:
    """Report an exception at a path, as a rank that unpickles does."""
    report.write(str(path), report.pack(report.of(raised, raised.__traceback__, report.UNPICKLE, None)))


def test_report_is_read_as_it_was_written(tmp_path: Path, raised: Exception) -> None:
    """Text, stage and time survive, and no other file is left."""
    path = tmp_path / "0.pickle"
    before = time.monotonic()
    leave(path, raised)
    found = reports.read(str(path))

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
    leave(path, raised)
    with path.open("rb") as file:
        text = pickle.load(file)

    assert text.startswith("Traceback (most recent call last):\n")


def test_references_file_is_read(tmp_path: Path) -> None:
    """A file that holds one pickled string has a text and no time."""
    path = tmp_path / "error.pickle"
    path.write_bytes(pickle.dumps("Traceback: …"))
    found = reports.read(str(path))

    assert found is not None
    assert ("Traceback: …", "run", None) == (found.text, found.stage, found.time)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x05X\x10\x00", pickle.dumps("text")[:-3]])
def test_file_that_is_missing_or_torn_is_no_report(tmp_path: Path, content: bytes | None) -> None:
    """What can't be read is not taken for a report."""
    path = tmp_path / "error.pickle"
    if content is not None:
        path.write_bytes(content)

    assert reports.read(str(path)) is None


def test_report_that_cannot_be_written_leaves_nothing_half(tmp_path: Path, raised: Exception) -> None:
    """It is told by the errno, and no part of it is left."""
    path = tmp_path / "0.pickle"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        leave(path, raised)

    assert [path] == list(tmp_path.iterdir())


def test_report_that_is_written_follows_no_link(tmp_path: Path, raised: Exception) -> None:
    """Somebody has put one where ranks report: what it leads to stays as it is."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    for name in ("0.pickle.part", "0.pickle"):
        (tmp_path / name).symlink_to(target)
    leave(tmp_path / "0.pickle", raised)

    assert b"precious" == target.read_bytes()
    assert not (tmp_path / "0.pickle").is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="needs FIFOs")
def test_fifo_is_no_report_and_not_waited_for(tmp_path: Path) -> None:
    """Also of a context made by hand."""
    os.mkfifo(tmp_path / "error.pickle")

    assert reports.read(str(tmp_path / "error.pickle")) is None


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="needs openat(2)")
def test_report_is_read_in_a_folder_that_has_another_name_by_now(tmp_path: Path, raised: Exception) -> None:
    """By its fd; and not if a link leads to it, or if it is another user's."""
    folder = tmp_path / "folder"
    folder.mkdir()
    leave(folder / "0.pickle", raised)
    (folder / "1.pickle").symlink_to(folder / "0.pickle")
    fd = os.open(folder, os.O_RDONLY)
    folder.rename(tmp_path / "elsewhere")
    owner = os.geteuid()
    found = [
        reports.read("0.pickle", fd, owner),
        reports.read("1.pickle", fd, owner),
        reports.read("0.pickle", fd, owner + 1),
    ]
    os.close(fd)

    assert [True, False, False] == [one is not None for one in found]


def test_rank_that_cannot_report_prints_its_traceback(
    tmp_path: Path, raised: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not lost with the folder it should go to."""
    path = str(tmp_path / "gone" / "0.pickle")

    assert errno.ENOENT == rank.report_or_print(path, report.RUN, raised, raised.__traceback__)
    assert capsys.readouterr().err.endswith("\nValueError: the cause\n")


def test_unwritten_report_is_told_by_its_headline() -> None:
    """Why it is not there, and what was raised, in the form of a traceback."""
    told = reports.unwritten(errno.ENOSPC, "ValueError: the cause", 2.5)

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

    assert early.message == "(before it called the function, while it imported the main module)\nTraceback…"
    assert late.message == "Traceback…"

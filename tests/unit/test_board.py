"""What ranks say of themselves: the board, and the FIFO of their notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spawnx.remote import board, notices
from tests.support import ROOT, posix_only

pytestmark = posix_only


def run(source: str, *arguments: str) -> str:
    """Run a program as a rank would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\nfrom spawnx.remote import board\n{source}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


# The board


def test_lines_of_a_new_board_say_that_nobody_has_come_far(tmp_path: Path) -> None:
    """Every rank boots."""
    board.make(str(tmp_path), 3)
    lines = board.read(str(tmp_path), 3)

    assert [("boot", False, False, "")] * 3 == [
        (line.stage, line.failing, line.ready, line.headline) for line in lines
    ]


def test_rank_writes_into_its_own_line_only(tmp_path: Path) -> None:
    """Stage, what it is about to do, and a headline that is cut where the next line begins."""
    board.make(str(tmp_path), 3)
    source = """
folder = sys.argv[1]
board.take_place(folder, 1)
board.mark(board.RUN)
board.mark_failing()
board.write_headline("ValueError: " + "ü" * 200)
"""

    assert "" == run(source, str(tmp_path))
    lines = board.read(str(tmp_path), 3)
    assert ["boot", "run", "boot"] == [line.stage for line in lines]
    assert [1] == board.failing(str(tmp_path), 3)
    assert [False, True, False] == [line.ready for line in lines]
    assert lines[1].headline.startswith("ValueError: üüü")
    assert "" == lines[2].headline


def test_crash_is_written_into_the_part_of_the_rank(tmp_path: Path) -> None:
    """Each has its own, and the lines stay."""
    board.make(str(tmp_path), 3)
    for rank in (2, 1):
        run(
            f"board.take_place(sys.argv[1], {rank}); import faulthandler; faulthandler._sigabrt()",
            str(tmp_path),
        )
    texts = [board.read_part(str(tmp_path), rank) for rank in range(3)]

    assert [False, True, True] == [text.startswith("Fatal Python error: Aborted\n") for text in texts]
    assert [1, 1] == [text.count("Fatal Python error") for text in texts[1:]]
    assert ["boot"] * 3 == [line.stage for line in board.read(str(tmp_path), 3)]


def test_parts_take_no_room_until_they_are_written(tmp_path: Path) -> None:
    """The file has a hole."""
    board.make(str(tmp_path), 1)
    before = (tmp_path / "board").stat().st_blocks
    run("board.take_place(sys.argv[1], 0)", str(tmp_path))

    assert before == (tmp_path / "board").stat().st_blocks


def test_place_on_a_board_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """The supervisor is dead, or has none: nothing is written, and faulthandler is as it was."""
    source = """
import faulthandler
board.take_place(sys.argv[1], 0)
board.mark(board.RUN)
print(faulthandler.is_enabled())
"""

    assert "False\n" == run(source, str(tmp_path / "gone"))
    assert [] == board.read(str(tmp_path / "gone"), 1)
    assert [] == board.failing(str(tmp_path / "gone"), 1)


def test_place_that_was_taken_is_kept(tmp_path: Path) -> None:
    """A fresh interpreter takes it before it imports main, and comes by again."""
    board.make(str(tmp_path), 2)
    source = """
board.take_place(sys.argv[1], 1)
before = len(os.listdir("/dev/fd"))
board.take_place(sys.argv[1], 0)
board.mark(board.RUN)
print(len(os.listdir("/dev/fd")) - before)
"""

    assert "0\n" == run(source, str(tmp_path))
    assert ["boot", "run"] == [line.stage for line in board.read(str(tmp_path), 2)]


def test_process_that_a_rank_forked_does_not_write_for_it(tmp_path: Path) -> None:
    """Neither its stage nor its stack; that goes to stderr."""
    board.make(str(tmp_path), 1)
    source = """
import faulthandler
board.take_place(sys.argv[1], 0)
if os.fork() == 0:
    board.mark(board.EXIT)
    faulthandler._sigabrt()
os.wait()
"""

    assert "Fatal Python error: Aborted" in run(source, str(tmp_path))
    assert "" == board.read_part(str(tmp_path), 0)
    assert "boot" == board.read(str(tmp_path), 1)[0].stage


# Notices


def test_notices_are_read_as_they_were_told(tmp_path: Path) -> None:
    """Rank and errno, of several in one go; then there are none."""
    fifo = notices.make(str(tmp_path))
    before = list(notices.read(fifo))
    notices.tell(str(tmp_path), 3)
    notices.tell(str(tmp_path), 70_000, 28)
    told, after = list(notices.read(fifo)), list(notices.read(fifo))
    os.close(fifo)

    assert ([], [(3, 0), (70_000, 28)], []) == (before, told, after)


@pytest.mark.parametrize("there", [True, False], ids=["nobody reads", "no FIFO"])
def test_notice_that_nobody_hears_is_no_error(tmp_path: Path, there: bool) -> None:
    """The supervisor is dead: the rank ends as it would."""
    if there:
        os.close(notices.make(str(tmp_path)))
    notices.tell(str(tmp_path), 0)

    assert there is (tmp_path / "notices").exists()


def test_notice_to_a_supervisor_that_does_not_read_is_given_up(tmp_path: Path) -> None:
    """A full pipe makes no rank wait."""
    fifo = notices.make(str(tmp_path))
    for rank in range(20_000):
        notices.tell(str(tmp_path), rank)
    told = []
    while some := list(notices.read(fifo)):
        told += some
    os.close(fifo)

    assert 1000 < len(told) < 20_000
    assert [(rank, 0) for rank in range(len(told))] == told

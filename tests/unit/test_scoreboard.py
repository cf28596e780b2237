"""What ranks say of themselves: the scoreboard, and their notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawnx.ipc import notices, scoreboard
from spawnx.ipc.ends import Own
from spawnx.ipc.scoreboard_reader import Scoreboard, make
from tests.support import ROOT, posix_only

pytestmark = posix_only

RANKS = 3


@pytest.fixture(params=["memory", "file"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scoreboard]:
    """A scoreboard in memory, and in a file of the folder."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("needs files in memory")
    one = Scoreboard(make(str(tmp_path), RANKS), RANKS)
    yield one
    one.close()


def run(source: str, made: Scoreboard, folder: Path) -> str:
    """Run a program as a rank would, and return what it prints."""
    head = "import os, sys\nfrom spawnx.ipc import scoreboard\nfd, folder = int(sys.argv[1]), sys.argv[2]\n"
    done = subprocess.run(
        [sys.executable, "-c", head + source, str(made.fd), str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, pass_fds=[made.fd],
    )  # fmt: skip
    return done.stdout + done.stderr


# The scoreboard


def test_lines_of_a_new_scoreboard_say_that_nobody_has_come_far(made: Scoreboard) -> None:
    """Every rank boots."""
    assert [("boot", False, False, "")] * 3 == [
        (line.stage, line.failing, line.ready, line.headline) for line in made.lines()
    ]
    assert ("", b"") == (made.stack(0), made.report(0))


def test_rank_writes_into_its_own_line_only(made: Scoreboard, tmp_path: Path) -> None:
    """Stage, what it is about to do, and a headline that is cut where the next line begins."""
    source = """
scoreboard.open_place(fd, 1, folder)
scoreboard.mark(scoreboard.RUN)
scoreboard.mark_failing()
scoreboard.write_headline("ValueError: " + "ü" * 200)
"""

    assert "" == run(source, made, tmp_path)
    lines = made.lines()
    assert ["boot", "run", "boot"] == [line.stage for line in lines]
    assert [1] == made.failing()
    assert [False, True, False] == [line.ready for line in lines]
    assert lines[1].headline.startswith("ValueError: üüü")
    assert "" == lines[2].headline


def test_crash_is_written_into_the_part_of_the_rank(made: Scoreboard, tmp_path: Path) -> None:
    """Each has its own, and the lines stay."""
    for rank in (2, 1):
        run(
            f"scoreboard.open_place(fd, {rank}, folder); import faulthandler; faulthandler._sigabrt()",
            made,
            tmp_path,
        )
    texts = [made.stack(rank) for rank in range(3)]

    assert [False, True, True] == [text.startswith("Fatal Python error: Aborted\n") for text in texts]
    assert [1, 1] == [text.count("Fatal Python error") for text in texts[1:]]
    assert ["boot"] * 3 == [line.stage for line in made.lines()]


def test_report_is_written_whole_or_not_at_all(made: Scoreboard, tmp_path: Path) -> None:
    """What is too long isn't written."""
    source = """
scoreboard.open_place(fd, 1, folder)
print(scoreboard.write_report(b"x" * (scoreboard.PART + 1)), scoreboard.write_report(b"y" * scoreboard.PART))
"""

    assert "False True\n" == run(source, made, tmp_path)
    assert [b"", b"y" * scoreboard.PART, b""] == [made.report(rank) for rank in range(3)]
    assert "" == made.stack(2)


def test_parts_take_no_room_until_they_are_written(made: Scoreboard, tmp_path: Path) -> None:
    """The file has a hole."""
    before = os.fstat(made.fd).st_blocks
    run("scoreboard.open_place(fd, 0, folder)", made, tmp_path)

    assert before == os.fstat(made.fd).st_blocks


@pytest.mark.parametrize("fd", ["-1", "1000"], ids=["none", "closed"])
def test_place_on_a_scoreboard_that_is_not_there_is_no_error(
    made: Scoreboard, tmp_path: Path, fd: str
) -> None:
    """Nothing is written, and faulthandler is as it was."""
    source = f"""
import faulthandler
scoreboard.open_place({fd}, 0, folder)
scoreboard.mark(scoreboard.RUN)
print(faulthandler.is_enabled(), scoreboard.write_report(b"report"))
"""

    assert "False False\n" == run(source, made, tmp_path)


def test_scoreboard_that_is_closed_is_empty(made: Scoreboard) -> None:
    """Also for who asks when the context has ended."""
    made.close()

    assert ([], [], "", b"") == (made.lines(), made.failing(), made.stack(0), made.report(0))


def test_scoreboard_for_which_there_is_no_room_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short one would have lines for some ranks only."""
    monkeypatch.setattr(os, "pwrite", lambda *_: 100)

    assert -1 == make(str(tmp_path), RANKS)


def test_scoreboard_without_a_name_and_without_proc_takes_lines(made: Scoreboard, tmp_path: Path) -> None:
    """It has no offset of its own then: nobody is asked for stacks."""
    source = """
open_ = os.open
def refuse(path, *args, **names):
    raise FileNotFoundError(2, "gone", path)
os.open = refuse
scoreboard.open_place(fd, 1, folder)
scoreboard.mark(scoreboard.RUN)
print(scoreboard.write_report(b"report"))
"""

    assert "True\n" == run(source, made, tmp_path)
    assert ("run", False, b"report") == (
        made.lines()[1].stage,
        made.lines()[1].ready,
        made.report(1).rstrip(b"\0"),
    )


def test_place_that_was_taken_is_kept(made: Scoreboard, tmp_path: Path) -> None:
    """A fresh interpreter takes it before it imports main, and comes by again."""
    source = """
scoreboard.open_place(fd, 1, folder)
before = len(os.listdir("/dev/fd"))
scoreboard.open_place(fd, 0, folder)
scoreboard.mark(scoreboard.RUN)
print(len(os.listdir("/dev/fd")) - before)
"""

    assert "0\n" == run(source, made, tmp_path)
    assert ["boot", "run", "boot"] == [line.stage for line in made.lines()]


def test_process_that_a_rank_forked_does_not_write_for_it(made: Scoreboard, tmp_path: Path) -> None:
    """Neither its stage nor its stack; that goes to stderr. It has nothing of the scoreboard's open."""
    source = """
import faulthandler
before = len(os.listdir("/dev/fd"))
scoreboard.open_place(fd, 0, folder)
if os.fork() == 0:
    print(before - len(os.listdir("/dev/fd")), flush=True)
    scoreboard.mark(scoreboard.EXIT)
    faulthandler._sigabrt()
os.wait()
"""
    told = run(source, made, tmp_path)

    assert told.startswith("1\n")
    assert "Fatal Python error: Aborted" in told
    assert "" == made.stack(0)
    assert "boot" == made.lines()[0].stage


def test_faulthandler_that_user_code_has_enabled_since_is_left_in_what_a_rank_forks(
    made: Scoreboard, tmp_path: Path
) -> None:
    """It is known that it no longer writes to the scoreboard: on PyPy after a collection."""
    source = """
import faulthandler
from tests import pypy
scoreboard.open_place(fd, 0, folder)
mine = open(folder + "/mine", "w")
faulthandler.enable(mine)
pypy.drop()
if os.fork() == 0:
    faulthandler._sigabrt()
os.wait()
"""

    assert "" == run(source, made, tmp_path)
    assert (tmp_path / "mine").read_text(encoding="utf-8").startswith("Fatal Python error: Aborted")


# Notices


@pytest.fixture
def pipe() -> Iterator[tuple[int, Own]]:
    """Both ends, the ranks' as a rank has it."""
    reader, writer = notices.make()
    theirs = Own(writer)
    yield reader, theirs
    os.close(reader)
    theirs.close()


def test_notices_are_read_as_they_were_told(pipe: tuple[int, Own]) -> None:
    """Rank and errno, of several in one go; then there are none."""
    reader, writer = pipe
    before = list(notices.read(reader))
    notices.tell(writer, 3)
    notices.tell(writer, 70_000, 28)
    told, after = list(notices.read(reader)), list(notices.read(reader))

    assert ([], [(3, 0), (70_000, 28)], []) == (before, told, after)


def test_notice_that_nobody_hears_is_no_error() -> None:
    """The supervisor is dead: the rank ends as it would."""
    reader, writer = notices.make()
    os.close(reader)
    theirs = Own(writer)
    notices.tell(theirs, 0)
    theirs.close()
    notices.tell(theirs, 0)

    assert not theirs.is_open()


def test_notice_is_not_written_into_a_file_that_has_got_the_number(
    pipe: tuple[int, Own], tmp_path: Path
) -> None:
    """User code has closed all fds, and opened its own."""
    reader, writer = pipe
    mine = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT)
    os.dup2(mine, writer.fd)
    notices.tell(writer, 0)
    size = os.fstat(mine).st_size
    os.close(mine)
    os.close(writer.fd)

    assert (0, []) == (size, list(notices.read(reader)))


def test_notice_to_a_supervisor_that_does_not_read_is_given_up(pipe: tuple[int, Own]) -> None:
    """A full pipe makes no rank wait."""
    reader, writer = pipe
    for rank in range(20_000):
        notices.tell(writer, rank)
    told = []
    while some := list(notices.read(reader)):
        told += some

    assert 1000 < len(told) < 20_000
    assert [(rank, 0) for rank in range(len(told))] == told

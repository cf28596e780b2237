"""What `python -m tests.systems` does outside of the systems: it chooses rows, and makes a table of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.systems import __main__ as systems
from tests.systems import table
from tests.systems.catalogue import SYSTEMS, Python
from tests.systems.roots import FailedError, Network, Root

# As pytest writes it: a test that passes, one that is skipped, one that fails, one that leaves something, and one that
# fails and leaves something, which is there twice.
JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="2" failures="2" skipped="1" tests="6">
<testcase classname="tests.unit.test_a" name="test_passes[1]"/>
<testcase classname="tests.unit.test_a" name="test_skipped"><skipped message="no torch"/></testcase>
<testcase classname="tests.unit.test_a" name="test_fails"><failure message="1 == 2&#10;more">long</failure></testcase>
<testcase classname="tests.unit.test_b" name="test_leaves"/>
<testcase classname="tests.unit.test_b" name="test_leaves"><error message="a fd is left">long</error></testcase>
<testcase classname="tests.unit.test_b" name="test_both"><failure message="wrong">long</failure></testcase>
<testcase classname="tests.unit.test_b" name="test_both"><error message="a fd is left">long</error></testcase>
</testsuite></testsuites>
"""
FACTS = {
    "python": "CPython 3.14.10",
    "libc": "glibc 2.43",
    "machine": "x86_64",
    "kernel": "6.1",
    "backend": "native",
    "launchers": {"spawn": "clone", "fork": "fork", "forkserver": "forkserver"},
}
ROW = table.Row("sid/3.14", FACTS, (10, 1, 2), ("test_a::test_fails: wrong",), 90.0, when="2026-01-02, abc")
CELLS = (
    "| CPython 3.14.10 | glibc 2.43 | native | clone | fork | forkserver | 10 | 1 | 2 | 2 | 2026-01-02, abc |"
)


def names(*patterns: str) -> list[str]:
    """The rows that these patterns choose."""
    return [f"{name}/{python.name}" for name, python in systems.chosen(patterns or None)]


# Rows


def test_all_rows_are_chosen_where_none_is_named() -> None:
    """Each once."""
    every = [row for system in SYSTEMS.values() for row in system.ids()]

    assert sorted(every) == sorted(names())
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["sid/3.14"], ["sid/3.14"]),
        (["sid/3.1[45]"], ["sid/3.14", "sid/3.15"]),
        (["*/3.15", "trixie/3.15"], ["trixie/3.15", "sid/3.15"]),
        (["sid"], []),
    ],
)
def test_rows_are_chosen_by_patterns_of_whole_names(patterns: list[str], expected: list[str]) -> None:
    """Each once, however often it is asked for."""
    assert expected == names(*patterns)


@pytest.mark.parametrize(("pattern", "expected"), [("sid/*", {"sid"}), ("trixie/3.14", {"trixie", "sid"})])
def test_system_of_which_pythons_are_copied_is_needed_too(
    pattern: str, expected: set[str], tmp_path: Path
) -> None:
    """Trixie has sid's Pythons."""
    assert expected == set(systems.needed(systems.chosen([pattern]), tmp_path, Network()))


def test_list_names_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Without root, and without wheels."""
    code = systems.main(["--list", "--only", "sid/3.1*"])

    assert (0, "sid/3.13\nsid/3.14\nsid/3.15\n") == (code, capsys.readouterr().out)


def test_row_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Or a run of nothing would be a success."""
    assert 2 == systems.main(["--only", "sid/2.7"])
    assert "no row has such a name" in capsys.readouterr().out


# Wheels


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("native", "spawnx-1-cp310-abi3-linux_x86_64.whl"), ("pure", "spawnx-1-py3-none-any.whl")],
)
def test_each_python_is_given_its_wheel(kind: str, expected: str, tmp_path: Path) -> None:
    """CPython the one with the C core, PyPy the other."""
    for name in ("spawnx-1-cp310-abi3-linux_x86_64.whl", "spawnx-1-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"")

    assert expected == systems.wheel_of(Python("x", "/usr/bin/x", kind), tmp_path).name


@pytest.mark.parametrize("count", [0, 2])
def test_wheel_that_is_not_one_is_an_error(count: int, tmp_path: Path) -> None:
    """Which one is meant can't be told."""
    for number in range(count):
        (tmp_path / f"spawnx-{number}-py3-none-any.whl").write_bytes(b"")

    with pytest.raises(FailedError, match=f"has {count} wheels for x, not one"):
        systems.wheel_of(Python("x", "/usr/bin/x", "pure"), tmp_path)


# Entering


def test_command_is_run_in_the_system_with_what_is_there_of_the_paths(tmp_path: Path) -> None:
    """A path that this machine lacks is left out: it can't be bound."""
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.touch()
    root = Root(SYSTEMS["sid"], tmp_path, Network(bound=(str(there), str(missing))))
    command = root.command(["true", "--", "x"], tmp_path / "work")
    after = command[command.index("sh") + 2 :]

    assert [str(tmp_path / "sid"), str(tmp_path / "work")] == after[:2]
    assert ["--", "true", "--", "x"] == after[-4:]
    assert (True, False) == (str(there) in after, str(missing) in after)


# Results


def test_tests_are_counted_once(tmp_path: Path) -> None:
    """One that fails, and leaves something as well, is one failure with two lines."""
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT, encoding="utf-8")
    counts, failed = table.read_junit(path)

    assert (1, 3, 1) == counts
    assert (
        "test_a::test_fails: 1 == 2",
        "test_b::test_leaves: a fd is left",
        "test_b::test_both: wrong",
        "test_b::test_both: a fd is left",
    ) == failed


def test_what_pytest_writes_is_read(tmp_path: Path) -> None:
    """By the pytest that runs this."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_well(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "def test_not(): pytest.skip('why')\n"
    )
    junit = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)

    assert (1, ((1, 1, 1), ("test_x::test_bad: assert 1 == 2",))) == (
        done.returncode,
        table.read_junit(junit),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"failed": (), "counts": (10, 0, 2)}, True),
        ({}, False),
        ({"failed": (), "counts": None, "fault": "ran past 3600 s"}, False),
    ],
)
def test_row_is_good_that_came_to_its_end_without_failures(changes: dict[str, Any], expected: bool) -> None:
    """One without counts has shown nothing."""
    assert expected == ROW._replace(**changes).is_good


def test_row_is_kept_until_the_next_one(tmp_path: Path) -> None:
    """In the order that is asked for; those that were never run are left out."""
    later = ROW._replace(counts=(11, 0, 2), failed=())
    other = ROW._replace(name="sid/3.15")
    for row in (ROW, other, later):
        row.save(tmp_path / "results")
    kept = table.saved(tmp_path / "results", ["sid/3.15", "trixie/3.14", "sid/3.14"])

    assert [other.cells(), later.cells()] == [row.cells() for row in kept]
    assert [list(other.failed), []] == [list(row.failed) for row in kept]


def test_table_has_a_row_and_its_failures() -> None:
    """With the machine on which it was made."""
    text = table.markdown([ROW])

    assert "x86_64, Linux 6.1." == text.splitlines()[0]
    assert CELLS in text.splitlines()
    assert "- CPython 3.14.10, glibc 2.43: `test_a::test_fails: wrong`" == text.splitlines()[-1]


def test_many_failures_are_counted_by_file() -> None:
    """So that the document can still be read."""
    failed = [f"test_a::test_{number}: wrong" for number in range(table.MANY)]
    text = table.markdown([ROW._replace(failed=(*failed, "test_b::test_x: wrong"))])

    assert f"- CPython 3.14.10, glibc 2.43: `test_a` {table.MANY}, `test_b` 1" == text.splitlines()[-1]


def test_table_without_failures_lists_none() -> None:
    """And says nothing of them."""
    assert "Failed" not in table.markdown([ROW._replace(failed=())])


def test_row_without_counts_says_why() -> None:
    """In the place of the counts; what it was to be is known by its name."""
    row = table.Row("sid/3.14", {}, fault="ran past 3600 s", seconds=3600, when="today")

    assert "| sid/3.14 | - | - | - | - | - | - | ran past 3600 s | - | 60 | today |" in table.markdown([row])
    assert "ran past 3600 s" in table.plain([row])


def test_table_is_written_in_the_place_of_the_last_one(tmp_path: Path) -> None:
    """What is around it stays as it is; writing it twice is writing it once."""
    document = tmp_path / "platforms.md"
    document.write_text(f"before\n\n{table.BEGIN}\n\nold\n\n{table.END}\n\nafter\n", encoding="utf-8")
    for text in ("first", "second", "second"):
        table.write(document, text)

    assert f"before\n\n{table.BEGIN}\n\nsecond\n\n{table.END}\n\nafter\n" == document.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("text", ["", table.BEGIN, table.END])
def test_document_without_a_place_is_left_alone(text: str, tmp_path: Path) -> None:
    """All after the beginning would be lost."""
    document = tmp_path / "platforms.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="has no "):
        table.write(document, "table")

    assert text == document.read_text(encoding="utf-8")


def test_document_of_the_project_has_a_place_for_the_table() -> None:
    """One, with the columns of today."""
    text = systems.DOCUMENT.read_text(encoding="utf-8")

    assert 1 == text.count(table.BEGIN) == len(re.findall(re.escape(table.END), text))
    assert f"| {' | '.join(table.HEAD)} |" in text

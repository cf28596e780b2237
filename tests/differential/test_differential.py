"""What a rank leaves by each way, beside what one of multiprocessing's leaves: output, files, exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spawnx import backends
from tests.differential.catalogue import Program, programs
from tests.differential.comparison import ORACLES, WAYS, Outcome, Way, difference, run
from tests.differential.declared import DECLARED, HANGS, is_of_server
from tests.differential.driver import HUNG
from tests.support import forkserver_imports_main

if sys.platform != "linux" or "native" not in backends.available():
    pytest.skip("needs Linux, and the C core, which clones", allow_module_level=True)

try:
    import pty  # noqa: F401
except ImportError:  # as for sid's Pythons in trixie, whose libc is too old for their termios
    HAS_TERMINALS = False
else:
    HAS_TERMINALS = True
HEAVY_WAYS = ("clone", "clone, laden", "exec")
Oracle = Callable[[Way, bool], dict[str, Outcome]]


def tried(way: Way, *, heavy: bool) -> list[Program]:
    """The programs that are run by one way: all, or every second, fourth, … of them."""
    some = [program for program in programs().values() if ("torch" in program.flags) == heavy]
    if not HAS_TERMINALS:
        some = [program for program in some if "pty" not in program.text]
    return some[:: way.share]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name is as short as the oracle's: sockets stand below, with at most 108 bytes (unix(7))."""
    return tmp_path_factory.mktemp("way")


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """What multiprocessing's ranks leave: asked once for all ways that are compared with it."""
    known: dict[tuple[str, bool], dict[str, Outcome]] = {}

    def ask(way: Way, heavy: bool) -> dict[str, Outcome]:
        key = way.oracle, heavy
        if key not in known:
            asked = {
                program.name: program
                for other in WAYS.values()
                if other.oracle == way.oracle
                for program in tried(other, heavy=heavy)
            }
            folder = tmp_path_factory.mktemp("oracle")
            known[key] = run(ORACLES[way.oracle], asked.values(), folder)
        return known[key]

    return ask


def differences(way: Way, oracle: Oracle, folder: Path, *, heavy: bool) -> dict[str, list[str]]:
    """The undeclared differences by one way, by name of program."""
    expected = oracle(way, heavy)
    found = {}
    for name, actual in run(way, tried(way, heavy=heavy), folder).items():
        lines = difference(programs()[name], expected[name], actual)
        of_server = way.method == "forkserver" and is_of_server(name) and forkserver_imports_main()
        if lines and name not in DECLARED and not of_server:
            found[name] = lines
    return found


@pytest.mark.parametrize("name", ORACLES)
def test_program_by_the_original_ends(name: str, oracle: Oracle) -> None:
    """Hardly a program hangs by multiprocessing itself: what is compared with it is known. First: all wait for it."""
    hung = {one for one, outcome in oracle(ORACLES[name], False).items() if outcome.code == HUNG}

    assert set() == hung - HANGS.keys()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_program_that_is_a_rank_leaves_what_the_original_leaves(
    way: Way, oracle: Oracle, place: Path
) -> None:
    """A rank leaves the output, the files and the exit code that one of multiprocessing's leaves."""
    found = differences(way, oracle, place, heavy=False)

    assert {} == found


@pytest.mark.torch
@pytest.mark.parametrize("name", HEAVY_WAYS)
def test_program_with_torch_leaves_what_the_original_leaves(name: str, oracle: Oracle, place: Path) -> None:
    """So does one that uses torch, which a template has imported or the rank itself."""
    found = differences(WAYS[name], oracle, place, heavy=True)

    assert {} == found


def test_catalogue_has_programs_of_each_kind() -> None:
    """There are some two hundred programs and more, each with a sentence, and each excuse is for one of them."""
    kinds = {program.kind for program in programs().values()}

    assert len(kinds) >= 16
    assert len(programs()) >= 200
    assert set() == (DECLARED | HANGS).keys() - programs().keys()

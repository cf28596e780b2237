"""The checks that every test gets unasked: a child, an fd or a file that is left fails the test that left it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import LONG_S, ROOT, posix_only

pytestmark = posix_only

# Of the conftest under test; with little patience, and without torch, whose import would take seconds.
CONFTEST = """
import tests.conftest
from tests.conftest import *
from tests.conftest import _long_lived_helpers, _nothing_left

tests.conftest.SETTLE_S = 0.25
tests.conftest.HAS_TORCH = False
"""
HEAD = """
import multiprocessing, os, signal, subprocess, tempfile
from multiprocessing.shared_memory import SharedMemory

kept = []
"""
LEAKS = {
    "child": """
        kept.append(subprocess.Popen(["sleep", "98765"]))
    """,
    "zombie": """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        if not os.fork():
            os._exit(0)
        signal.sigwait([signal.SIGCHLD])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    """,
    "orphan": """
        subprocess.run(["sh", "-c", "sleep 98765 & exit"], check=True)
    """,
    "child_of_forkserver": """
        process = multiprocessing.get_context("forkserver").Process(target=signal.pause)
        process.start()
        kept.append(process)
    """,
    "pipe": """
        kept.append(os.pipe())
    """,
    "open_file": """
        kept.append(open(os.devnull))
    """,
    "file": """
        os.close(tempfile.mkstemp()[0])
    """,
    "folder": """
        tempfile.mkdtemp()
    """,
    "semaphore": """
        kept.append(multiprocessing.get_context("spawn").Lock())
    """,
    "shared_memory": """
        kept.append(SharedMemory(create=True, size=1))
        kept[-1].close()
    """,
}
CLEAN = {
    "nothing": "pass",
    "reaped_child": """
        subprocess.run(["true"], check=True)
    """,
    "fds_in_a_cycle": """
        cycle = [*multiprocessing.Pipe()]
        cycle.append(cycle)
    """,
    "dropped_semaphore": """
        multiprocessing.get_context("spawn").Lock()
    """,
    "removed_file": """
        fd, path = tempfile.mkstemp()
        os.close(fd)
        os.unlink(path)
    """,
}
FAILED = """
    kept.append(subprocess.Popen(["sleep", "98765"]))
    assert False
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run a test for each case, in a pytest of its own under our conftest; return what was said of each test."""
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    cases = {**LEAKS, **CLEAN, "failed": FAILED, "last": "pass"}
    tests = [
        f"def test_{name}():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        for name, body in cases.items()
    ]
    (folder / "test_cases.py").write_text(HEAD + "\n".join(tests), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for name, outcome in re.findall(
        r"^test_cases\.py::test_(\w+) (PASSED|FAILED|ERROR)", done.stdout, re.MULTILINE
    ):
        found.setdefault(name, set()).add(outcome)
    return found


@pytest.mark.parametrize("name", LEAKS)
def test_what_a_test_leaves_fails_it(outcomes: dict[str, set[str]], name: str) -> None:
    """A test that left something has an error, though it passed."""
    assert {"PASSED", "ERROR"} == outcomes[name]


@pytest.mark.parametrize("name", [*CLEAN, "last"])
def test_what_is_let_go_fails_nothing(outcomes: dict[str, set[str]], name: str) -> None:
    """What the garbage collector or a helper takes back in a moment isn't left; nor is what another test left."""
    assert {"PASSED"} == outcomes[name]


def test_what_a_failed_test_leaves_is_noise(outcomes: dict[str, set[str]]) -> None:
    """A test that failed has one failure, its own."""
    assert {"FAILED"} == outcomes["failed"]


def test_what_is_left_is_ended(outcomes: dict[str, set[str]]) -> None:
    """No child of any of these tests lives on: this very test would have an error."""
    folder = Path("/proc")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    left = []
    for entry in folder.iterdir():
        try:
            if (entry / "cmdline").read_bytes() == b"sleep\x0098765\x00":
                left.append(entry.name)
        except OSError:
            continue

    assert "last" in outcomes
    assert [] == left

"""Debuggers, as docs/debugging.md tells users to use them."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.support import QUICK, ROOT, Program, posix_only

# Takes standard input for its controlling terminal, as what a shell starts has it, and becomes a command.
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
PROMPT = b"(Pdb) "

WORKS = """
    import sys

    def work(rank):
        print(f"rank {rank} works\\n", end="", flush=True)

    if __name__ == "__main__":
        mp.start_processes(work, (), 2, start_method=sys.argv[1])
"""
STOPS = """
    import sys

    def work(rank):
        secret = 40 + rank
        if rank == 1:
            breakpoint()
            print("rank 1 goes on", flush=True)

    if __name__ == "__main__":
        mp.start_processes(work, (), 2, start_method=sys.argv[1])
"""
RAISES = """
    import sys

    def work(rank):
        try:
            dividend = 40
            dividend / rank
        except ZeroDivisionError:
            import rank_pdb
            rank_pdb.post_mortem()

    if __name__ == "__main__":
        mp.start_processes(work, (), 2, start_method=sys.argv[1])
"""
IS_ENDED = """
    import multiprocessing, signal, sys

    def work(rank, ready):
        if rank == 0:
            ready.wait()
            raise ValueError("ends the other one")
        ready.set(), signal.pause()

    if __name__ == "__main__":
        ready = multiprocessing.get_context(sys.argv[1]).Event()
        try:
            mp.start_processes(work, (ready,), 2, start_method=sys.argv[1])
        except mp.ProcessRaisedException:
            print("raised")
"""


def write_file_of_page(program: Program, name: str) -> None:
    """Write a file that the page has for users, next to a program."""
    page = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
    (source,) = re.findall(rf"```\w+\n(# {re.escape(name)}\n.*?)```", page, re.DOTALL)
    (program.folder / name).write_text(source, encoding="utf-8")


def converse(program: Program, command: list[str], answers: list[str], **variables: str) -> tuple[int, str]:
    """Run a command at a terminal, and answer each prompt of pdb's; returns its exit code, and what was shown."""
    try:
        import pty  # not on Windows; nor where termios can't be loaded: sid's Pythons in trixie

        ours, theirs = pty.openpty()
    except (ImportError, OSError) as error:
        pytest.skip(f"no terminals here: {error}")
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        with os.fdopen(theirs) as end:
            process = subprocess.Popen(
                [sys.executable, "-c", AT_TERMINAL, *command],
                # No codes for colours and keys among what is shown.
                env={**program.environment, "TERM": "dumb", **variables},
                stdin=end,
                stdout=end,
                stderr=end,
                start_new_session=True,
            )
        shown, answered = b"", 0
        while data := _read(terminal.fileno()):
            shown += data
            while answered < min(shown.count(PROMPT), len(answers)):
                terminal.write(f"{answers[answered]}\n".encode())
                answered += 1
        return process.wait(), shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    """What is shown next; b"" when nobody has the terminal open any more."""
    try:
        return os.read(terminal, 4096)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


@posix_only
def test_main_module_without_spec(program: Program, start_method: str) -> None:
    """As pdb made them before CPython 3.11.9 and 3.12.3; torch: multiprocessing's AttributeError."""
    source = WORKS.replace("mp.start", "del __spec__; mp.start")
    done = program.run(source, start_method)
    worked, failure = ["rank 0 works", "rank 1 works"], "module '__main__' has no attribute '__spec__'"

    assert program.impl.differs(
        torch=(worked, False) if start_method == "fork" else ([], True), spawnx=(worked, False)
    ) == (sorted(done.stdout.splitlines()), failure in done.stderr)


@pytest.mark.fresh
def test_program_under_pdb_starts_ranks(program: Program) -> None:
    """`python -m pdb program.py`, continued."""
    done = replace(program, options=("-m", "pdb")).run(WORKS, "spawn", input="continue\nquit\n")

    assert ["rank 0 works", "rank 1 works"] == sorted(re.findall("rank . works", done.stdout))
    assert "Error" not in done.stdout + done.stderr


@posix_only
def test_breakpoint_in_a_rank_finds_no_terminal(program: Program) -> None:
    """`sys.stdin` is /dev/null there, and pdb reads its end."""
    code, shown = converse(program, program.command(STOPS, QUICK), [])

    assert 1 == code
    assert ("terminated with exit code 1" if sys.version_info >= (3, 14) else "bdb.BdbQuit") in shown


@posix_only
def test_breakpoint_in_a_rank_with_the_file_of_the_page(program: Program, start_method: str) -> None:
    """The rank talks to the terminal, and goes on."""
    write_file_of_page(program, "rank_pdb.py")
    command = program.command(STOPS, start_method)
    code, shown = converse(program, command, ["p secret", "continue"], PYTHONBREAKPOINT="rank_pdb.set_trace")

    assert 0 == code, shown
    assert "(Pdb) p secret\n41\n(Pdb) continue\nrank 1 goes on\n" in shown


@posix_only
def test_post_mortem_in_a_rank_with_the_file_of_the_page(program: Program, start_method: str) -> None:
    """The rank shows where it has raised."""
    write_file_of_page(program, "rank_pdb.py")
    code, shown = converse(program, program.command(RAISES, start_method), ["p dividend", "quit"])

    assert 0 == code, shown
    assert "-> dividend / rank\n(Pdb) p dividend\n40\n" in shown


@posix_only
def test_coverage_with_the_file_of_the_page(program: Program, start_method: str) -> None:
    """What ranks run is measured, also of one that is ended by SIGTERM."""
    write_file_of_page(program, ".coveragerc")
    path = str(program.write(IS_ENDED))
    with (program.folder / ".coveragerc").open("a", encoding="utf-8") as settings:
        settings.write(f"include = {path}\n")  # torch, too, takes seconds
    for arguments in (
        ["run", path, start_method],
        ["combine", "-q"],
        ["json", "-q", "-o", "told.json"],
    ):
        done = program.run_command([sys.executable, "-m", "coverage", *arguments], cwd=program.folder)
        assert 0 == done.returncode, done.stderr
    (told,) = json.loads((program.folder / "told.json").read_text(encoding="utf-8"))["files"].values()

    assert [] == told["missing_lines"]

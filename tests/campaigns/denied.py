"""What does spawnx do if a sandbox forbids a system call, or the kernel lacks it?

`python -m tests.campaigns.denied` denies each system call that spawnx makes, in turn, by a seccomp filter. It does so
for each start method and backend, with ENOSYS and with EPERM. Two ranks end well, then one of two fails. Each call of
spawnx must work by one of its ways, or raise one error, and leave nothing. `--write` writes the table into
docs/sandboxes.md. A short form is in the suite: tests/unit/test_sandboxes.py.

Not denied are the system calls that CPython itself needs: execve, mmap, read, openat, futex, fork's clone. The dynamic
loader needs pread64, and CPython needs ioctl to make fds inheritable. Calls that remove files are not denied either:
without them the files are left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from spawnx import backends
from tests.sandbox import NUMBERS
from tests.support import ROOT

# Without clone, no process and no thread can be created.
CALLS = sorted(NUMBERS.keys() - {"clone"})
ERRNOS = ("ENOSYS", "EPERM")
METHODS = ("spawn", "fork", "forkserver")
DOCUMENT = ROOT / "docs" / "sandboxes.md"
BEGIN, END = "<!-- made by: python -m tests.campaigns.denied --write -->", "<!-- end -->"
# Seconds that a call may take on a busy machine. The first call boots a template.
SLOW_S = 15.0
PATIENCE_S = 90.0
_MARK = "SPAWNX_CAMPAIGN"


class Row(NamedTuple):
    """A denied system call, its errno, and the way to start ranks."""

    call: str
    errno: str
    method: str
    backend: str


def all_rows() -> list[Row]:
    """Return every row of the table."""
    return [Row(*one) for one in itertools.product(CALLS, ERRNOS, METHODS, backends.available())]


class Outcome(NamedTuple):
    """The outcome of a row.

    Attributes:
        text: the launcher of the ranks, and what is missing; or the error.
        faults: what is wrong; empty if the row is right.
    """

    text: str
    faults: list[str]

    @property
    def serves(self) -> bool:
        """Whether ranks were started and the failure was reported."""
        return not self.text.startswith("`")


def run(row: Row) -> Outcome:
    """Run a supervisor that makes its calls in the sandbox."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "TMPDIR": folder, "SPAWNX_BACKEND": row.backend, "PYTHONPATH": str(ROOT), _MARK: mark,
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.campaigns.denied_supervisor", *row[:3]]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return Outcome("hangs", [f"hangs: {_end_marked(mark, 0)}"])
        # The folder of multiprocessing's forkserver doesn't count.
        left = [
            *_end_marked(mark, 10),
            *(name for name in os.listdir(folder) if not name.startswith("pymp-")),
        ]
    if process.returncode != 0:
        return Outcome("dies", [f"exit code {process.returncode}: {err}"])
    return _judge(*json.loads(out), err, left)


def _judge(good: dict[str, Any], bad: dict[str, Any], err: str, left: list[str]) -> Outcome:
    faults = [f"left: {left}"] if left else []
    faults += [f"took {one['seconds']:.0f} s" for one in (good, bad) if one["seconds"] > SLOW_S]
    faults += [f"{one['left']} ranks left" for one in (good, bad) if one["left"]]
    raised = str(bad["raised"])
    if (
        good["raised"] is None
        and raised.startswith("ProcessRaisedException")
        and "ValueError: broken" in raised
    ):
        words = [str(bad["by"])]
        words += ["no guardian"] if "no guardian" in err else []
        words += ["traceback on stderr"] if "standard error of the rank" in raised else []
        return Outcome(", ".join(words), [*faults, *_unexpected(err)])
    error = _short(good["raised"] or raised)
    if good["raised"] is None or "Error: [Errno" not in good["raised"]:
        faults.append(f"good: {good['raised']}; bad: {raised}; stderr: {err}")
    return Outcome(f"`{error}`", faults)


def _unexpected(err: str) -> Iterator[str]:
    """Yield stderr if it has a traceback that doesn't replace a report: no user should see that."""
    if "Traceback" in err and "ValueError: broken" not in err:
        yield f"stderr: {err}"


def _short(error: str) -> str:
    """Return an error's type and last line, without parts that differ from run to run."""
    kind, last = (
        error.partition(":")[0],
        error.strip().splitlines()[-1].removeprefix(f"{error.partition(':')[0]}: "),
    )
    return re.sub(r"'/[^']*'", "'...'", f"{kind}: {last}")[:120]


def _end_marked(mark: str, patience: float) -> list[str]:
    """Kill the processes of a run that still live after `patience` seconds. Return their command lines."""
    until = time.monotonic() + patience
    while (found := list(_marked(mark))) and time.monotonic() < until:
        time.sleep(0.05)
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    return [name for _, name in found]


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"{_MARK}={mark}".encode() in Path("/proc", name, "environ").read_bytes():
                yield (
                    int(name),
                    Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80],
                )


def table(outcomes: dict[Row, Outcome]) -> Iterator[str]:
    """Yield the lines of the table: one for each system call, with a column for each start method and backend."""
    columns = list(itertools.product(METHODS, backends.available()))
    yield "| denied | " + " | ".join(f"{method}, {backend}" for method, backend in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for call in CALLS:
        cells = []
        for method, backend in columns:
            by_errno = [outcomes[Row(call, errno, method, backend)].text for errno in ERRNOS]
            same = len(set(by_errno)) == 1
            cells.append(
                by_errno[0] if same else "; ".join(map(": ".join, zip(ERRNOS, by_errno, strict=True)))
            )
        yield f"| `{call}` | " + " | ".join(cells) + " |"


def write(outcomes: dict[Row, Outcome]) -> None:
    """Write the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    lines = "\n".join(table(outcomes))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def run_all(rows: Iterable[Row], workers: int) -> dict[Row, Outcome]:
    """Run rows, `workers` at a time, and print the outcome of each."""
    outcomes: dict[Row, Outcome] = {}
    rows = list(rows)
    with ThreadPoolExecutor(workers) as pool:
        for row, outcome in zip(rows, pool.map(run, rows), strict=True):
            outcomes[row] = outcome
            print(*row, "->", outcome.text, "FAULT" if outcome.faults else "", *outcome.faults, flush=True)
    return outcomes


def main() -> int:
    """Run the whole table, or a part of it. Return whether a row has a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", nargs="+", default=CALLS, help="the calls that are denied")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--backends", nargs="+", default=backends.available())
    parser.add_argument("--errnos", nargs="+", default=ERRNOS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    chosen = parser.parse_args()
    rows = [
        row for row in all_rows()
        if row.call in chosen.calls and row.method in chosen.methods
        and row.backend in chosen.backends and row.errno in chosen.errnos
    ]  # fmt: skip
    outcomes = run_all(rows, chosen.workers)
    serve = sum(outcome.serves for outcome in outcomes.values())
    faults = sum(bool(outcome.faults) for outcome in outcomes.values())
    print(f"{len(rows)} rows: {serve} serve, {len(rows) - serve} raise one error, {faults} have a fault")
    if chosen.write:
        write(outcomes)
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())

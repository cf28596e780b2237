"""Does anything leak from contexts that were joined, dropped, or interrupted?

`python -m tests.campaigns.contexts --runs 1000` starts 1000 contexts for each start method, backend and ending. An
ending joins them, drops them while their ranks live, or raises out of a signal handler at a random moment of start and
join. Then it counts the fds, children, guardians, threads and files of the supervisor. There must be no more than
before. A short form is in the suite: tests/unit/test_unjoined.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from spawnx import backends
from tests.support import ROOT

METHODS = ("spawn", "fork", "forkserver")
ENDINGS = ("joined", "dropped", "interrupted")
# Seconds without an answer after which the supervisor has hung.
HUNG_S = 120.0


class Row(NamedTuple):
    """A row of the table: the kind and the number of contexts."""

    method: str
    backend: str
    ending: str
    runs: int
    seed: int


def run(row: Row, show: bool = False) -> dict[str, Any]:
    """Run a row. Return the counts of its supervisor, or the fault that ended it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPAWNX_")}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaigns.context_supervisor", json.dumps(row._asdict())],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**environment, "TMPDIR": folder, "SPAWNX_BACKEND": row.backend, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        told: Any = 0
        assert process.stdout is not None
        with process.stdout:
            while isinstance(told, int) and (line := _line(process, process.stdout)):
                told = json.loads(line)
                if show and isinstance(told, int):
                    print(
                        f"\r{' '.join(row[:3])}: {told} of {row.runs}  ", end="", file=sys.stderr, flush=True
                    )
        code = process.wait()
        errors.seek(0)
        if not isinstance(told, dict):
            return {"fault": f"exit code {code} after {told} contexts: {errors.read().decode()[-4000:]}"}
    return told


def _line(process: subprocess.Popen[str], stdout: Any) -> str:
    """Return the next line of the supervisor; "" if it has ended, or has hung and was killed."""
    timer = threading.Timer(HUNG_S, process.kill)
    timer.start()
    try:
        return str(stdout.readline())
    finally:
        timer.cancel()


def faults(told: dict[str, Any]) -> list[str]:
    """Return the resources that the supervisor has after the run and did not have before."""
    if "fault" in told:
        return [told["fault"]]
    more = {name: told["after"][name] - before for name, before in told["before"].items()}
    left = [f"{number} {name} more" for name, number in more.items() if number > 0]
    left += [f"{told['active']} active children"] if told["active"] else []
    return left + told["what"] if left else []


def cells(row: Row, told: dict[str, Any]) -> str:
    """Format a row of the table."""
    if "fault" in told:
        return f"| {' | '.join(row[:3])} | {row.runs} | | {told['fault'].splitlines()[-1][:80]} |"
    counts = " | ".join(f"{before} → {told['after'][name]}" for name, before in told["before"].items())
    return f"| {' | '.join(row[:3])} | {row.runs} | {told['interrupts'] or ''} | {counts} |"


def campaign(rows: Sequence[Row], jobs: int) -> bool:
    """Run rows, `jobs` at a time. Return whether none has left anything."""
    good = True
    print(
        "| method | backend | contexts are | so many | interrupts | fds | children | guardians | threads | files |"
    )
    print("|" + " --- |" * 10, flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        show = [sys.stderr.isatty()] * len(rows)
        for row, told in zip(rows, pool.map(run, rows, show), strict=True):
            print(cells(row, told), flush=True)
            for fault in faults(told):
                good = False
                print(f"    {fault}", flush=True)
    print(f"{sum(row.runs for row in rows)} contexts: {'nothing' if good else 'something'} was left")
    return good


def rows_of(
    runs: int,
    seed: int,
    methods: Sequence[str] = METHODS,
    on: Sequence[str] | None = None,
    endings: Sequence[str] = ENDINGS,
) -> list[Row]:
    """Return the rows of a table, by default on all backends."""
    chosen = itertools.product(methods, on or backends.available(), endings)
    return [Row(*one, runs, seed + number) for number, one in enumerate(chosen)]


def main() -> None:
    """Run the rows and print the table. Exit with 1 if anything was left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=1000, metavar="N", help="contexts of each kind (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=int, help="of the moments of interrupts (default: a new one, which is printed)"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at once (default: 2)")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--backends", nargs="+", default=backends.available())
    parser.add_argument("--endings", nargs="+", default=ENDINGS, choices=ENDINGS)
    chosen = parser.parse_args()
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    sys.exit(
        not campaign(rows_of(chosen.runs, seed, chosen.methods, chosen.backends, chosen.endings), chosen.jobs)
    )


if __name__ == "__main__":
    main()

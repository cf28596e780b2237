"""Does a rank of each way leave what multiprocessing's leaves? `python -m tests.differential [--way WAY] [NAME…]`.

Prints the programs by kind, and each difference with a short diff; the exit code is that nothing undeclared differs.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

from tests.differential.catalogue import Program, programs
from tests.differential.comparison import ORACLES, WAYS, Outcome, difference, run
from tests.differential.declared import DECLARED
from tests.differential.driver import HUNG


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--way", action="append", choices=[*WAYS, *ORACLES], help="all of spawnx's if not given"
    )
    parser.add_argument("--quiet", action="store_true", help="no diffs")
    parser.add_argument("name", nargs="*", help="parts of the names of programs; all if not given")
    options = parser.parse_args()
    chosen = [
        program
        for name, program in programs().items()
        if not options.name or any(part in name for part in options.name)
    ]
    ways = [(WAYS | ORACLES)[name] for name in options.way or WAYS]
    undeclared = 0
    counts: dict[tuple[str, str], int] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, dict[str, Outcome]] = {}
        for number, way in enumerate(ways):
            if way.oracle not in expected:
                expected[way.oracle] = _timed(way.oracle, chosen, Path(folder) / f"o{number}")
            # The oracle may be compared with itself.
            for name, actual in _timed(way.name, chosen, Path(folder) / f"w{number}").items():
                program = programs()[name]
                lines = difference(program, expected[way.oracle][name], actual)
                if lines:
                    declared = name in DECLARED
                    undeclared += not declared
                    counts[program.kind, way.name] += 1
                    print(f"{way.name}: {name}{' (declared)' if declared else ''}")
                    if not options.quiet:
                        print(*(f"    {line}" for line in lines), sep="\n")
    _print_table(chosen, [way.name for way in ways], counts)
    return int(undeclared > 0)


def _timed(name: str, chosen: list[Program], folder: Path) -> dict[str, Outcome]:
    begun = time.monotonic()
    outcomes = run((WAYS | ORACLES)[name], chosen, folder)
    print(f"{name}: {len(outcomes)} programs in {time.monotonic() - begun:.1f} s")
    print(
        *(f"    {one} has hung\n" for one, outcome in outcomes.items() if outcome.code == HUNG),
        sep="",
        end="",
    )
    return outcomes


def _print_table(chosen: list[Program], ways: list[str], counts: dict[tuple[str, str], int]) -> None:
    """One line for each kind: how many programs, and how many differ by each way."""
    kinds = collections.Counter(program.kind for program in chosen)
    print("", "kind".ljust(12), "programs", *ways, sep="  ")
    for kind, count in [*kinds.items(), ("all", kinds.total())]:
        sums = [
            sum(number for (of, way), number in counts.items() if way == column and kind in (of, "all"))
            for column in ways
        ]
        cells = [str(number).rjust(len(column)) for number, column in zip(sums, ways, strict=True)]
        print("", kind.ljust(12), str(count).rjust(8), *cells, sep="  ")


if __name__ == "__main__":
    sys.exit(main())

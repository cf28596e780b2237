"""What was found, as a table: for the terminal, and for docs/platforms.md."""

from __future__ import annotations

import datetime as dt
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BEGIN, END = "<!-- made by: nox -s systems -- --write -->", "<!-- end -->"
# So many failures are counted in the document, and not listed.
MANY = 20
HEAD = (
    "python",
    "libc",
    "backend",
    "spawn",
    "fork",
    "forkserver",
    "passed",
    "failed",
    "skipped",
    "minutes",
    "when",
)


class Row(NamedTuple):
    """How the suite went on one Python of one system.

    Attributes:
        name: of the row, like "sid/3.14".
        facts: what `tests.systems.probe` says.
        counts: of tests: passed, failed, skipped.
        failed: the tests that failed, each with the first line of its error.
        fault: why there are no counts, if there are none.
        when: the date, and the commit of spawnx.
    """

    name: str
    facts: dict[str, Any]
    counts: tuple[int, int, int] | None = None
    failed: tuple[str, ...] = ()
    seconds: float = 0.0
    fault: str = ""
    when: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the suite came to its end, and nothing failed."""
        return self.counts is not None and not self.failed

    def cells(self) -> list[str]:
        """Its cells, under `HEAD`."""
        facts = self.facts
        counts = map(str, self.counts or ("-", self.fault or "-", "-"))
        launchers = facts.get("launchers", {})
        served = (launchers.get(method, "-") for method in ("spawn", "fork", "forkserver"))
        first = (facts.get("python", self.name), facts.get("libc", "-"), facts.get("backend", "-"))
        return [*first, *served, *counts, f"{self.seconds / 60:.0f}", self.when]

    def save(self, folder: Path) -> None:
        """Keep it for a later table, in the place of an earlier one."""
        folder.mkdir(exist_ok=True)
        name = self.name.replace("/", "-")
        (folder / f"{name}.json").write_text(json.dumps(self._asdict()), encoding="utf-8")


def saved(folder: Path, names: Iterable[str]) -> list[Row]:
    """What was kept of these rows, in this order."""
    paths = [folder / f"{name.replace('/', '-')}.json" for name in names]
    return [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in paths if path.is_file()]


def when() -> str:
    """Today, in UTC."""
    return f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}"


def read_junit(path: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The counts of a run of pytest, and the tests that failed. An error of a fixture is a failure, too."""
    cases = list(ET.parse(path).getroot().iter("testcase"))  # noqa: S314 - pytest has just written it
    # A test that fails, and leaves something as well, is there twice.
    failed = dict.fromkeys(
        _line(case, fault) for case in cases for fault in case if fault.tag in {"failure", "error"}
    )
    bad = {_name(case) for case in cases for fault in case if fault.tag in {"failure", "error"}}
    skipped = sum(1 for case in cases for part in case if part.tag == "skipped")
    names = {_name(case) for case in cases}
    return (len(names) - len(bad) - skipped, len(bad), skipped), tuple(failed)


def _name(case: ET.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"


def _line(case: ET.Element, fault: ET.Element) -> str:
    said = (fault.get("message") or "").splitlines() or [""]
    return f"{_name(case)}: {said[0][:120]}"


def plain(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """For the document: on what it was made, the table, and what failed."""
    machines = {f"{row.facts['machine']}, Linux {row.facts['kernel']}" for row in rows if row.facts}
    table = [
        f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows))
    ]
    failures = [
        f"- {row.cells()[0]}, {row.cells()[1]}: {line}" for row in rows for line in _brief(row.failed)
    ]
    return "\n".join(
        [f"{'; '.join(sorted(machines))}.", "", *table, *(["", "Failed:", "", *failures] if failures else [])]
    )


def _brief(failed: Sequence[str]) -> list[str]:
    """Each failure; of many, how many there are in each file."""
    if len(failed) <= MANY:
        return [f"`{line}`" for line in failed]
    counted = Counter(line.partition("::")[0] for line in failed)
    return [", ".join(f"`{name}` {count}" for name, count in counted.most_common())]


def write(document: Path, text: str) -> None:
    """Put it in the place of the one that is there."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no {BEGIN} … {END}")
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")

"""Does the suite pass on each Python, and with each libc, that people install today?

`python -m tests.systems` makes Debian trixie and sid in folders, by debootstrap, and runs the suite there on wheels of
spawnx, on CPython and on PyPy. `nox -s systems` builds the wheels before. Systems are made once and used again: 0.5 and
1 GB. It must run as root; what it mounts and starts is in namespaces of its own, and ends with it. The table in
docs/platforms.md is made of it by `--write`. What comes after `--` is pytest's.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tests.systems import table
from tests.systems.catalogue import SYSTEMS, Python
from tests.systems.roots import INSIDE, FailedError, Network, Root, environment, run, what_is_missing

HERE = Path(__file__).resolve().parents[2]
DOCUMENT = HERE / "docs" / "platforms.md"
FOLDER = Path("/var/tmp/spawnx-systems")  # noqa: S108 - nothing is found there that root has not made
BEGAN = time.monotonic()
# What argparse is told of each.
OPTIONS: dict[str, dict[str, Any]] = {
    "--list": {"action": "store_true", "help": "print the names of the rows, and end"},
    "--only": {
        "action": "append",
        "metavar": "NAME",
        "help": "these rows, like sid/3.14 or 'sid/*'; may be repeated",
    },
    "--folder": {
        "type": Path,
        "default": FOLDER,
        "help": "where systems are made, or have been made, and logs are written (%(default)s)",
    },
    "--wheels": {
        "type": Path,
        "metavar": "FOLDER",
        "help": "where the wheels are: one with the C core, one without",
    },
    "--mirror": {"default": "", "help": "Debian's archive; debootstrap knows one"},
    "--apt-option": {
        "action": "append",
        "default": [],
        "metavar": "OPTION",
        "help": "for apt's -o, like Acquire::Check-Valid-Until=false; may be repeated",
    },
    "--bind": {
        "action": "append",
        "default": [],
        "metavar": "PATH",
        "help": "a file or folder of this system that the others are to have, like /etc/pip.conf; may be repeated. "
        "PIP_* and *_proxy are handed over",
    },
    "--refresh": {"action": "store_true", "help": "install today's packages into systems that are there"},
    "--jobs": {
        "type": int,
        "default": 1,
        "help": "rows at a time; each wants two processors (%(default)s)",
    },
    "--limit": {
        "type": float,
        "default": 3600,
        "metavar": "SECONDS",
        "help": "what a suite may take (%(default)s)",
    },
    "--write": {
        "action": "store_true",
        "help": "make the table in docs/platforms.md of these rows, and of what the folder has of the others",
    },
    "pytest": {"nargs": "*", "help": "what pytest is told, after --"},
}
# What the tests need of the checkout; the package is in the wheel.
UNWANTED = shutil.ignore_patterns("spawnx", "*.egg-info", ".*", "build", "dist", "__pycache__", "results")


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.systems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, described in OPTIONS.items():
        parser.add_argument(name, **described)
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", flush=True)


def chosen(patterns: Sequence[str] | None) -> list[tuple[str, Python]]:
    """The rows that were asked for: name of the system, and Python."""
    rows = [(name, python) for name, system in SYSTEMS.items() for python in system.pythons]
    return [
        (name, python)
        for name, python in rows
        if any(fnmatch.fnmatch(f"{name}/{python.name}", pattern) for pattern in patterns or ["*"])
    ]


def make(roots: dict[str, Root], *, refresh: bool) -> None:
    """Make the systems that are not there yet, and install what they lack."""
    for name, root in roots.items():
        with open(root.folder / f"{name}.log", "w", encoding="utf-8") as log:
            if not root.is_made():
                say(f"{name}: debootstrap; it takes minutes: {log.name}")
                root.make(log)
            say(f"{name}: packages")
            root.install(log, again=refresh)
    for root in roots.values():
        if root.system.copies:
            root.copy_pythons(roots["sid"])


def needed(rows: Sequence[tuple[str, Python]], folder: Path, network: Network) -> dict[str, Root]:
    """The systems of these rows, and what they are copied from, by name."""
    names = {name for name, _ in rows}
    if any(SYSTEMS[name].copies for name in names):
        names.add("sid")
    return {name: Root(system, folder, network) for name, system in SYSTEMS.items() if name in names}


def wheel_of(python: Python, wheels: Path) -> Path:
    """The wheel that this Python is given.

    Raises:
        FailedError: there is not exactly one.
    """
    pure = set(wheels.glob("*-none-any.whl"))
    found = pure if python.wheel == "pure" else set(wheels.glob("*.whl")) - pure
    if len(found) != 1:
        raise FailedError(f"{wheels} has {len(found)} wheels for {python.name}, not one: {sorted(found)}")
    return found.pop()


def try_out(root: Root, python: Python, wheel: Path, asked: argparse.Namespace) -> table.Row:
    """Run the suite on one Python."""
    name = f"{root.system.suite}/{python.name}"
    work = root.folder / "runs" / name.replace("/", "-")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(HERE, work, ignore=UNWANTED)
    shutil.copy(wheel, work)
    began = time.monotonic()
    with open(f"{work}.log", "w", encoding="utf-8") as log:
        row = table.Row(name, {}, when=f"{table.when()}, {commit()}")
        try:
            row = row._replace(facts=install(root, python, f"{INSIDE}/{wheel.name}", work, log))
            say(f"{name}: the suite: {log.name}")
            row = suite(root, row, work, log, asked)
        except FailedError as failure:
            row = row._replace(fault=str(failure))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    row = row._replace(seconds=time.monotonic() - began)
    if not asked.pytest:  # else it is a part
        row.save(root.folder / "results")
    say(f"{name}: {row.fault or '{} passed, {} failed, {} skipped'.format(*row.counts or ())}")
    return row


def install(root: Root, python: Python, wheel: str, work: Path, log: IO[str]) -> dict[str, object]:
    """Install the wheel in an environment of its own; return what `tests.systems.probe` says there."""
    say(f"{root.system.suite}/{python.name}: pip")
    for command in (
        [python.path, "-m", "venv", f"{INSIDE}/venv"],
        [f"{INSIDE}/venv/bin/python", "-m", "pip", "install", "--quiet", f"{wheel}[test]"],
    ):
        run(root.command(command, work), log, environment())
    probe = root.command([f"{INSIDE}/venv/bin/python", "-m", "tests.systems.probe"], work)
    done = subprocess.run(probe, capture_output=True, text=True, check=False, env=environment(), timeout=120)
    log.write(done.stdout + done.stderr)
    if done.returncode:
        raise FailedError(f"no rank ran to its end; see {log.name}")
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def suite(root: Root, row: table.Row, work: Path, log: IO[str], asked: argparse.Namespace) -> table.Row:
    """Run pytest, and read what it has counted."""
    command = [
        f"{INSIDE}/venv/bin/python",
        "-m",
        "pytest",
        "-v",  # which test is running, or hangs, is in the log
        "-p",
        "no:cacheprovider",
        f"--junitxml={INSIDE}/junit.xml",
    ]
    try:
        run(root.command([*command, *asked.pytest], work), log, environment(), asked.limit)
    except FailedError:  # tests have failed, or all of pytest has
        if not (work / "junit.xml").is_file():
            raise
    counts, failed = table.read_junit(work / "junit.xml")
    return row._replace(counts=counts, failed=failed)


@functools.cache  # of all rows, whatever is committed meanwhile
def commit() -> str:
    """Which spawnx it was."""
    command = ["git", "-c", f"safe.directory={HERE}", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no checkout
        return "?"
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the systems, run the suites, print the table; 1 if anything failed."""
    asked = options(sys.argv[1:] if arguments is None else arguments)
    rows = chosen(asked.only)
    if asked.list or not rows:
        print("\n".join(f"{name}/{python.name}" for name, python in rows) or "no row has such a name: --list")
        return 0 if rows else 2
    if asked.wheels is None:
        print("--wheels says where the wheels are; `nox -s systems` builds them")
        return 2
    network = Network(asked.mirror, tuple(asked.apt_option), tuple(asked.bind))
    asked.folder.mkdir(parents=True, exist_ok=True)
    roots = needed(rows, asked.folder.resolve(), network)
    missing = what_is_missing(to_make=not all(root.is_made() for root in roots.values()))
    if missing:
        print(f"can't run: {missing}")
        return 2
    commit()
    try:
        wheels = [wheel_of(python, asked.wheels) for _, python in rows]
        make(roots, refresh=asked.refresh)
    except FailedError as failure:
        print(failure)
        return 2
    with ThreadPoolExecutor(asked.jobs) as pool:
        work = [
            (roots[name], python, wheel, asked) for (name, python), wheel in zip(rows, wheels, strict=True)
        ]
        found = list(pool.map(lambda one: try_out(*one), work))
    tell(found)
    if asked.write:
        names = [f"{name}/{python.name}" for name, python in chosen(None)]
        table.write(DOCUMENT, table.markdown(table.saved(asked.folder / "results", names)))
    return 0 if all(row.is_good for row in found) else 1


def tell(found: Sequence[table.Row]) -> None:
    """Print the table, and what failed."""
    print(f"\n{table.plain(found)}\n")
    for row in found:
        for line in row.failed or ([row.fault] if row.fault else []):
            print(f"{row.name}: {line}")


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())

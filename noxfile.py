"""The project's checks, each in an environment of its own: `nox -l` lists them, `nox -s NAME` runs one.

What comes after `--` goes to the tool: `nox -s tests-3.13 -- -k join`, `nox -s bench -- --quick`.
"""

from __future__ import annotations

from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# The version that is matched: messages, signatures and defaults are read off it at run time.
TORCH = "torch==2.13.0"

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, as linter and as formatter."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """The package under `mypy --strict`."""
    session.install("-e", ".[lint]")
    session.run("mypy", "--strict", "spawnx", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite without torch: what spawnx promises to those who don't have it."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def oracle(session: nox.Session) -> None:
    """The suite with torch: every test of behaviour runs on the original as well."""
    session.install("-e", ".[test]", TORCH)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def callers(session: nox.Session) -> None:
    """Torch elastic and Lightning, launched by spawnx and by torch."""
    session.install("-e", ".[test,callers]", TORCH)
    session.run("python", "-m", "pytest", "tests/callers", *session.posargs)


@nox.session
def example(session: nox.Session) -> None:
    """What a newcomer runs: the self-test of the command line, and DDP over gloo on real digits."""
    session.install("-e", ".[example]", TORCH)
    session.run("python", "-m", "spawnx")
    session.run("python", "examples/train_ddp.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, one after the other; `-- --quick` for a first look."""
    session.install("-e", ".[test]", TORCH)
    for file in sorted(Path("benchmarks").glob("bench_*.py")):
        session.run("python", "-m", f"benchmarks.{file.stem}", *session.posargs)

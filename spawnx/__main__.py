"""`python -m spawnx` shows what spawnx uses on this system and what is missing, then checks and times a first run."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import platform
import signal
import sys
import textwrap
import time

import spawnx
from spawnx import backends, container, selftest, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

_REPETITIONS = 5
# On a busy machine, medians of so few runs differ by up to this factor without a cause.
_NOISE = 1.15
# The widths of the two columns on the left and of the text column.
_LEFT, _NAME, _TEXT = 11, 21, 88
_GUARDED = (
    "Each call starts a guardian as well, which ends the ranks if this process is killed; "
    "multiprocessing's have none."
)
# Why few light ranks may be slower than multiprocessing's: launcher -> its fixed cost.
_FIXED_COSTS = {
    "clone": "Each call starts one interpreter more, from which the ranks are cloned: that pays from a few ranks on, "
    "and the sooner the more they import. " + _GUARDED,
    "forkserver": "Each call clones an interpreter, from which the ranks are cloned: that pays where they import much, "
    "such as torch. " + _GUARDED,
    "stdlib": "The ranks were started by multiprocessing, too (see launchers): no gain is to be expected.",
}


def main(arguments: Sequence[str] | None = None, expected: int = selftest.PRIMES_BELOW_LIMIT) -> int:
    """Run the command.

    Args:
        arguments: the command line without the program's name; None takes `sys.argv`.
        expected: the number of primes that the ranks should find.

    Returns:
        The exit code: 1 if a rank failed, or the ranks found another number.

    Raises:
        BrokenPipeError: the reader of the output has closed its end.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    with _collected_warnings() as warnings:
        try:
            facts = _facts(asked.ranks, warnings)
        except (ValueError, RuntimeError) as error:  # an invalid setting
            parser.error(str(error))
        if not asked.json:
            _print_facts(facts)
        try:
            runs = selftest.compare(asked.ranks, asked.start_method, _REPETITIONS, _progress_line())
        except _FAILURES as error:
            return _fail(f"the ranks did not run to their end: {error}")
        finally:
            for text in warnings[len(facts["warnings"]) :]:
                print(f"WARNING: {text}", file=sys.stderr)
    result = _result(asked.ranks, asked.start_method, runs, expected)
    if asked.json:
        print(json.dumps({**facts, **result, "warnings": warnings}, indent=2))
    else:
        _print_result(result)
    wrong = [
        f"{way}'s ranks counted {primes}" for way, primes in result["primes"].items() if primes != expected
    ]
    if wrong:
        return _fail(f"there are {expected} primes below {selftest.LIMIT}, but {' and '.join(wrong)}")
    return 0


def _fail(text: str) -> int:
    print(f"FAILED: {text}", file=sys.stderr)
    return 1


# -- the command line -----------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spawnx",
        description="Show what spawnx uses here and why; then start ranks that do a little work, check what "
        "they return, and time them beside multiprocessing's.",
    )
    parser.add_argument(
        "--ranks",
        type=_number_of_ranks,
        default=min(8, max(2, 2 * _cpus())),
        metavar="N",
        help="how many ranks to start (default here: %(default)s)",
    )
    parser.add_argument(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        default="spawn",
        help="how to start them (default: %(default)s, as spawnx.spawn does)",
    )
    parser.add_argument("--version", action="version", version=f"spawnx {spawnx.__version__}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead; times in seconds")
    return parser


def _number_of_ranks(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= selftest.MOST_RANKS:
        msg = f"give a whole number from 1 to {selftest.MOST_RANKS}, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _cpus() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _progress_line() -> Callable[[int, int], None]:
    """Make a function that shows the count of runs on stderr, if that is a terminal and a second has passed."""
    began = time.monotonic()

    def show(done: int, runs: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - began > 1:
            line = f"\r{done} of {runs} runs" if done < runs else "\r\x1b[K"
            print(line, end="", file=sys.stderr, flush=True)

    return show


# -- the facts ------------------------------------------------------------------------------------------------


_FAILURES = (spawnx.ProcessException, OSError, RuntimeError)


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of the logger `spawnx` instead of printing them; each text once."""
    texts: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in texts:
                texts.append(record.getMessage())

    handler = Handler(logging.WARNING)
    logging.getLogger("spawnx").addHandler(handler)
    try:
        yield texts
    finally:
        logging.getLogger("spawnx").removeHandler(handler)


def _facts(ranks: int, warnings: Sequence[str]) -> dict[str, Any]:
    """What spawnx uses on this system, and why.

    Args:
        ranks: the number of ranks that the run will start.
        warnings: the list in which warnings are collected.

    Raises:
        ValueError, RuntimeError: a `SPAWNX_*` variable is invalid on this system.
    """
    settings.check()
    backend, reason = backends.choose()
    return {
        "version": spawnx.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpus": _cpus(),
        "backend": {"name": backend.name, "reason": reason},
        "launchers": {method: _who_serves(method) for method in multiprocessing.get_all_start_methods()},
        "missing": {
            what: {"cost": cost, "cure": cure} for what, cost, cure in container.lacks(ranks, _cpus())
        },
        "warnings": list(warnings),
        "features": backend.features(),
        "settings": {
            setting.name: {"value": setting.read(), "set": bool(os.environ.get(setting.name))}
            for setting in settings.ALL
        },
    }


def _who_serves(start_method: str) -> dict[str, str]:
    """The launcher that serves a start method. Found by a real call, as the intended launcher may fall back."""
    try:
        name, reason = selftest.who_serves(start_method)
    except _FAILURES as error:
        name, reason = "none", f"{type(error).__name__}: {error}"
    return {"name": name, "reason": reason}


def _result(
    ranks: int, start_method: str, runs: Mapping[str, Sequence[selftest.Run]], expected: int
) -> dict[str, Any]:
    return {
        "ranks": ranks,
        "start_method": start_method,
        "launcher": dict(zip(("name", "reason"), runs["spawnx"][-1].launcher or ("", ""), strict=True)),
        "limit": selftest.LIMIT,
        "primes_expected": expected,
        # If the runs differ, a wrong count.
        "primes": {
            way: next((run.primes for run in of_way if run.primes != expected), expected)
            for way, of_way in runs.items()
        },
        "repetitions": _REPETITIONS,
        "medians": {way: _medians(of_way) for way, of_way in runs.items()},
    }


def _medians(runs: Sequence[selftest.Run]) -> dict[str, float]:
    """The medians in seconds. That of the total is the median of the totals, not the sum of the medians."""
    return {
        what: round(selftest.median([getattr(run, what) for run in runs]), 6)
        for what in ("start", "join", "total")
    }


# -- the text output ------------------------------------------------------------------------------------------


def _print_facts(facts: Mapping[str, Any]) -> None:
    cpus = _counted(facts["cpus"], "CPU")
    print(f"spawnx {facts['version']} on {facts['python']}, {facts['platform']}, {cpus}\n")
    backend = facts["backend"]
    _print_section("backend", [(backend["name"], backend["reason"])])
    _print_section(
        "launchers", [(m, f"{way['name']}: {way['reason']}") for m, way in facts["launchers"].items()]
    )
    _print_section("features", facts["features"].items())
    _print_section(
        "settings",
        [(n, s["value"] if s["set"] else f"{s['value']} (default)") for n, s in facts["settings"].items()],
    )
    missing = [(what, f"{lack['cost']}: {lack['cure']}") for what, lack in facts["missing"].items()]
    _print_section("missing", missing or [("nothing", "of what is looked for")])
    _print_section("warnings", [("", text) for text in facts["warnings"]])
    print(flush=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print_section(title: str, rows: Iterable[tuple[str, str]]) -> None:
    for name, text in rows:
        left = f"{title:<{_LEFT}}{name:<{_NAME - 1}} "
        for line in textwrap.wrap(text, _TEXT) or [""]:
            print(f"{left}{line}".rstrip())
            left = " " * (_LEFT + _NAME)
        title = ""


def _print_result(result: Mapping[str, Any]) -> None:
    counted, launcher = result["primes"]["spawnx"], result["launcher"]["name"]
    print(
        f"{_counted(result['ranks'], 'rank')} by {result['start_method']}, served by {launcher}, "
        f"counted {counted} primes below {result['limit']}.\n"
    )
    print(f"{'':<19}{'start':>12}{'join':>12}{'total':>12}")
    for way, medians in result["medians"].items():
        print(f"{way:<19}" + "".join(f"{1000 * seconds:>9.1f} ms" for seconds in medians.values()))
    print(
        f"\nMedians of {result['repetitions']} runs each, taken in turns, of the same work.\n"
        "start: until the calls that start all ranks have returned. join: from then until all have ended;\n"
        "whatever of their boot and work was still to be done is in it. So compare the totals.\n"
        + textwrap.fill(_compared(result["medians"], launcher), _LEFT + _NAME + _TEXT)
    )


def _compared(medians: Mapping[str, Mapping[str, float]], launcher: str) -> str:
    ours, theirs = medians["spawnx"]["total"], medians["multiprocessing"]["total"]
    if theirs > _NOISE * ours:
        return f"spawnx was {theirs / ours:.1f} times as fast."
    if ours <= _NOISE * theirs:
        return "The difference is within the noise of so few runs."
    longer = f"{1000 * (ours - theirs):.0f} ms longer, {ours / theirs:.1f} times as long"
    return f"spawnx took {longer}. {_FIXED_COSTS.get(launcher, _GUARDED)}"


def _run() -> int:
    """Run the command. If the reader closes the pipe early (`| head`), exit quietly, as after SIGPIPE."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter's last flush of stdout fails too, and prints an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)
    return code


if __name__ == "__main__":
    sys.exit(_run())

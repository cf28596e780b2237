"""The harness of all benchmarks: a fresh process per sample, variants in turns, medians and quartiles, JSON lines.

A benchmark is a module whose docstring begins with its question. Its function `cases(quick)` gives ids such as
"start/python/fork/n=1000". Its function `measure(id)` takes one sample: metric -> value. The second part of an id is
the variant. `floor` is the empty case. The figures of other variants are also given as multiples of it.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import spawnx
from benchmarks import limit

ROOT = Path(__file__).parent.parent
SAMPLE_LIMIT_S = 600

Metrics = dict[str, float]
Samples = dict[str, list[Metrics]]


def main(module: str, cases: Callable[[bool], Iterable[str]], repetitions: int = 9) -> None:
    """Run a benchmark from the command line.

    Args:
        module: the name of the benchmark, from which the process of each sample imports `measure`.
        cases: gives the ids; fewer and smaller ones if its argument, quick, is true.
        repetitions: how many samples of each case; fewer if quick.
    """
    question = sys.modules["__main__"].__doc__ or ""
    options = _parse(question, repetitions)
    ids = [case for case in cases(options.quick) if options.only in case]
    if not ids:
        sys.exit(f"no case has {options.only!r} in its id")
    environment = _environment()
    # As in an installed package: where PYTHONDONTWRITEBYTECODE is set, each rank would compile what it imports.
    for package in (spawnx.__file__, __file__):
        compileall.compile_dir(Path(package).parent, quiet=2)
    print(question.splitlines()[0])
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    samples = _take_samples(module, ids, options.repetitions or (3 if options.quick else repetitions))
    print("\n" + "\n".join(_table(samples)))
    if options.json:
        _append(options.json, environment, samples)


def sample(module: str, case: str) -> None:
    """Take one sample and print it. The process does nothing else."""
    print(json.dumps(importlib.import_module(module).measure(case)))


def has_torch() -> bool:
    """Whether torch is installed, so that the reference can be measured."""
    return importlib.util.find_spec("torch") is not None


def _parse(question: str, repetitions: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument(
        "--repetitions",
        type=int,
        metavar="N",
        help=f"samples of each case (default: {repetitions}, quick: 3)",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose id has this in it")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="append every sample to FILE, one JSON a line"
    )
    return parser.parse_args()


def _environment() -> dict[str, str]:
    """Return the versions and the state of the machine on which figures depend."""
    environment = {
        "spawnx": spawnx.__version__,
        platform.python_implementation(): platform.python_version(),
        "on": platform.platform(),
        "floor": limit.kind(),
        "CPUs": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }
    with suppress(importlib.metadata.PackageNotFoundError):
        environment["torch"] = importlib.metadata.version("torch")
    return environment


# -- samples --------------------------------------------------------------------------------------------------


def _take_samples(module: str, ids: Sequence[str], repetitions: int) -> Samples:
    """Take samples of all cases in turns, so that other load on the machine affects all cases alike."""
    samples: Samples = {case: [] for case in ids}
    turns = [case for _ in range(repetitions) for case in ids]
    for done, case in enumerate(turns):
        _progress(f"{done} of {len(turns)}: {case}")
        samples[case].append(_sample_in_fresh_process(module, case))
    _progress("")
    return samples


def _sample_in_fresh_process(module: str, case: str) -> Metrics:
    # Run by -c: so ranks of the start method spawn have no main module to import again.
    code = f"from benchmarks import harness; harness.sample({module!r}, {case!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=SAMPLE_LIMIT_S)
        finally:
            # Ends the ranks of a sample that has failed. One that succeeded has left none.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        sys.exit(f"{case} failed with exit code {process.returncode}")
    metrics: Metrics = json.loads(output)
    return metrics


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# -- results --------------------------------------------------------------------------------------------------


def _table(samples: Samples) -> Iterator[str]:
    """Yield a line for each case: the median and quartiles of each metric, and the medians in relation to the floor."""
    metrics = list(dict.fromkeys(name for of_case in samples.values() for name in of_case[0]))
    rows = [["median [quartiles]", *metrics, "/ floor"]]
    for case, of_case in samples.items():
        columns = ([sample[name] for sample in of_case if name in sample] for name in metrics)
        rows.append([case, *map(_cell, columns), _relation(case, samples)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells])


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = _number(statistics.median(values))
    if len(set(values)) == 1:
        return middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Format with three significant digits, or all digits of a whole number."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def _relation(case: str, samples: Samples) -> str:
    """Return each metric in relation to that of the floor with the same modules loaded."""
    variant = case.split("/")[1]
    floor = case.replace(f"/{variant}/", "/floor+torch/" if "torch" in variant else "/floor/")
    if floor not in samples:
        return ""
    ours, least = (
        {name: statistics.median(sample[name] for sample in samples[which]) for name in samples[which][0]}
        for which in (case, floor)
    )
    return ", ".join(f"{ours[name] / least[name]:.2f}" if least.get(name) else "-" for name in ours)


def _append(file: Path, environment: Mapping[str, str], samples: Samples) -> None:
    with file.open("a", encoding="utf-8") as lines:
        for case, of_case in samples.items():
            for metrics in of_case:
                print(json.dumps({"id": case, **metrics, "environment": environment}), file=lines)

"""Where does the time of a call of spawn go, from the call until all ranks are joined?

The stages follow each other; each time is in milliseconds.

- `prepare`: the call is pickled, the guardian starts, the template is launched.
- `template`: its interpreter starts, reads its message, and imports.
- `clones`: all ranks are forked, the guardian holds them by their pidfds, the template ends, and they are adopted.
- `hold`: each Process gets its rank, the watcher registers the ranks, and the gate opens.
- `boot`: ranks run the main module and unpickle their arguments, until the last one has reached its function.
- `end`: until the last rank is joined.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import spawnx
from benchmarks import harness, light
from spawnx import backends
from spawnx.guard import Guard
from spawnx.guard.child import Child
from spawnx.launchers.template import Template

SIZES = {"light": [8, 1000], "torch": [8]}
SIZES_QUICK = {"light": [8], "torch": [8]}
# Runs when the template's interpreter starts. Writes the time when the template has imported all and begins to clone.
IN_TEMPLATE = """
import sys
if any("spawnx.remote.template" in argument for argument in sys.orig_argv):
    import time
    from pathlib import Path
    from spawnx.remote import template
    clone = template._clone
    def say_and_clone(*arguments, **options):
        Path({stamp!r}).write_text(str(time.monotonic()), encoding="ascii")
        return clone(*arguments, **options)
    template._clone = say_and_clone
"""


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    if "native" not in backends.available():
        sys.exit("this one needs the C core, which clones")
    for kind, sizes in (SIZES_QUICK if quick else SIZES).items():
        if kind == "light" or harness.has_torch():
            for size in sizes:
                yield f"stages/native/{kind}/n={size}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, kind, size = case.split("/")
    os.environ["SPAWNX_BACKEND"] = name
    if kind == "torch":
        importlib.import_module("torch")
    stamps: dict[str, float] = {}
    _stamp_after(Child, "launch", "prepare", stamps)
    _stamp_after(Template, "_take", "adopted", stamps, before="clones")
    _stamp_after(Guard, "open_gate", "hold", stamps)
    reader, writer = spawnx.get_context("spawn").Pipe(duplex=False)
    ranks = int(size.removeprefix("n="))
    with tempfile.TemporaryDirectory() as folder:
        stamp = Path(folder, "stamp")
        Path(folder, "sitecustomize.py").write_text(IN_TEMPLATE.format(stamp=str(stamp)), encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(harness.ROOT)])
        began = time.monotonic()
        context = spawnx.spawn(light.stamp, (writer, kind == "torch"), ranks, join=False)
        assert context is not None
        assert context.launcher == "clone"
        booted = max(_read(reader) for _ in range(ranks))
        context.join_all()
        ended = time.monotonic()
        imported = float(stamp.read_text(encoding="ascii"))
    marks = [began, stamps["prepare"], imported, stamps["clones"], stamps["hold"], booted, ended]
    stages = ("prepare", "template", "clones", "hold", "boot", "end")
    return {
        "all ms": 1000 * (ended - began),
        **{stage: 1000 * (marks[i + 1] - marks[i]) for i, stage in enumerate(stages)},
    }


def _stamp_after(owner: Any, name: str, stage: str, stamps: dict[str, float], before: str = "") -> None:
    """Note the time when a method returns; under the name `before`, also the time when it is called."""
    function = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        if before:
            stamps[before] = time.monotonic()
        result = function(*args, **options)
        stamps[stage] = time.monotonic()
        return result

    setattr(owner, name, wrapped)


def _read(reader: Any) -> float:
    return float(os.read(reader.fileno(), light.STAMP_BYTES))


if __name__ == "__main__":
    harness.main("benchmarks.bench_stages", cases, repetitions=5)

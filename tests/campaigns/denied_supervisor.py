"""One run of the campaign `denied`: a supervisor in a sandbox, which prints the outcome of its calls."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import sys
import time
from typing import Any

import spawnx
from tests import ranks, sandbox


def call(method: str, fn: Any, *args: Any) -> dict[str, Any]:
    """Make a call. Return its launcher, the exception, the seconds that it took, and how many ranks are left."""
    began = time.monotonic()
    told: dict[str, Any] = {"by": None, "raised": None, "left": 0}
    try:
        context = spawnx.start_processes(fn, args, 2, join=False, start_method=method)
        assert context is not None
        told["by"] = context.launcher
        while not context.join():
            pass
    except Exception as error:  # noqa: BLE001 - any error is reported
        told["raised"] = f"{type(error).__name__}: {error}"
    told["seconds"] = time.monotonic() - began
    with contextlib.suppress(
        OSError
    ):  # multiprocessing can't poll its children either; the campaign counts processes at the end
        told["left"] = len(multiprocessing.active_children())
    return told


def main() -> None:
    """Run as the supervisor. Arguments: the denied system call or "none", the name of the errno, the start method."""
    denied, answer, method = sys.argv[1:]
    if denied != "none":
        sandbox.deny(denied, getattr(errno, answer))
    good = call(method, ranks.nothing)
    bad = call(method, ranks.one_does_others_wait, 1, ranks.raise_value_error, "broken")
    sys.stdout.write(json.dumps([good, bad]))


if __name__ == "__main__":
    main()

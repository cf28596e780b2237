"""One run of the campaign `denied`: a supervisor in a sandbox, which says how its calls went."""

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
    """Make a call; by which launcher, what it raised, how long it took, and how many ranks were left."""
    began = time.monotonic()
    told: dict[str, Any] = {"by": None, "raised": None, "left": 0}
    try:
        context = spawnx.start_processes(fn, args, 2, join=False, start_method=method)
        assert context is not None
        told["by"] = context.launcher
        while not context.join():
            pass
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        told["raised"] = f"{type(error).__name__}: {error}"
    told["seconds"] = time.monotonic() - began
    with contextlib.suppress(
        OSError
    ):  # multiprocessing can't look either; who counts them in the end is the campaign
        told["left"] = len(multiprocessing.active_children())
    return told


def main() -> None:
    """Be it: the arguments are the call that is denied, the name of the errno, and the start method."""
    denied, answer, method = sys.argv[1:]
    if denied != "none":
        sandbox.deny(denied, getattr(errno, answer))
    good = call(method, ranks.nothing)
    bad = call(method, ranks.one_does_others_wait, 1, ranks.raise_value_error, "broken")
    sys.stdout.write(json.dumps([good, bad]))


if __name__ == "__main__":
    main()

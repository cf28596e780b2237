"""The launchers, each of which is a way to start ranks, and the one function that chooses among them."""

from __future__ import annotations

import os
import sys

from spawnx import settings
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.backends.contract import Backend
    from spawnx.launchers.contract import Launcher, Served


# Name and reason of the launcher that has started the ranks of this process's last call.
_served: tuple[str, str] | None = None


def note_served(served: Served) -> None:
    """Record which launcher has started the ranks of a call."""
    global _served  # noqa: PLW0603 - one per process
    _served = served.name, served.reason


def served() -> tuple[str, str]:
    """Return name and reason of the last call's launcher; before the first call, of the one that `spawn` would use.

    Raises:
        ValueError: there was no call yet, and `SPAWNX_BACKEND` or `SPAWNX_LAUNCHER` is invalid.
        RuntimeError: there was no call yet, and `SPAWNX_BACKEND` names a backend that this installation lacks.
    """
    if _served is not None:
        return _served
    with standard_library():
        from spawnx import backends

    launcher = choose("spawn", backends.choose()[0])
    return launcher.name, launcher.reason


def choose(start_method: str, backend: Backend) -> Launcher:
    """Choose the launcher for a start method.

    Raises:
        ValueError: `SPAWNX_LAUNCHER` is invalid.
    """
    with standard_library():
        from spawnx.launchers import stdlib

    wanted = settings.LAUNCHER.read()
    setting = f"{settings.LAUNCHER.name}={wanted}"
    clones = wanted != "exec" and backend.can_clone
    if why := setting if wanted == "stdlib" else _why_stdlib(start_method, backend, clones=clones):
        return stdlib.StdlibLauncher(why, start_method)
    if start_method == "fork":
        with standard_library():
            from spawnx.launchers import fork

        return fork.ForkLauncher("pidfds can hold forked ranks")
    if start_method == "forkserver":
        with standard_library():
            from spawnx.launchers import forkserver

        return forkserver.ForkserverLauncher("the C core clones the zygote")
    if not clones:
        with standard_library():
            from spawnx.launchers import exec as exec_

        return exec_.ExecLauncher(setting if wanted == "exec" else "pidfds can hold fresh interpreters")
    with standard_library():
        from spawnx.launchers import clone

    return clone.CloneLauncher("the C core clones one fresh interpreter")


def _why_stdlib(start_method: str, backend: Backend, *, clones: bool) -> str | None:
    """Return why multiprocessing must start the ranks of a start method; None if a launcher of ours can."""
    fresh = start_method != "fork"
    reasons = {
        "this system has no pidfds": not backend.has_pidfd(),
        "without clones, multiprocessing's forkserver starts the ranks": start_method == "forkserver"
        and not clones,
        "this system has no memfd_create": fresh and not hasattr(os, "memfd_create"),
        "a frozen program has an interpreter of its own": fresh and getattr(sys, "frozen", False),
        "a debugger patches how multiprocessing starts processes": fresh and "pydevd" in sys.modules,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)

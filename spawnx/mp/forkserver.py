"""multiprocessing's own forkserver: its pid and its preload."""

from __future__ import annotations

import multiprocessing.process
import os
import sys
from multiprocessing import spawn

from spawnx.mp import process as mp_process
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# The longest argument of a command line, in bytes (execve(2): MAX_ARG_STRLEN).
_MOST_ARGUMENT = 128 * 1024


def pid() -> int:
    """Return the pid of the forkserver, the parent of all forkserver ranks; start it if it does not run."""
    with standard_library():
        from multiprocessing import forkserver

        server: Any = forkserver._forkserver
        if hasattr(server, "_forkserver_authkey"):
            import hmac  # noqa: F401 - CPython 3.14 imports it late, when it asks for a rank
        preload = server._preload_modules
        if not _has_short_text(sys.path):
            # With a preload, the path goes as text onto the command line: with this path, the interpreter can't start.
            server._preload_modules = []
        try:
            server.ensure_running()
        finally:
            server._preload_modules = preload
    return int(server._forkserver_pid)


def _has_short_text(path: list[Any]) -> bool:
    """Whether `repr(path)` evaluates to the path, and fits into an argument of a command line, with some room."""
    return all(type(entry) is str for entry in path) and len(repr(path)) < _MOST_ARGUMENT // 2


def preload() -> list[str]:
    """Return the modules that were given to `multiprocessing.set_forkserver_preload`; none if it was not called."""
    module = sys.modules.get("multiprocessing.forkserver")
    names: list[str] = [] if module is None else list(module._forkserver._preload_modules)
    # The default. It doesn't show whether the program has asked for it.
    return [] if names == ["__main__"] else names


def preload_must_succeed() -> bool:
    """Return whether `multiprocessing.set_forkserver_preload` was called with `on_error="fail"` (CPython 3.15)."""
    module = sys.modules.get("multiprocessing.forkserver")
    return getattr(getattr(module, "_forkserver", None), "_preload_on_error", None) == "fail"


def imports() -> str:
    """Return the names of what multiprocessing's forkserver preloads, as text: the main module by its path."""
    with standard_library():
        from multiprocessing import forkserver

    data = spawn.get_preparation_data("")
    main = data.get("init_main_from_path") or data.get("init_main_from_name")
    names = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
    return ", ".join(str(main or name) if name == "__main__" else name for name in names)


def forked_by(process: multiprocessing.process.BaseProcess) -> int:
    """Return the pid of a started process's parent: this process, or the forkserver."""
    return pid() if getattr(mp_process.popen_of(process), "method", None) == "forkserver" else os.getpid()

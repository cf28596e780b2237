"""multiprocessing's own forkserver: its pid, and what it was told to import."""

from __future__ import annotations

import multiprocessing.context
import multiprocessing.process
import multiprocessing.util
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
    """The pid of the running forkserver, which is started if need be: the parent of all forkserver ranks."""
    with standard_library():
        from multiprocessing import forkserver

        server: Any = forkserver._forkserver
        if hasattr(server, "_forkserver_authkey"):
            import hmac  # noqa: F401 - by which it is asked for ranks, late (CPython 3.14)
        preload = server._preload_modules
        if not _has_short_text(sys.path):
            # With what it preloads comes the path, as text on the command line: an interpreter that does not start.
            server._preload_modules = []
        try:
            server.ensure_running()
        finally:
            server._preload_modules = preload
    return int(server._forkserver_pid)


def _has_short_text(path: list[Any]) -> bool:
    """Whether `repr(path)` is the path in Python, and fits into an argument of a command line, with some room."""
    return all(type(entry) is str for entry in path) and len(repr(path)) < _MOST_ARGUMENT // 2


def preload() -> list[str]:
    """What `multiprocessing.set_forkserver_preload` was told, if it was."""
    module = sys.modules.get("multiprocessing.forkserver")
    names: list[str] = [] if module is None else list(module._forkserver._preload_modules)
    # What it begins with, and what doesn't tell whether anybody has asked for it.
    return [] if names == ["__main__"] else names


def preload_must_succeed() -> bool:
    """Whether `multiprocessing.set_forkserver_preload` was told `on_error="fail"` (CPython 3.15)."""
    module = sys.modules.get("multiprocessing.forkserver")
    return getattr(getattr(module, "_forkserver", None), "_preload_on_error", None) == "fail"


def imports() -> str:
    """What multiprocessing's forkserver imports before it serves, in words: the main module by its path."""
    with standard_library():
        from multiprocessing import forkserver

    data = spawn.get_preparation_data("")
    main = data.get("init_main_from_path") or data.get("init_main_from_name")
    names = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
    return ", ".join(str(main or name) if name == "__main__" else name for name in names)


def forked_by(process: multiprocessing.process.BaseProcess) -> int:
    """The pid of the process whose child a started one is: this one, or the forkserver."""
    return pid() if getattr(mp_process.popen_of(process), "method", None) == "forkserver" else os.getpid()

"""The function that the command line of a fresh interpreter calls: see `mp.interpreter.command`."""

from __future__ import annotations

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def call(module: str, function: str, file: int, at: int, size: int) -> Any:
    """Call a function of a module of spawnx with `file`, and with the arguments that are pickled in that file.

    The module, with the standard modules that it needs, is imported before the supervisor's `sys.path` is in force.
    """
    with standard_library():
        import os
        import pickle
        from importlib import import_module

        main = getattr(import_module(module), function)
        arguments = pickle.loads(os.pread(file, size, at))  # noqa: S301 - from our supervisor
    return main(file, **arguments)

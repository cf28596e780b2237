"""spawnx starts N ranks, watches them, and makes sure that nothing is left behind.

A drop-in for `torch.multiprocessing.spawn` that needs no torch::

    import spawnx as mp

    mp.spawn(train, args=(cfg,), nprocs=8)

The package defines the names of the reference: `spawn`, `start_processes`, `ProcessContext`, `SpawnContext`,
`ProcessException`, `ProcessRaisedException`, `ProcessExitedException`. Every other name (`get_context`,
`Queue`, `set_sharing_strategy`, …) is looked up at each use: on `torch.multiprocessing` if that is loaded, else on
`multiprocessing`.

`backend` and `backend_reason` describe the backend of the next call. `launcher` and `launcher_reason` describe the
launcher of the last call of this process; before the first call, the one that `spawn` would use.

Every rank imports this package. So this module imports no other module of spawnx and not even `__future__`: it imports
the module that defines a name when the name is first used.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing import *  # noqa: F403
    from types import ModuleType
    from typing import Any

    from spawnx.context import ProcessContext as ProcessContext
    from spawnx.context import SpawnContext as SpawnContext
    from spawnx.errors import ProcessException as ProcessException
    from spawnx.errors import ProcessExitedException as ProcessExitedException
    from spawnx.errors import ProcessRaisedException as ProcessRaisedException
    from spawnx.errors import ProcessTimeoutError as ProcessTimeoutError
    from spawnx.launchers.preload import preload as preload
    from spawnx.settings import ENV_VAR_PARALLEL_START as ENV_VAR_PARALLEL_START
    from spawnx.spawn import spawn as spawn
    from spawnx.spawn import start_processes as start_processes

    backend: str
    backend_reason: str
    launcher: str
    launcher_reason: str

__version__ = "0.1.0"

# public name -> the module of ours that defines it
_HOMES = {
    "ENV_VAR_PARALLEL_START": "settings",
    "ProcessContext": "context",
    "ProcessException": "errors",
    "ProcessExitedException": "errors",
    "ProcessRaisedException": "errors",
    "ProcessTimeoutError": "errors",
    "SpawnContext": "context",
    "preload": "launchers.preload",
    "spawn": "spawn",
    "start_processes": "spawn",
}


def _elsewhere() -> "ModuleType":
    """The module that defines all other public names. Looked up each time, as torch may be imported later."""
    loaded = sys.modules.get("torch.multiprocessing")
    if loaded is not None:
        return loaded
    from spawnx.standard import standard_library

    with standard_library():
        import multiprocessing

    return multiprocessing


def _public_names() -> list[str]:
    elsewhere: list[str] = getattr(_elsewhere(), "__all__", [])
    return sorted({*_HOMES, *elsewhere})


def _import(module: str) -> "Any":
    """Import a module of spawnx."""
    from spawnx.standard import standard_library

    with standard_library():
        from importlib import import_module

        return import_module(f"{__name__}.{module}")


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(_import(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in {"backend", "backend_reason"}:  # not kept: SPAWNX_BACKEND may change between calls
        chosen, reason = _import("backends").choose()
        return chosen.name if name == "backend" else reason
    if name in {"launcher", "launcher_reason"}:
        served, reason = _import("launchers").served()
        return served if name == "launcher" else reason
    if name == "__all__":
        return _public_names()
    # copy, inspect and others probe for dunder names: that is no reason to import multiprocessing.
    if not name.startswith("__") and hasattr(_elsewhere(), name):
        return getattr(_elsewhere(), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *_public_names()})


class _Package(type(sys)):  # type: ignore[misc]
    """The class of this package. In it `spawn` is a function, as in the reference, although a module has that name too.

    The import system assigns each imported submodule to its package. After any import of `spawnx.spawn` the module
    would replace the function, so `__setattr__` stores the function instead.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "spawn" and isinstance(value, type(sys)):
            value = value.spawn
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

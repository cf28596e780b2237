"""Choose the modules that a template imports once, instead of once in each rank."""

from __future__ import annotations

import sys

from spawnx import settings
from spawnx.launchers import before_import
from spawnx.mp import forkserver
from spawnx.remote import preload as preloading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from spawnx.launchers.contract import Order

_for_all_calls: tuple[str, ...] = ()


def preload(modules: Iterable[str]) -> None:
    """Add modules to `preload="auto"` of all later calls: they are imported once, not once in each rank.

    With the start method forkserver, the zygote imports them once for all calls. With spawn, the template of each call
    imports them. This is for test suites and notebooks, which spawn again and again. `start_processes` documents the
    conditions for modules that are named.

    Args:
        modules: their names, which replace those of an earlier call; `()` for none.

    Raises:
        TypeError: `modules` has something that is no name.
    """
    global _for_all_calls  # noqa: PLW0603 - one per process
    _for_all_calls = checked_names(modules)


def checked(preload: str | Iterable[str]) -> str | tuple[str, ...]:
    """Check an argument `preload` and return it: "auto", or names. For "auto", `SPAWNX_PRELOAD` is read.

    Raises:
        TypeError: the argument is neither "auto" nor names.
        ValueError: `SPAWNX_PRELOAD` is invalid.
    """
    return settings.PRELOAD.read() if preload == "auto" else checked_names(preload)


def checked_names(modules: str | Iterable[str]) -> tuple[str, ...]:
    """Check names of modules, and return them as a tuple.

    Raises:
        TypeError: `modules` has something that is no name, or is a string.
    """
    names = None if isinstance(modules, str) else tuple(modules)
    if names is None or not all(isinstance(name, str) for name in names):
        msg = f"preload must be names of modules, such as preload=['torch'], () for none, or 'auto'; got {modules!r}"
        raise TypeError(msg)
    return names


def of(order: Order) -> tuple[str, ...]:
    """Return the modules that the template of a call imports."""
    if isinstance(order.preload, tuple):
        return order.preload
    of_function = str(getattr(order.fn, "__module__", None) or "__main__")
    used_by = [sys.modules[name] for name in {"__main__", of_function} if name in sys.modules]
    chosen = before_import.unaffected(preloading.chosen(used_by), of_function)
    return tuple(dict.fromkeys([*chosen, *forkserver.preload(), *_for_all_calls]))

"""Which modules are imported once, in a template, instead of once in each rank."""

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
    """Have modules imported once for this program's ranks: "auto" has them as well from now on.

    By the start method forkserver that is once for all calls, in a template that is kept; by spawn, once for each
    call. For test suites and notebooks, which spawn again and again. What `start_processes` says of named modules holds
    for these.

    Args:
        modules: their names, in place of those of an earlier call; `()` for none.

    Raises:
        TypeError: they aren't names.
    """
    global _for_all_calls  # noqa: PLW0603 - said once for a program
    _for_all_calls = checked_names(modules)


def checked(preload: str | Iterable[str]) -> str | tuple[str, ...]:
    """An argument `preload`: "auto", or names; where it says "auto", what the environment says.

    Raises:
        TypeError, ValueError: it has no meaning, or what the environment says has none.
    """
    return settings.PRELOAD.read() if preload == "auto" else checked_names(preload)


def checked_names(modules: str | Iterable[str]) -> tuple[str, ...]:
    """Names of modules as a tuple.

    Raises:
        TypeError: they aren't names.
    """
    names = None if isinstance(modules, str) else tuple(modules)
    if names is None or not all(isinstance(name, str) for name in names):
        msg = f"preload must be names of modules, such as preload=['torch'], () for none, or 'auto'; got {modules!r}"
        raise TypeError(msg)
    return names


def of(order: Order) -> tuple[str, ...]:
    """What the template of a call imports."""
    if isinstance(order.preload, tuple):
        return order.preload
    of_function = str(getattr(order.fn, "__module__", None) or "__main__")
    used_by = [sys.modules[name] for name in {"__main__", of_function} if name in sys.modules]
    chosen = before_import.unaffected(preloading.chosen(used_by), of_function)
    return tuple(dict.fromkeys([*chosen, *forkserver.preload(), *_for_all_calls]))

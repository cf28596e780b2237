"""Find values that standard modules derive from their process, when they are imported or first used.

A zygote may have imported such a module long ago, in another environment. A clone of it derives these values again. The
list was made by reading CPython 3.10 to 3.14. `tests/unit/test_stale.py` compares every standard module in a fresh
interpreter with the same module in a rank.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# uuid's random node, where no network card was found, has this bit (RFC 4122, 4.5).
_RANDOM_NODE = 1 << 40


def explained() -> list[Callable[[], None]]:
    """Return the functions to call after the environment has changed. To be called before it changes.

    A value that a preloaded module has set, instead of deriving it, stays.
    """
    again: list[Callable[[], None]] = [sys.path_importer_cache.clear]
    for name, explain in _EXPLAIN.items():
        module = sys.modules.get(name)
        if module is not None:
            again += explain(module)
    return again


def restart_clock() -> None:
    """Restart logging's clock (`relativeCreated`) in a rank: else it counts from the import in the template."""
    logging: Any = sys.modules.get("logging")
    if logging is not None:
        # In nanoseconds since CPython 3.13.
        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()  # noqa: SLF001


def _tempfile(module: Any) -> list[Callable[[], None]]:
    if module.tempdir not in module._candidate_tempdir_list():  # noqa: SLF001
        return []

    def forget() -> None:
        module.tempdir = None

    return [forget]


def _site(module: Any) -> list[Callable[[], None]]:
    if module.USER_BASE is None or module._getuserbase() != module.USER_BASE:  # noqa: SLF001
        return []

    def ask() -> None:
        module.USER_BASE = module.USER_SITE = None
        module.getusersitepackages()

    return [ask]


def _sysconfig(module: Any) -> list[Callable[[], None]]:
    known = module._CONFIG_VARS  # noqa: SLF001
    if not known or known.get("userbase") != module._getuserbase():  # noqa: SLF001
        return []

    def ask() -> None:
        known["userbase"] = module._getuserbase()  # noqa: SLF001

    return [ask]


def _uuid(module: Any) -> list[Callable[[], None]]:
    if module._node is None or not module._node & _RANDOM_NODE:  # noqa: SLF001
        return []

    def forget() -> None:
        module._node = None  # noqa: SLF001

    return [forget]


def _platform(module: Any) -> list[Callable[[], None]]:
    def forget() -> None:
        module._uname_cache = None  # noqa: SLF001 - it contains the name of the host
        module._platform_cache.clear()  # noqa: SLF001

    return [forget]


def _urllib_request(module: Any) -> list[Callable[[], None]]:
    opener = module._opener  # noqa: SLF001
    if opener is None or _kinds(opener) != _kinds(module.build_opener()):
        return []  # the program's own opener

    def forget() -> None:
        module._opener = None  # noqa: SLF001 - it contains the proxies of the environment

    return [forget]


def _kinds(opener: Any) -> set[type]:
    return {type(handler) for handler in opener.handlers}


def _zipimport(module: Any) -> list[Callable[[], None]]:
    return [module._zip_directory_cache.clear]  # noqa: SLF001 - archives may have been replaced


_EXPLAIN: dict[str, Callable[[Any], list[Callable[[], None]]]] = {
    "platform": _platform,
    "site": _site,
    "sysconfig": _sysconfig,
    "tempfile": _tempfile,
    "urllib.request": _urllib_request,
    "uuid": _uuid,
    "zipimport": _zipimport,
}

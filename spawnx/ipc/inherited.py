"""What a process has from the one that starts it: told by the supervisor, taken on by a clone of the zygote.

A fresh interpreter would have inherited it. What can't be taken on afterwards (rights, limits that were lowered, the
session) is not here: a zygote that differs in it is replaced by another one.
"""

from __future__ import annotations

import os
import resource
import sys

from spawnx import affinity
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_STREAMS = ("stdin", "stdout", "stderr")


def capture(processors: set[int] | None) -> dict[str, Any]:
    """What a child of this process would have, whose thread may run on some processors."""
    with standard_library():
        from spawnx.backends import native

    return {
        "environment": native.environment(),
        "affinity": processors,
        "umask": _umask(),
        "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
    }


def _umask() -> int:
    """The mask for new files. os.umask() can only be asked by setting it, for all threads."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):  # Linux 4.7
                return int(line.split()[1], 8)
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def apply(captured: dict[str, Any], set_by_imports: Mapping[bytes, bytes]) -> None:
    """Have it in this process.

    Args:
        captured: what `capture` has returned.
        set_by_imports: what modules that were imported before have set in the environment: it stands, where the
            supervisor doesn't say otherwise.

    Raises:
        OSError, ValueError: something can't be had here.
    """
    _apply_environment(captured["environment"], set_by_imports)
    os.umask(captured["umask"])
    affinity.apply(captured["affinity"])
    for limit, values in captured["limits"].items():
        if resource.getrlimit(limit) != values:
            resource.setrlimit(limit, values)


def _apply_environment(entries: Sequence[bytes], set_by_imports: Mapping[bytes, bytes]) -> None:
    # Of two entries for one name, getenv(3) finds the first.
    wanted = {**set_by_imports, **dict(entry.partition(b"=")[::2] for entry in reversed(entries))}
    for name in [name for name in os.environb if name not in wanted]:
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def open_streams() -> list[bool]:
    """Which standard streams a child would have after an exec."""
    return [_is_open(fd) for fd in (0, 1, 2)]


def _is_open(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def apply_streams(is_open: Sequence[bool], handed_over: Sequence[int]) -> None:
    """Use the standard streams' fds, which are new, as a fresh interpreter would; but for what other files have."""
    for fd, (name, opened) in enumerate(zip(_STREAMS, is_open, strict=True)):
        if not opened:  # nor was it when the zygote started
            if fd not in handed_over:
                os.close(fd)
        elif fd:
            stream = getattr(sys, name)
            lines = fd == 2 or os.isatty(fd)  # noqa: PLR2004 - the standard error's
            if hasattr(stream, "reconfigure"):  # not one that start-up code has put there
                stream.reconfigure(line_buffering=lines and not stream.write_through)

"""The attributes that a process inherits: captured in the supervisor, applied in a clone of the zygote.

A fresh interpreter would inherit them. Attributes that can't be changed later (rights, lowered limits, the session) are
not among them: a zygote that differs in one of these is replaced.
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
    """Return what a child of this process would inherit, with `processors` as its CPU affinity."""
    with standard_library():
        from spawnx.backends import native

    return {
        "environment": native.environment(),
        "affinity": processors,
        "umask": _umask(),
        "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
    }


def _umask() -> int:
    """The umask, from /proc if possible: os.umask() reads it only by setting it, for all threads."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):  # Linux 4.7
                return int(line.split()[1], 8)
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def apply(captured: dict[str, Any], set_by_imports: Mapping[bytes, bytes]) -> None:
    """Apply captured attributes to this process.

    Args:
        captured: what `capture` returned.
        set_by_imports: the environment variables that earlier imports have set. They stay, unless the supervisor's
            environment has others of the same name.

    Raises:
        OSError, ValueError: an attribute can't be applied in this process.
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
    """Return for each standard stream whether a child would have it after an exec."""
    return [_is_open(fd) for fd in (0, 1, 2)]


def _is_open(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def apply_streams(is_open: Sequence[bool], handed_over: Sequence[int]) -> None:
    """Use the new fds 0 to 2 as a fresh interpreter would. A number in `handed_over` may belong to another file."""
    for fd, (name, opened) in enumerate(zip(_STREAMS, is_open, strict=True)):
        if not opened:  # it was not open when the zygote started, either
            if fd not in handed_over:
                os.close(fd)
        elif fd:
            stream = getattr(sys, name)
            lines = fd == 2 or os.isatty(fd)  # noqa: PLR2004 - the standard error's
            if hasattr(stream, "reconfigure"):  # start-up code may have replaced the stream
                stream.reconfigure(line_buffering=lines and not stream.write_through)

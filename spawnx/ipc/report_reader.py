"""Read reports in the supervisor: from any bytes, a report or None. This raises nothing, never waits, and runs no code.

The format is in `ipc.report`.
"""

from __future__ import annotations

import math
import os
import stat

from spawnx.ipc.report import MOST_NAME, MOST_TEXT, Report
from spawnx.ipc.scoreboard import IMPORT, RUN, UNPICKLE
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The most bytes after the text: JSON takes up to 12 for a character of the name.
_MOST_DETAILS = 16 * MOST_NAME
# The most bytes of a file: a longer one is not ours. UTF-8 takes up to 4 for a character.
_MOST_BYTES = 4 * MOST_TEXT + 2 * _MOST_DETAILS
_MOST_KIB = 1 << 54
_MOST_ERRNO = (1 << 31) - 1

# The opcodes of a string, with the bytes of its length. Then the opcodes around it in protocols 2 to 5, with the bytes
# of their argument: PROTO, FRAME, MEMOIZE, BINPUT, LONG_BINPUT (pickletools.py).
_STRINGS = {b"\x8c": 1, b"X": 4, b"\x8d": 8}
_AROUND = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}
# A report needs five.
_MOST_OPCODES = 8


def read(path: str, folder: int | None = None, owner: int | None = None) -> Report | None:
    """Return the report at a path, ours or the reference's; None if there is none, or it can't be read.

    Args:
        path: the path of a file; with `folder`, its name in that folder.
        folder: the fd of the context's folder. A link is then not followed.
        owner: the uid that must own the file; None: any.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    # Else the open of a FIFO would wait for a writer.
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if folder is None else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=folder)
    except (OSError, ValueError):  # ValueError: the caller's text can't be a path
        return None
    try:
        found = os.fstat(fd)
        theirs = owner in {None, found.st_uid} and stat.S_ISREG(found.st_mode)
        if not theirs or found.st_size > _MOST_BYTES:
            return None
        with open(fd, "rb", closefd=False) as file:
            return parse(file.read(found.st_size))
    except OSError:
        return None
    finally:
        os.close(fd)


def parse(data: bytes) -> Report | None:
    """Return the report that bytes hold; None if they hold none. Any bytes are accepted."""
    text, end = _unpickled(data)
    return None if text is None else Report(text, **_details(data[end : end + _MOST_DETAILS]))


def _unpickled(data: bytes) -> tuple[str | None, int]:
    """The string whose pickle begins the bytes, or None; and the offset behind that pickle.

    `pickle` is not used, not even one that finds no classes: five bytes can make it allocate 32 GB for its memo.
    """
    text, at = None, 0
    for _ in range(_MOST_OPCODES):
        opcode = data[at : at + 1]
        at += 1
        if opcode == b".":
            return text, at
        if opcode in _STRINGS and text is None:
            start = at + _STRINGS[opcode]
            at = start + int.from_bytes(data[at:start], "little")
            if at > len(data):
                break
            text = _decoded(data[start:at])
        elif opcode in _AROUND:
            at += _AROUND[opcode]
        else:
            break
    return None, at


def _decoded(data: bytes) -> str:
    """Decode a string as pickle encodes it: with lone surrogates."""
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="replace")


def _details(data: bytes) -> dict[str, Any]:
    """The details of a report, without its text; details with impossible values are left out."""
    try:
        with standard_library():
            import json

        said = json.loads(data.rstrip(b"\0"))  # on the scoreboard, zeros follow a report
    except (ImportError, OSError, ValueError, RecursionError):  # OSError: no fd is free for the import
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: said[name] for name, may_be in _DETAILS.items() if may_be(said.get(name))}


# Which values a detail may have, by the attribute of `Report`.
_DETAILS: dict[str, Callable[[object], bool]] = {
    "stage": lambda value: value in (IMPORT, UNPICKLE, RUN),
    "time": lambda value: isinstance(value, float) and math.isfinite(value),
    "type_name": lambda value: isinstance(value, str) and len(value) <= MOST_NAME,
    "peak_kib": lambda value: type(value) is int and 0 <= value < _MOST_KIB,
}


def unwritten(errno: int, headline: str, time: float) -> Report:
    """Make a report in place of one that could not be written: with the reason, and a headline of what was raised."""
    why = os.strerror(min(errno, _MOST_ERRNO))
    text = (
        f"Traceback (most recent call last):\n"
        f"  (it is on the standard error of the rank, as its report could not be written: {why})\n"
        f"{headline}\n"
    )
    return Report(text, time=time, type_name=headline.partition(":")[0] or None)

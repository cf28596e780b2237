"""What a failing rank leaves for the supervisor: a file in the context's folder, and the same on the board.

The file is for callers that read error files, and has the text whole. What is on the board is there still when the
folder has been emptied, or could not be written into.

Both begin as the reference's file does (torch 2.13), with the pickled text of the traceback; what the reference doesn't
tell follows as JSON. The supervisor unpickles nothing: whatever a rank, or somebody else, has written there, `parse`
finds a report or none.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import time

from spawnx.remote import names
from spawnx.remote.board import IMPORT, RUN, UNPICKLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

# What follows "before it called the function, ", by where a rank failed.
_BEFORE = {
    IMPORT: "while it imported the main module",
    UNPICKLE: "while it unpickled the function and its arguments",
}
# Of the text of a traceback, in characters: beyond, the middle is left out. Of the name of a type.
MOST_TEXT = 1 << 25
_MOST_NAME = 1 << 10
# Of what follows the text, in bytes: JSON takes up to 12 for a character of the name.
_MOST_DETAILS = 16 * _MOST_NAME
# Of a file, in bytes: what is longer is none of ours. UTF-8 takes up to 4 for a character.
_MOST_BYTES = 4 * MOST_TEXT + 2 * _MOST_DETAILS
_MOST_KIB = 1 << 54
_MOST_ERRNO = (1 << 31) - 1

# The opcodes by which a string is pickled, with the bytes of its length; and those of protocols 2 to 5 that stand
# around one, with the bytes of their argument: PROTO, FRAME, MEMOIZE, BINPUT, LONG_BINPUT (pickletools.py).
_STRINGS = {b"\x8c": 1, b"X": 4, b"\x8d": 8}
_AROUND = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}
# Five are needed.
_MOST_OPCODES = 8


class Report:
    """Why a rank failed.

    Attributes:
        text: the traceback, as `traceback.format_exc` gives it.
        stage: "import", "unpickle" or "run".
        time: `time.monotonic()` when it was caught: one clock for all processes of a machine. None in the
            reference's files.
        type_name: the exception's type, as a traceback names it. None in the reference's files.
        peak_kib: the most memory that the rank had resident until then, in KiB. None where unknown.
    """

    __slots__ = ("peak_kib", "stage", "text", "time", "type_name")

    def __init__(
        self,
        text: str,
        stage: str = RUN,
        time: float | None = None,
        *,
        type_name: str | None = None,
        peak_kib: int | None = None,
    ) -> None:
        self.text = text
        self.stage = stage
        self.time = time
        self.type_name = type_name
        self.peak_kib = peak_kib

    @property
    def told(self) -> str:
        """The text for the exception's message: the traceback, after the stage if user code was not reached."""
        if self.stage not in _BEFORE:
            return self.text
        return f"(before it called the function, {_BEFORE[self.stage]})\n{self.text}"


def path_in(folder: str, rank: int) -> str:
    """Where a rank of ours reports."""
    return os.path.join(folder, names.of_report(rank))


def place_of(path: str) -> tuple[str, int]:
    """The folder and the rank of which `path_in` made a path."""
    folder, name = os.path.split(path)
    return folder, int(name.partition(".")[0])


def of(error: BaseException, traceback: TracebackType | None, stage: str, raised: float | None) -> Report:
    """The report of an exception.

    Args:
        error: what was raised.
        traceback: what is told of it.
        stage: how far the rank had come.
        raised: `time.monotonic()` when it was caught; None is now.
    """
    from traceback import format_exception

    return Report(
        "".join(format_exception(type(error), error, traceback)),
        stage,
        time.monotonic() if raised is None else raised,
        type_name=type_name(error),
        peak_kib=_peak_kib(),
    )


def pack(report: Report, most: int = MOST_TEXT) -> bytes:
    """A report as bytes, with so many characters of its text."""
    import json
    import pickle

    details = {
        "stage": report.stage,
        "time": report.time,
        "type_name": None if report.type_name is None else report.type_name[:_MOST_NAME],
        "peak_kib": report.peak_kib,
    }
    return pickle.dumps(_shortened(report.text, most), 4) + json.dumps(details).encode()


def _shortened(text: str, most: int) -> str:
    """A text without its middle if it is longer: it begins with frames, and ends with what was raised."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters are left out ...]\n{text[-half:]}"


def write(path: str, data: bytes) -> None:
    """Leave a packed report at `path`, whole or not at all.

    Raises:
        OSError: it can't be written: a full disk, a context that is gone.
    """
    part = path + names.PART
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        with open(part, "xb") as file:  # a new one: nobody's link is followed
            file.write(data)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def type_name(error: BaseException) -> str:
    """The name of an exception's type, as a traceback has it."""
    module, name = type(error).__module__, type(error).__qualname__
    return name if module in {"builtins", "__main__"} else f"{module}.{name}"


def _peak_kib() -> int | None:
    """The peak resident memory of this process."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def unwritten(errno: int, headline: str, time: float) -> Report:
    """What is known at a time of a report that could not be written: why, and a headline of what was raised."""
    why = os.strerror(min(errno, _MOST_ERRNO))
    text = (
        f"Traceback (most recent call last):\n"
        f"  (it is on the standard error of the rank, as its report could not be written: {why})\n"
        f"{headline}\n"
    )
    return Report(text, time=time, type_name=headline.partition(":")[0] or None)


def record_end(path: str) -> None:
    """Leave word that the rank has ended well, for a supervisor that will not learn its exit code."""
    with contextlib.suppress(OSError):
        os.close(os.open(path + names.ENDED, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def read(path: str, folder: int | None = None, owner: int | None = None) -> Report | None:
    """The report at a path, ours or the reference's; None if there is none, or none that can be read.

    Args:
        path: of a file; with `folder` its name there.
        folder: the fd of the context's folder. A link is then not followed.
        owner: the user whose file it must be; None: anybody's.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    # A FIFO would make us wait for a writer.
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if folder is None else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=folder)
    except (OSError, ValueError):  # ValueError: a path of a caller's that can be none
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
    """The report that bytes are, whatever they are; None if they are none."""
    text, end = _unpickled(data)
    return None if text is None else Report(text, **_details(data[end : end + _MOST_DETAILS]))


def _unpickled(data: bytes) -> tuple[str | None, int]:
    """The string of which bytes begin with the pickle, or None; and where that ends.

    Not by `pickle`, also not by one that finds no classes: five bytes can make it take 32 GB for its memo.
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
    """A string as pickle encodes it, which has lone surrogates, too."""
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="replace")


def _details(data: bytes) -> dict[str, Any]:
    """What a report says beside its text; nothing of what can't be so."""
    import json

    try:
        said = json.loads(data.rstrip(b"\0"))  # of the board: what was not written is zeros
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: said[name] for name, may_be in _DETAILS.items() if may_be(said.get(name))}


# What a report may say, by the attribute of `Report`.
_DETAILS: dict[str, Callable[[object], bool]] = {
    "stage": lambda value: value in (IMPORT, UNPICKLE, RUN),
    "time": lambda value: isinstance(value, float) and math.isfinite(value),
    "type_name": lambda value: isinstance(value, str) and len(value) <= _MOST_NAME,
    "peak_kib": lambda value: type(value) is int and 0 <= value < _MOST_KIB,
}

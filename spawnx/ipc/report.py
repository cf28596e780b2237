"""The report that a failing rank writes for the supervisor: a file in the context's folder, a copy on the scoreboard.

The file is for callers that read error files, and has the whole text. The copy remains when the folder has been
emptied, or could not be written to.

Both begin as the reference's file does (torch 2.13), with the pickled text of the traceback. Details that the
reference's file lacks follow as JSON. The supervisor unpickles nothing: whatever a rank or another process has written,
`ipc.report_reader.parse` returns a report or None.
"""

from __future__ import annotations

import contextlib
import os
import sys

from spawnx import clock
from spawnx.ipc.scoreboard import IMPORT, RUN, UNPICKLE
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# The text after "before it called the function, ", by the stage in which a rank failed.
_BEFORE = {
    IMPORT: "while it imported the main module",
    UNPICKLE: "while it unpickled the function and its arguments",
}
# The most characters of a traceback's text, whose middle is left out beyond that; and of a type's name.
MOST_TEXT = 1 << 25
MOST_NAME = 1 << 10


class Report:
    """Why a rank failed.

    Attributes:
        text: the traceback, as `traceback.format_exc` gives it.
        stage: "import", "unpickle" or "run".
        time: `clock.monotonic()` when it was caught: one clock for all processes of a machine. None in the
            reference's files.
        type_name: the exception's type, as a traceback names it. None in the reference's files.
        peak_kib: the peak resident memory of the rank until then, in KiB. None where unknown.
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
    def message(self) -> str:
        """The text for the exception's message: the traceback, after the stage if user code was not reached."""
        if self.stage not in _BEFORE:
            return self.text
        return f"(before it called the function, {_BEFORE[self.stage]})\n{self.text}"


def path_in(folder: str, rank: int) -> str:
    """Return the path of a rank's report."""
    with standard_library():
        from spawnx.ipc import names  # late, as a rank that succeeds doesn't need it

    return os.path.join(folder, names.of_report(rank))


def place_of(path: str) -> tuple[str, int]:
    """Return the folder and the rank from which `path_in` made a path."""
    folder, name = os.path.split(path)
    return folder, int(name.partition(".")[0])


def of(error: BaseException, traceback: TracebackType | None, stage: str, raised: float | None) -> Report:
    """Make the report of an exception.

    Args:
        error: the exception.
        traceback: the part of its traceback to report.
        stage: the stage of the rank.
        raised: `clock.monotonic()` when it was caught; None is now.
    """
    with standard_library():
        with contextlib.suppress(ImportError):  # the rank has changed its root
            import tokenize  # noqa: F401 - linecache imports it late (CPython 3.13.0)
        from traceback import format_exception

    return Report(
        "".join(format_exception(type(error), error, traceback)),
        stage,
        clock.monotonic() if raised is None else raised,
        type_name=type_name(error),
        peak_kib=_peak_kib(),
    )


def pack(report: Report, most: int = MOST_TEXT) -> bytes:
    """Return a report as bytes. A text of more than `most` characters loses its middle."""
    with standard_library():
        import json
        import pickle

    details = {
        "stage": report.stage,
        "time": report.time,
        "type_name": None if report.type_name is None else report.type_name[:MOST_NAME],
        "peak_kib": report.peak_kib,
    }
    return pickle.dumps(_shortened(report.text, most), 4) + json.dumps(details).encode()


def _shortened(text: str, most: int) -> str:
    """The text, without its middle if it is too long: it begins with frames, and ends with the exception."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters are left out ...]\n{text[-half:]}"


def write(path: str, data: bytes) -> None:
    """Write a packed report to `path`, whole or not at all.

    Raises:
        OSError: it can't be written: a full disk, a context that is gone.
    """
    with standard_library():
        from spawnx.ipc import names

    part = path + names.PART
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        with open(part, "xb") as file:  # a new file: no link is followed
            file.write(data)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def type_name(error: BaseException) -> str:
    """Return the name of an exception's type, as a traceback shows it."""
    module, name = type(error).__module__, type(error).__qualname__
    return name if module in {"builtins", "__main__"} else f"{module}.{name}"


def _peak_kib() -> int | None:
    """The peak resident memory of this process."""
    try:
        with standard_library():
            import resource
    except ImportError:  # Windows
        return None
    try:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except OSError:  # a sandbox forbids it
        return None
    return peak // 1024 if sys.platform == "darwin" else peak


def record_end(path: str) -> None:
    """Record that the rank ends with exit status 0, for a supervisor that can't read the exit status."""
    with standard_library():
        from spawnx.ipc import names

    with contextlib.suppress(OSError):
        os.close(os.open(path + names.ENDED, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

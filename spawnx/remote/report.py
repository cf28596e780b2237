"""What a failing rank leaves for the supervisor: one file in the context's directory.

The file begins as the reference's does (torch 2.13), with the pickled text of the traceback, so that whoever reads
error files reads ours. A second pickle has what the reference doesn't tell.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# Where a rank failed. The texts follow "before it called the function, ".
IMPORT = "import"
UNPICKLE = "unpickle"
RUN = "run"
_BEFORE = {
    IMPORT: "while it imported the main module",
    UNPICKLE: "while it unpickled the function and its arguments",
}


class Report:
    """Why a rank failed.

    Attributes:
        text: the traceback, as `traceback.format_exc` gives it.
        stage: "import", "unpickle" or "run".
        time: `time.monotonic()` when it was raised: one clock for all processes of a machine. None in the
            reference's files.
    """

    __slots__ = ("stage", "text", "time")

    def __init__(self, text: str, stage: str = RUN, time: float | None = None) -> None:
        self.text = text
        self.stage = stage
        self.time = time

    @property
    def told(self) -> str:
        """The text for the exception's message: the traceback, after the stage if user code was not reached."""
        if self.stage not in _BEFORE:
            return self.text
        return f"(before it called the function, {_BEFORE[self.stage]})\n{self.text}"


def mark_untouched(folder: str) -> None:
    """Have it seen by one look, not by one for each rank, that nobody has written into a folder for reports."""
    with contextlib.suppress(OSError):  # then it looks touched, and each is looked for
        os.utime(folder, (0, 0))


def is_untouched(folder: str) -> bool:
    """Whether no rank has left anything in a folder since `mark_untouched`: every new name renews its time."""
    try:
        return os.stat(folder).st_mtime_ns == 0
    except OSError:
        return False


def write(path: str, stage: str, error: BaseException, traceback: TracebackType | None) -> None:
    """Leave a report at `path`, whole or not at all.

    Where that fails (a full disk, a context that is gone) the traceback goes to stderr: it is not lost.
    """
    from traceback import format_exception

    text = "".join(format_exception(type(error), error, traceback))
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            pickle.dump(text, file)
            pickle.dump({"stage": stage, "time": time.monotonic()}, file)
        os.replace(part, path)
    except OSError:
        sys.stderr.write(text)


def record_end(path: str) -> None:
    """Leave word that the rank has ended well, for a supervisor that will not learn its exit code."""
    with contextlib.suppress(OSError):
        os.close(os.open(f"{path}.ended", os.O_CREAT | os.O_WRONLY, 0o600))


def has_ended_well(path: str) -> bool:
    """Whether the rank that would report at `path` has left word that it ended well."""
    return os.access(f"{path}.ended", os.F_OK)


def read(path: str) -> Report | None:
    """The report at `path`, ours or the reference's; None if there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            report = Report(pickle.load(file))  # noqa: S301 - from a directory that only this user can write
            try:
                details = pickle.load(file)  # noqa: S301
            except EOFError:  # the reference's
                return report
            return Report(report.text, details["stage"], details["time"])
    except (OSError, EOFError, pickle.UnpicklingError):
        return None

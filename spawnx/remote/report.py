"""What a failing rank leaves for the supervisor: one file in the context's folder.

The file begins as the reference's does (torch 2.13), with the pickled text of the traceback, so that whoever reads
error files reads ours. A second pickle has what the reference doesn't tell.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys

from spawnx import clock
from spawnx.remote.board import IMPORT, RUN, UNPICKLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# What follows "before it called the function, ", by where a rank failed.
_BEFORE = {
    IMPORT: "while it imported the main module",
    UNPICKLE: "while it unpickled the function and its arguments",
}


class Report:
    """Why a rank failed.

    Attributes:
        text: the traceback, as `traceback.format_exc` gives it.
        stage: "import", "unpickle" or "run".
        time: `clock.monotonic()` when it was caught: one clock for all processes of a machine. None in the
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


def path_in(folder: str, rank: int) -> str:
    """Where a rank of ours reports."""
    return os.path.join(folder, f"{rank}.pickle")


def place_of(path: str) -> tuple[str, int]:
    """The folder and the rank of which `path_in` made a path."""
    folder, name = os.path.split(path)
    return folder, int(name.partition(".")[0])


def write(
    path: str, stage: str, error: BaseException, traceback: TracebackType | None, raised: float | None = None
) -> None:
    """Leave a report at `path`, whole or not at all.

    Args:
        path: where.
        stage: how far the rank had come.
        error: what was raised.
        traceback: what is told of it.
        raised: `clock.monotonic()` when it was caught; None is now.

    Raises:
        OSError: it can't be written: a full disk, a context that is gone.
    """
    details = {
        "stage": stage,
        "time": clock.monotonic() if raised is None else raised,
        "type_name": type_name(error),
        "peak_kib": _peak_kib(),
    }
    from traceback import format_exception

    text = "".join(format_exception(type(error), error, traceback))
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            pickle.dump(text, file)
            pickle.dump(details, file)
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
    try:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except OSError:  # a sandbox forbids it
        return None
    return peak // 1024 if sys.platform == "darwin" else peak


def unwritten(errno: int, headline: str, time: float) -> Report:
    """What is known at a time of a report that could not be written: why, and a headline of what was raised."""
    text = (
        f"Traceback (most recent call last):\n"
        f"  (it is on the standard error of the rank, as its report could not be written: {os.strerror(errno)})\n"
        f"{headline}\n"
    )
    return Report(text, time=time, type_name=headline.partition(":")[0] or None)


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
            return Report(report.text, **details)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None

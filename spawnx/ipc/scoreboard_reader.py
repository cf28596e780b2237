"""The supervisor's side of the scoreboard: make it before the ranks, and read it, whatever they have written.

Its purpose and layout are in `ipc.scoreboard`.
"""

from __future__ import annotations

import contextlib
import os

from spawnx.ipc.scoreboard import (
    AT_FAILING,
    AT_HEADLINE,
    AT_READY,
    AT_STAGE,
    LINE,
    PART,
    RUN,
    STAGES,
    path_in,
    report_at,
    stack_at,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Line:
    """The line of a rank, as it was read. Any bytes are accepted.

    Attributes:
        stage: the stage that the rank had reached.
        failing: whether the rank has caught an exception, and is about to report it or has reported it.
        ready: whether the rank answers `ASK`.
        headline: the beginning of the type and text of what the rank raised; "" if it wrote none.
    """

    __slots__ = ("failing", "headline", "ready", "stage")

    def __init__(self, line: bytes) -> None:
        # spawnx writes no number that is too large. User code did, so the rank has reached `RUN`.
        self.stage = STAGES[line[AT_STAGE]] if line[AT_STAGE] < len(STAGES) else RUN
        self.failing = bool(line[AT_FAILING])
        self.ready = bool(line[AT_READY])
        self.headline = line[AT_HEADLINE:].partition(b"\0")[0].decode(errors="replace").strip()


class Scoreboard:
    """The scoreboard in the supervisor.

    Args:
        fd: what `make` returned; owned by this object from now on.
        ranks: the number of ranks.

    Attributes:
        fd: -1 if there is no scoreboard or it is closed: then nothing is read.
    """

    def __init__(self, fd: int, ranks: int) -> None:
        self.fd = fd
        self._ranks = ranks

    def lines(self) -> Sequence[Line]:
        """Return the lines of all ranks; none if there is no scoreboard."""
        data = self._lines()
        return [Line(data[start : start + LINE]) for start in range(0, len(data), LINE)]

    def failing(self) -> list[int]:
        """Return the ranks that are about to report, or have reported."""
        return [rank for rank, flag in enumerate(self._lines()[AT_FAILING::LINE]) if flag]

    def _lines(self) -> bytes:
        size = self._ranks * LINE
        # Any rank may have truncated the file.
        return b"" if self.fd < 0 else self._read(size, 0).ljust(size, b"\0")

    def stack(self, rank: int) -> str:
        """Return what faulthandler has written in a rank; "" if nothing."""
        return self._read(PART, stack_at(rank)).partition(b"\0")[0].decode(errors="replace")

    def report(self, rank: int) -> bytes:
        """Return the report of a rank, and the zeros that follow it; b"" if there is none."""
        data = self._read(PART, report_at(rank))
        return data if data.strip(b"\0") else b""

    def _read(self, size: int, at: int) -> bytes:
        with contextlib.suppress(OSError):
            if self.fd >= 0:
                return os.pread(self.fd, size, at)
        return b""

    def close(self) -> None:
        """Close the fd. May be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def make(folder: str, ranks: int) -> int:
    """Make the scoreboard; return its fd. -1: there is no room, or no pwrite (Windows), and ranks record nothing."""
    if not hasattr(os, "pwrite"):
        return -1
    fd = _new_file(folder)
    with contextlib.suppress(OSError):
        if fd >= 0 and os.pwrite(fd, bytes(ranks * LINE), 0) == ranks * LINE:
            return fd
    if fd >= 0:
        os.close(fd)
    return -1


def _new_file(folder: str) -> int:
    if os.path.isdir("/proc/self/fd"):  # by which each rank reopens the memory; a file has a path
        with contextlib.suppress(OSError, AttributeError):
            return os.memfd_create("spawnx-scoreboard")
    with contextlib.suppress(OSError):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path_in(folder), flags, 0o600)
    return -1

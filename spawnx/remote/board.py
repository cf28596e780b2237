"""The board: what each rank says of itself while it lives, for the time when it can't say anything any more.

One file in the context's folder, made by the supervisor and opened by every rank. It has a line for each rank (how far
it has come, a headline of what it raised), and far behind, a part for each in which faulthandler writes stacks.

One file and not one per rank: thousands would be made and removed for the one that may crash, and each new name would
touch the folder, whose time tells at one look that nobody has reported. The lines are written when the board is made,
so that a rank finds room there when the disk is full; the parts are a hole until somebody crashes.
"""

from __future__ import annotations

import contextlib
import faulthandler  # here, and not in each forked rank
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# How far a rank has come.
BOOT = "boot"
IMPORT = "import"
UNPICKLE = "unpickle"
RUN = "run"
EXIT = "exit"
_STAGES = (BOOT, IMPORT, UNPICKLE, RUN, EXIT)

# By which a rank is asked for its stacks. Whoever has not registered for it, or runs another program by now, doesn't
# notice: its default is to be ignored. Of the four signals that are (CHLD, CONT, URG, WINCH) programs use it least: for
# out-of-band data of sockets, which nobody sends, and in Go's runtime, which took it for the same reasons.
ASK = getattr(signal, "SIGURG", None)

_NAME = "board"
_LINE = 128
_AT_STAGE, _AT_FAILING, _AT_READY, _AT_HEADLINE = 0, 1, 2, 4
# The size of a part: faulthandler tells up to 100 threads of 100 frames. A hole takes no room.
_PART = 1 << 20
# Where the parts begin: behind the lines of more ranks than there can be processes (PID_MAX_LIMIT, 4 Mi, on Linux).
_PARTS = (1 << 22) * _LINE


class Line:
    """The line of a rank, as it was when it was read.

    Attributes:
        stage: how far the rank had come.
        failing: whether it has caught an exception, and is about to report it, or has.
        ready: whether it answers `ASK`.
        headline: type and text of what it raised, the first of it; "" if it has raised nothing.
    """

    __slots__ = ("failing", "headline", "ready", "stage")

    def __init__(self, line: bytes) -> None:
        self.stage = _STAGES[line[_AT_STAGE]]
        self.failing = bool(line[_AT_FAILING])
        self.ready = bool(line[_AT_READY])
        self.headline = line[_AT_HEADLINE:].rstrip(b"\0").decode(errors="replace").strip()


# -- in the supervisor ---------------------------------------------------------------------------------------


def make(folder: str, ranks: int) -> None:
    """Make the board. Where it can't be made (Windows has no pwrite), ranks say less."""
    if hasattr(os, "pwrite"):
        with contextlib.suppress(OSError), open(os.path.join(folder, _NAME), "xb") as file:
            file.write(bytes(ranks * _LINE))


def read(folder: str, ranks: int) -> Sequence[Line]:
    """The lines of all ranks; none if there is no board."""
    data = _lines(folder, ranks)
    return [Line(data[start : start + _LINE]) for start in range(0, len(data), _LINE)]


def failing(folder: str, ranks: int) -> list[int]:
    """The ranks that are about to report, or have."""
    return [rank for rank, flag in enumerate(_lines(folder, ranks)[_AT_FAILING::_LINE]) if flag]


def _lines(folder: str, ranks: int) -> bytes:
    with contextlib.suppress(OSError), open(os.path.join(folder, _NAME), "rb") as file:
        return file.read(ranks * _LINE)
    return b""


def read_part(folder: str, rank: int) -> str:
    """What faulthandler has written in a rank; "" if nothing."""
    with contextlib.suppress(OSError), open(os.path.join(folder, _NAME), "rb") as file:
        file.seek(_PARTS + rank * _PART)
        return file.read(_PART).partition(b"\0")[0].decode(errors="replace")
    return ""


# -- in a rank -----------------------------------------------------------------------------------------------


class _Own:
    """The board as a rank has it open; closed where there is none, and in what a rank has forked."""

    fd = -1
    line = 0
    enabled = False
    file: os.stat_result | None = None

    def open(self, folder: str, rank: int) -> None:
        """Open the board, once; have faulthandler write there."""
        if self.fd >= 0:
            return
        try:
            self.fd = os.open(os.path.join(folder, _NAME), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        self.file = os.fstat(self.fd)
        self.line = rank * _LINE
        os.lseek(self.fd, _PARTS + rank * _PART, os.SEEK_SET)
        with contextlib.suppress(
            OSError, RuntimeError
        ):  # a sandbox forbids the stack on which it would write
            self._give_to_faulthandler()
        os.register_at_fork(after_in_child=self.disown)

    def _give_to_faulthandler(self) -> None:
        import _signal  # type: ignore[import-not-found]

        # Enabled already: by the user, by an option of the interpreter, or by a test runner that this was forked from.
        # That is left as it is, unless it is our own of the rank that this rank was forked from.
        if self.enabled or not faulthandler.is_enabled():
            faulthandler.enable(self.fd)
            self.enabled = True
        # Not signal.getsignal: it would make an enum, which takes longer than all else here.
        if ASK is not None and _signal.getsignal(ASK) == _signal.SIG_DFL:
            faulthandler.register(ASK, self.fd)
            self.write(_AT_READY, b"\1")

    def write(self, at: int, data: bytes) -> None:
        """Write into the line of this rank."""
        with contextlib.suppress(OSError):
            if self.is_open():
                os.pwrite(self.fd, data, self.line + at)

    def is_open(self) -> bool:
        """Whether the fd is still the board's: user code may have closed all that are open, and opened others."""
        if self.fd < 0 or self.file is None:
            return False
        now = os.fstat(self.fd)
        return (now.st_dev, now.st_ino) == (self.file.st_dev, self.file.st_ino)

    def disown(self) -> None:
        """In a process that the rank has forked: it doesn't speak for the rank. What it crashes with goes to stderr."""
        with contextlib.suppress(OSError):
            if self.is_open():
                os.dup2(2, self.fd, inheritable=False)
        self.fd = -1


_own = _Own()


def take_place(folder: str, rank: int) -> None:
    """As a rank, begin to say how it goes; faulthandler writes stacks for the supervisor from now on."""
    _own.open(folder, rank)


def mark(stage: str) -> None:
    """Say that this rank has come so far."""
    _own.write(_AT_STAGE, bytes((_STAGES.index(stage),)))


def mark_failing() -> None:
    """Say that this rank is about to report what it has caught."""
    _own.write(_AT_FAILING, b"\1")


def write_headline(text: str) -> None:
    """Say in short what was raised, where the report itself can't be written."""
    _own.write(_AT_HEADLINE, text.encode(errors="replace")[: _LINE - _AT_HEADLINE])

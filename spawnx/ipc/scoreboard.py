"""The scoreboard: what each rank says of itself while it lives, for the time when it can't say anything any more.

One file for all ranks of a call, made by the supervisor and handed over to each. It has a line for each rank (how far
it has come, a headline of what it raised), and far behind, two parts for each: in the first faulthandler writes stacks,
in the second the rank reports.

It is memory, and has no name: a full disk and an emptied folder do nothing to it. Where there is no such memory, it is
a file in the folder. One and not one per rank: thousands would be made and removed for the one that may crash. The
lines are written when the scoreboard is made, so that a rank finds room there; the parts are a hole until a rank
crashes.
"""

from __future__ import annotations

import contextlib
import faulthandler  # here, and not in each forked rank
import os
import signal
from _weakref import ref  # not weakref, which not every rank imports

from spawnx.ipc.ends import Own
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# How far a rank has come.
BOOT = "boot"
IMPORT = "import"
UNPICKLE = "unpickle"
RUN = "run"
EXIT = "exit"
STAGES = (BOOT, IMPORT, UNPICKLE, RUN, EXIT)

# By which a rank is asked for its stacks. Whoever has not registered for it, or runs another program by now, doesn't
# notice: its default is to be ignored. Of the four signals that are (CHLD, CONT, URG, WINCH) programs use it least: for
# out-of-band data of sockets, which nobody sends, and in Go's runtime, which took it for the same reasons.
ASK = getattr(signal, "SIGURG", None)

LINE = 128
AT_STAGE, AT_FAILING, AT_READY, AT_HEADLINE = 0, 1, 2, 4
# The size of a part: faulthandler tells up to 100 threads of 100 frames. A hole takes no room.
PART = 1 << 20
# How many characters of a text are sure to have room in one: UTF-8 takes up to 4 for each.
MOST_TEXT = 1 << 17
# Where they begin: behind the lines of more ranks than there can be processes (PID_MAX_LIMIT, 4 Mi, on Linux).
_PARTS = (1 << 22) * LINE


def stack_at(rank: int) -> int:
    """Where faulthandler writes in a rank."""
    return _PARTS + 2 * rank * PART


def report_at(rank: int) -> int:
    """Where a rank reports."""
    return stack_at(rank) + PART


def path_in(folder: str) -> str:
    """Where the scoreboard is, if it has a name."""
    with standard_library():
        from spawnx.ipc.names import SCOREBOARD

    return os.path.join(folder, SCOREBOARD)


class _Stream:
    """What faulthandler writes to. It has the only reference: who looks by a weak one sees whether it still does."""

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Asked once."""
        return self._fd

    def flush(self) -> None:
        """Asked once; nothing is buffered."""


class _Writer:
    """The scoreboard as a rank has it open; closed where there is none, and in what a rank has forked."""

    own = Own()
    rank = 0
    hooked = False
    # The streams that faulthandler has from us, as long as nobody gives it others: for fatal signals, and for `ASK`.
    fatal: Callable[[], _Stream | None] = staticmethod(lambda: None)
    asked: Callable[[], _Stream | None] = staticmethod(lambda: None)

    def open(self, fd: int, rank: int, folder: str) -> None:
        """Take a place there, once; have faulthandler write there."""
        if self.own.fd >= 0 or fd < 0:
            return
        self.rank = rank
        self.own = Own(fd)
        if _open_alone(self.own, folder):
            os.lseek(fd, stack_at(rank), os.SEEK_SET)
            # Suppressed: a sandbox forbids the stack on which its handler would run.
            with contextlib.suppress(OSError, RuntimeError):
                self._give_to_faulthandler(fd)
        if not self.hooked:
            os.register_at_fork(after_in_child=self.disown)
            self.hooked = True

    def _give_to_faulthandler(self, fd: int) -> None:
        with standard_library():
            import _signal  # type: ignore[import-not-found]

        # Enabled already: by the user, by an option of the interpreter, or by a test runner that this was forked from.
        # That is left as it is, unless it is our own of the rank that this rank was forked from.
        if self.fatal() is not None or not faulthandler.is_enabled():
            stream = _Stream(fd)
            faulthandler.enable(stream)
            self.fatal = ref(stream)
        # Not signal.getsignal: it would make an enum, which takes longer than all else here.
        if ASK is not None and _signal.getsignal(ASK) == _signal.SIG_DFL:
            stream = _Stream(fd)
            faulthandler.register(ASK, stream)
            self.asked = ref(stream)
            self.write(AT_READY, b"\1")

    def write(self, at: int, data: bytes) -> None:
        """Write into the line of this rank."""
        with contextlib.suppress(OSError):
            if self.own.is_open():
                os.pwrite(self.own.fd, data, self.rank * LINE + at)

    def report(self, data: bytes) -> bool:
        """Leave a report; whether it is there as a whole."""
        with contextlib.suppress(OSError):
            if len(data) <= PART and self.own.is_open():
                return os.pwrite(self.own.fd, data, report_at(self.rank)) == len(data)
        return False

    def disown(self) -> None:
        """In a process that the rank has forked: it doesn't speak for the rank. What it crashes with goes to stderr.

        By faulthandler itself, not by a duplicate of stderr: while one is open here, a reader of stderr would wait for
        its end, also when this process has closed its own.
        """
        if self.own.fd < 0:
            return
        if self.asked() is not None:
            faulthandler.unregister(ASK)  # type: ignore[arg-type]
        if self.fatal() is not None:
            try:
                os.fstat(2)
                stream = _Stream(2)
                faulthandler.enable(stream)
                self.fatal = ref(stream)
            except OSError:  # it has none: another file may get its number
                faulthandler.disable()
        self.own.close()


def _open_alone(own: Own, folder: str) -> bool:
    """Reopen the scoreboard at the same number with an offset of its own, at which faulthandler writes; whether it has.

    By what names an open file, or by its own name, once: before user code.
    """
    return _reopen(own, f"/proc/self/fd/{own.fd}") or _reopen(own, path_in(folder), os.O_NOFOLLOW)


def _reopen(own: Own, path: str, flags: int = 0) -> bool:
    with contextlib.suppress(OSError):
        alone = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags)
        try:
            if own.is_open_at(alone):
                os.dup2(alone, own.fd, inheritable=False)
                return True
        finally:
            os.close(alone)
    return False


_scoreboard = _Writer()


def open_place(scoreboard: int, rank: int, folder: str) -> None:
    """As a rank, begin to say how it goes; faulthandler writes stacks for the supervisor from now on.

    Args:
        scoreboard: its fd; from now on this module's. -1: there is none.
        rank: which one.
        folder: where the scoreboard has a name, if it has one.
    """
    _scoreboard.open(scoreboard, rank, folder)


def mark(stage: str) -> None:
    """Say that this rank has come so far."""
    _scoreboard.write(AT_STAGE, bytes((STAGES.index(stage),)))


def mark_failing() -> None:
    """Say that this rank is about to report what it has caught."""
    _scoreboard.write(AT_FAILING, b"\1")


def write_report(data: bytes) -> bool:
    """Report here, where it can't be done in the folder; whether the report is there as a whole."""
    return _scoreboard.report(data)


def write_headline(text: str) -> None:
    """Say in short what was raised, where the report itself can't be written."""
    _scoreboard.write(AT_HEADLINE, text.encode(errors="replace")[: LINE - AT_HEADLINE])

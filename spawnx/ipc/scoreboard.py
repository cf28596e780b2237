"""The scoreboard: each rank records its state while it lives, for the supervisor to read after a crash.

The supervisor makes one file for all ranks of a call and hands it over to each. It has a line for each rank: its stage
and a headline of what it raised. Far behind the lines are two parts for each rank: faulthandler writes stacks into the
first, and the rank writes its report into the second.

It is memory without a name: a full disk or an emptied folder does not affect it. Where there is no such memory, it is a
file in the folder. There is not one file per rank: thousands would be made and removed for the one rank that may crash.
The lines are written when the scoreboard is made, so a rank always has room in its line. The parts are a hole until
they are written to.
"""

from __future__ import annotations

import contextlib
import faulthandler  # imported once, not in each forked rank
import os
import signal
from _weakref import ref  # not weakref, which not every rank imports

from spawnx.ipc.ends import Own
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The stages of a rank, in order.
BOOT = "boot"
IMPORT = "import"
UNPICKLE = "unpickle"
RUN = "run"
EXIT = "exit"
STAGES = (BOOT, IMPORT, UNPICKLE, RUN, EXIT)

# The signal that asks a rank for its stacks. A rank that has not registered for it, or runs another program by now,
# ignores it by default. Of the four signals ignored by default (CHLD, CONT, URG, WINCH) programs use it least. Its uses
# are out-of-band data of sockets, which no program sends, and Go's runtime, which chose it for the same reasons.
ASK = getattr(signal, "SIGURG", None)

LINE = 128
AT_STAGE, AT_FAILING, AT_READY, AT_HEADLINE = 0, 1, 2, 4
# The size of a part: faulthandler writes up to 100 threads of 100 frames. A hole takes no room.
PART = 1 << 20
# So many characters of a text always fit into a part: UTF-8 takes up to 4 bytes for each.
MOST_TEXT = 1 << 17
# The parts begin behind the lines of more ranks than there can be processes (PID_MAX_LIMIT, 4 Mi, on Linux).
_PARTS = (1 << 22) * LINE


def stack_at(rank: int) -> int:
    """Return the offset at which faulthandler writes a rank's stacks."""
    return _PARTS + 2 * rank * PART


def report_at(rank: int) -> int:
    """Return the offset at which a rank writes its report."""
    return stack_at(rank) + PART


def path_in(folder: str) -> str:
    """Return the path of the scoreboard, if it is a file."""
    with standard_library():
        from spawnx.ipc.names import SCOREBOARD

    return os.path.join(folder, SCOREBOARD)


class _Stream:
    """A stream for faulthandler, which has the only strong reference: a weak one shows whether it still uses it."""

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the fd. faulthandler calls this once."""
        return self._fd

    def flush(self) -> None:
        """Do nothing, as there is no buffer. faulthandler calls this once."""


class _Writer:
    """The scoreboard in a rank. It is closed if there is none, and in processes that a rank has forked."""

    own = Own()
    rank = 0
    hooked = False
    # Weak references to the streams that we gave faulthandler, for fatal signals and for `ASK`: None once replaced.
    fatal: Callable[[], _Stream | None] = staticmethod(lambda: None)
    asked: Callable[[], _Stream | None] = staticmethod(lambda: None)

    def open(self, fd: int, rank: int, folder: str) -> None:
        """Take this rank's place on the scoreboard, once; faulthandler then writes there."""
        if self.own.fd >= 0 or fd < 0:
            return
        self.rank = rank
        self.own = Own(fd)
        if _open_alone(self.own, folder):
            os.lseek(fd, stack_at(rank), os.SEEK_SET)
            # Suppressed: a sandbox forbids the stack on which faulthandler's handler would run.
            with contextlib.suppress(OSError, RuntimeError):
                self._give_to_faulthandler(fd)
        if not self.hooked:
            os.register_at_fork(after_in_child=self.disown)
            self.hooked = True

    def _give_to_faulthandler(self, fd: int) -> None:
        with standard_library():
            import _signal  # type: ignore[import-not-found]

        # The user, an option of the interpreter, or a test runner that forked us may have enabled it already. Then it
        # stays as it is, unless the stream is our own, of a rank that forked this rank.
        if self.fatal() is not None or not faulthandler.is_enabled():
            stream = _Stream(fd)
            faulthandler.enable(stream)
            self.fatal = ref(stream)
        # Not signal.getsignal: it would make an enum, which takes longer than the rest of this function.
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
        """Write a report; return whether all of it was written."""
        with contextlib.suppress(OSError):
            if len(data) <= PART and self.own.is_open():
                return os.pwrite(self.own.fd, data, report_at(self.rank)) == len(data)
        return False

    def disown(self) -> None:
        """Close the scoreboard in a process that the rank has forked. Its stacks go to stderr.

        faulthandler writes to fd 2 itself, not to a duplicate. While a duplicate is open, a reader of stderr waits for
        end of file, even when this process has closed its fd 2.
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
            except OSError:  # fd 2 is closed: another file may get the number
                faulthandler.disable()
        self.own.close()


def _open_alone(own: Own, folder: str) -> bool:
    """Reopen the scoreboard at the same fd, with an offset of its own for faulthandler; return whether that worked.

    The path is /proc/self/fd/N, or that in the folder. It is used once, before user code runs.
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
    """Begin to record this rank's state; from now on, faulthandler writes stacks for the supervisor.

    Args:
        scoreboard: the scoreboard's fd, owned by this module from now on; -1: there is none.
        rank: the index of this rank.
        folder: the folder of the scoreboard, if it is a file.
    """
    _scoreboard.open(scoreboard, rank, folder)


def mark(stage: str) -> None:
    """Record that this rank has reached a stage."""
    _scoreboard.write(AT_STAGE, bytes((STAGES.index(stage),)))


def mark_failing() -> None:
    """Record that this rank is about to report an exception."""
    _scoreboard.write(AT_FAILING, b"\1")


def write_report(data: bytes) -> bool:
    """Write the report's copy to the scoreboard; return whether all of it was written."""
    return _scoreboard.report(data)


def write_headline(text: str) -> None:
    """Record a headline of what was raised, if the report itself can't be written."""
    _scoreboard.write(AT_HEADLINE, text.encode(errors="replace")[: LINE - AT_HEADLINE])

"""The table: a template's state and the pids of its ranks, in shared memory.

The supervisor can read it even after the template has ended, for whatever reason. A dialogue would break off.
"""

from __future__ import annotations

import mmap
import signal
import struct

# The states of a template: it has made no rank yet; it makes ranks; it has left them to the supervisor. In the last two
# it made none and gives the reason: its imports can't be cloned; its start-up code must run in each rank.
BOOTING = 0
CLONING = 1
CLONED = 2
GAVE_UP_PRELOAD = 3
HAS_STARTUP_CODE = 4

_HEAD = struct.Struct("iiQ")
_STATE = struct.Struct("i")
_PID = struct.Struct("i")
_REASON = 1024


class Table:
    """The memory that template and supervisor share: state, errno of a failure, signals, pids, reason.

    Args:
        file: the fd of memory of `size_of(ranks)` bytes; it stays the caller's.
        ranks: the number of pids.
    """

    def __init__(self, file: int, ranks: int) -> None:
        self._ranks = ranks
        self.memory = mmap.mmap(file, size_of(ranks))

    @property
    def state(self) -> int:
        """`BOOTING`, `CLONING`, `CLONED`, `GAVE_UP_PRELOAD` or `HAS_STARTUP_CODE`."""
        state: int = _HEAD.unpack_from(self.memory)[0]
        return state

    @property
    def errno(self) -> int:
        """The errno of the fork that failed; 0 if none failed."""
        number: int = _HEAD.unpack_from(self.memory)[1]
        return number

    @property
    def pending(self) -> list[int]:
        """The signals that were sent to the template and stay pending, as it blocks all signals."""
        return signals_of(_HEAD.unpack_from(self.memory)[2])

    @property
    def pids(self) -> list[int]:
        """The pids of the ranks that were made, in their order."""
        places = self.memory[_HEAD.size : _HEAD.size + self._ranks * _PID.size]
        pids: list[int] = [pid for (pid,) in _PID.iter_unpack(places)]
        return pids[: pids.index(0)] if 0 in pids else pids

    @property
    def reason(self) -> str:
        """The template's reason for giving up; "" if it gave none."""
        text: bytes = self.memory[size_of(self._ranks) - _REASON :]
        return text.rstrip(b"\0").decode(errors="replace")

    def write(self, state: int, errno: int = 0) -> None:
        """Record the template's state, and the signals that it has been sent until now."""
        _HEAD.pack_into(self.memory, 0, state, errno, pending_signals())

    def write_last(self, state: int) -> None:
        """Record the state without the signals: ranks that exist were sent those, too."""
        _STATE.pack_into(self.memory, 0, state)

    def note(self, position: int, pid: int) -> None:
        """Record the pid of a new rank."""
        _PID.pack_into(self.memory, _HEAD.size + position * _PID.size, pid)

    def explain(self, reason: str) -> None:
        """Record why the template can't go on."""
        text = reason.encode(errors="replace")[:_REASON]
        start = size_of(self._ranks) - _REASON
        self.memory[start : start + len(text)] = text

    def close(self) -> None:
        """Release the memory."""
        self.memory.close()


def pending_signals() -> int:
    """Return the signals that are pending in this process, as a mask: bit 0 is signal 1.

    SIGCHLD is left out: it concerns this process's own children.
    """
    try:
        pending = signal.sigpending()
    except OSError:  # a sandbox forbids the call
        return 0
    return sum(1 << (signum - 1) for signum in pending if signum != signal.SIGCHLD)


def signals_of(mask: int) -> list[int]:
    """Return the signals in a mask."""
    return [signum for signum in range(1, 65) if mask >> (signum - 1) & 1]


def size_of(ranks: int) -> int:
    """Return the size in bytes of a table for so many ranks."""
    return _HEAD.size + ranks * _PID.size + _REASON

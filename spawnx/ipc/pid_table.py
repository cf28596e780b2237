"""What a template found out, in shared memory: how far it has come, and the pids of its ranks.

The supervisor reads it when the template has ended, however it ended: there is no conversation that could break off.
"""

from __future__ import annotations

import mmap
import signal
import struct

# How far a template has come: no rank was made yet; some were; they were left to the supervisor. It made none, and says
# why: its imports can't be forked; what ran before ours is to run in each rank.
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
    """What template and supervisor share: how far it has come, the errno of what failed, signals, pids, a reason.

    Args:
        file: the fd of memory of `size_of(ranks)` bytes; it stays the caller's.
        ranks: how many pids there are.
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
        """Why a clone could not be made; 0 if that is not what happened."""
        number: int = _HEAD.unpack_from(self.memory)[1]
        return number

    @property
    def pending(self) -> list[int]:
        """The signals that the template was sent and didn't take, as it blocks all of them."""
        return signals_of(_HEAD.unpack_from(self.memory)[2])

    @property
    def pids(self) -> list[int]:
        """The pids of the ranks that were made, in their order."""
        places = self.memory[_HEAD.size : _HEAD.size + self._ranks * _PID.size]
        pids: list[int] = [pid for (pid,) in _PID.iter_unpack(places)]
        return pids[: pids.index(0)] if 0 in pids else pids

    @property
    def reason(self) -> str:
        """What the template said when it gave up; "" if it said nothing."""
        text: bytes = self.memory[size_of(self._ranks) - _REASON :]
        return text.rstrip(b"\0").decode(errors="replace")

    def write(self, state: int, errno: int = 0) -> None:
        """Say how far the template has come, and which signals it has been sent until now."""
        _HEAD.pack_into(self.memory, 0, state, errno, pending_signals())

    def write_last(self, state: int) -> None:
        """The same, but for signals: ranks that exist have been sent them as well."""
        _STATE.pack_into(self.memory, 0, state)

    def note(self, position: int, pid: int) -> None:
        """Say that a rank was made."""
        _PID.pack_into(self.memory, _HEAD.size + position * _PID.size, pid)

    def explain(self, reason: str) -> None:
        """Say why it can't go on."""
        text = reason.encode(errors="replace")[:_REASON]
        start = size_of(self._ranks) - _REASON
        self.memory[start : start + len(text)] = text

    def close(self) -> None:
        """Release the memory."""
        self.memory.close()


def pending_signals() -> int:
    """The signals that wait to be taken in this process, as a mask: bit 0 is signal 1.

    But for SIGCHLD, which tells of this process's own children.
    """
    try:
        pending = signal.sigpending()
    except OSError:  # a sandbox forbids to ask
        return 0
    return sum(1 << (signum - 1) for signum in pending if signum != signal.SIGCHLD)


def signals_of(mask: int) -> list[int]:
    """The signals in a mask."""
    return [signum for signum in range(1, 65) if mask >> (signum - 1) & 1]


def size_of(ranks: int) -> int:
    """How many bytes a table for so many ranks takes."""
    return _HEAD.size + ranks * _PID.size + _REASON

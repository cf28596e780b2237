"""The Python stacks of all threads of living ranks. faulthandler writes them when a signal asks for them.

The handler is C and takes no lock. So a rank answers even if it is busy in C, or waits for the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import os
import time

from spawnx import clock
from spawnx.backends.python import signal_child
from spawnx.ipc.scoreboard import ASK
from spawnx.process import RankProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.process import BaseProcess

    from spawnx.backends.contract import Backend
    from spawnx.ipc.scoreboard_reader import Scoreboard

# Seconds to wait for an answer. A rank that is stopped, or hangs in the kernel, gives none.
_ANSWERS_WITHIN = 2.0
# Seconds between two checks whether all ranks have answered.
_LOOK_EVERY = 0.01


def dump(processes: Mapping[int, BaseProcess], scoreboard: Scoreboard, backend: Backend) -> dict[int, str]:
    """Ask ranks for their stacks.

    Args:
        processes: started processes, by rank.
        scoreboard: the scoreboard of their context.
        backend: the backend that sends the signals.

    Returns:
        The stacks that each has written, by rank; or, in brackets, why it has written none.
    """
    lines = scoreboard.lines()
    before = {rank: len(scoreboard.stack(rank)) for rank in processes if lines and lines[rank].ready}
    _ask([processes[rank] for rank in before], backend)
    waiting, deadline = set(before), clock.monotonic() + _ANSWERS_WITHIN
    while waiting and clock.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
        waiting = {rank for rank in waiting if _is_answering(processes[rank].pid or 0)}
    told = {}
    for rank in processes:
        text = scoreboard.stack(rank)[before[rank] :] if rank in before else ""
        told[rank] = text or f"(no stack: {_why(processes[rank], asked=rank in before)})\n"
    return told


def _ask(processes: list[BaseProcess], backend: Backend) -> None:
    if not processes or ASK is None:
        return
    for process in processes:
        if isinstance(process, RankProcess) and process.holds_pidfd:
            signal_child(backend, process.pid or 0, process.sentinel, ASK)
        elif process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, ASK)


def _is_answering(pid: int) -> bool:
    """Whether the signal is still pending in a process, or blocked, as it is while the handler runs.

    Without /proc (macOS) that can't be seen: each rank then gets the full time.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = [
                int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd", "SigBlk"))
            ]
    except OSError:
        return not os.path.isdir("/proc/self")
    return any(mask >> (int(ASK or 1) - 1) & 1 for mask in masks)


def _why(process: BaseProcess, *, asked: bool) -> str:
    """Return why a rank has written no stack."""
    if not process.is_alive():
        return "the rank has ended"
    if asked:
        return f"it has not answered within {_ANSWERS_WITHIN:g} s; is it stopped?"
    return "the rank is still booting, or can't receive the signal"

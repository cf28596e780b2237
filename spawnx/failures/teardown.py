"""Teardown of a failed context: a ladder of signals with one clock for the whole group. Pure: it sends nothing."""

from __future__ import annotations

import math
import signal

from spawnx.orphans import KILLED_WITHIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Seconds that a rank may take to end after SIGKILL. One that takes longer must not hang the supervisor.
LAST_WAIT = KILLED_WITHIN
# Seconds for which a rank that has raised may be idle before it is signalled. If it ends by itself, its exit code is
# its own.
SPARED = 0.5
# The shortest wait between two steps, in seconds. So ranks that raised one after the other are signalled in few groups.
_STEP = 0.05

SIGTERM = int(signal.SIGTERM)
# On Windows, which has no SIGKILL, `Process.kill` is `terminate`.
SIGKILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))


class Step:
    """One step of a teardown.

    Attributes:
        ranks: the ranks to signal.
        kill: whether the signal is SIGKILL; otherwise it is SIGTERM.
        wait: how many seconds to wait after that, or less if all end sooner. None: leave the ranks to the system.
    """

    __slots__ = ("kill", "ranks", "wait")

    def __init__(self, ranks: list[int], *, kill: bool, wait: float | None) -> None:
        self.ranks = ranks
        self.kill = kill
        self.wait = wait


class Ladder:
    """One teardown: grace, SIGTERM, wait, SIGKILL, and a last wait that has an end.

    As in the reference (torch 2.13), the waits are those of the group, and with waits of 0 SIGKILL follows SIGTERM at
    once. Unlike there, a rank that has raised is spared for a moment, and the wait after SIGKILL has an end.

    Args:
        began: now, on the clock of `step`, in seconds.
        grace: how long ranks may take to end by themselves.
        kill_after: how long they may take after SIGTERM.
    """

    def __init__(self, began: float, grace: float, kill_after: float) -> None:
        self._term = began + grace
        self._kill = self._term + kill_after
        self._terminated: set[int] = set()
        self._killed: set[int] = set()
        self._last_kill = -math.inf

    def step(self, now: float, alive: Iterable[int], raised: Mapping[int, float]) -> Step:
        """What to do now; asked again after the wait. SIGTERM and SIGKILL never come in one step.

        Args:
            now: seconds.
            alive: the ranks that have not ended.
            raised: of those, who has raised, and since when it has been spared.
        """
        left = [rank for rank in alive if rank not in self._killed]
        spared = {rank: raised[rank] + SPARED for rank in left if rank in raised}
        to_terminate = {
            rank: max(self._term, spared.get(rank, now)) for rank in left if rank not in self._terminated
        }
        to_kill = {rank: max(self._kill, spared.get(rank, now)) for rank in left if rank in self._terminated}
        due = [rank for rank, at in to_terminate.items() if at <= now]
        if due:
            self._terminated.update(due)
            return Step(due, kill=False, wait=0.0)
        due = [rank for rank, at in to_kill.items() if at <= now]
        if due:
            self._killed.update(due)
            self._last_kill = now
        later = [at for at in (*to_terminate.values(), *to_kill.values()) if at > now]
        if later:
            return Step(due, kill=True, wait=max(_STEP, min(later) - now))
        last = self._last_kill + LAST_WAIT - now
        return Step(due, kill=True, wait=last if last > 0 else None)

"""How the ranks of a failed context are ended: a ladder with one clock for the whole group. Pure: it sends nothing."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds between SIGTERM and SIGKILL where the caller gives no grace period (torch 2.13).
KILL_AFTER = 30.0
# Seconds that a rank may take to end after SIGKILL. Who doesn't (state D: a driver or a file system doesn't answer)
# can't be helped, and must not hang the supervisor.
LAST_WAIT = 30.0

SIGTERM = int(signal.SIGTERM)
# Windows has no SIGKILL: `Process.kill` is `terminate` there.
SIGKILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))


class Rung:
    """One step down: send `signum` to all that live (None: nothing), then wait up to `seconds` for them to end."""

    __slots__ = ("seconds", "signum")

    def __init__(self, signum: int | None, seconds: float) -> None:
        self.signum = signum
        self.seconds = seconds


def ladder(grace_period: float | None) -> Iterator[Rung]:
    """The steps for a grace period in seconds, or None for the reference's default.

    As in the reference (torch 2.13), the grace period is given twice: before SIGTERM, and between SIGTERM and
    SIGKILL. With 0, SIGKILL follows at once. Unlike there, the wait after SIGKILL has an end.
    """
    if grace_period is not None:
        yield Rung(None, grace_period)
    yield Rung(SIGTERM, KILL_AFTER if grace_period is None else grace_period)
    yield Rung(SIGKILL, LAST_WAIT)

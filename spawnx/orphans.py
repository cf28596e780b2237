"""The ladder by which ranks that outlive their supervisor are ended. The guardian or a lifeline follows it."""

from __future__ import annotations

import signal

# SIGTERM follows SIGINT after the grace divided by this.
_TERM_PART = 5
# Seconds that a process may take to end after SIGKILL, until it is left to the system. In state D it waits for a driver
# or a file system that doesn't answer, and no signal ends it.
KILLED_WITHIN = 30.0
# Windows has no SIGKILL.
_SIGKILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))


class Step:
    """A `Step` is one step of the ladder.

    Attributes:
        signum: the signal to send.
        only_unarmed: whether it goes only to ranks without a death signal: the kernel sends it to the others.
        wait: how long the ranks may take to end after it, in seconds.
    """

    __slots__ = ("only_unarmed", "signum", "wait")

    def __init__(self, signum: int, wait: float, *, only_unarmed: bool = False) -> None:
        self.signum = signum
        self.wait = wait
        self.only_unarmed = only_unarmed


def ladder(grace: float) -> list[Step]:
    """Return the steps, in order.

    Args:
        grace: how long ranks may live on without their supervisor, in seconds; 0: SIGKILL is sent at once.
    """
    last = Step(_SIGKILL, KILLED_WITHIN)
    if grace <= 0:
        return [last]
    until_term = grace / _TERM_PART
    return [
        Step(int(signal.SIGINT), until_term, only_unarmed=True),
        Step(int(signal.SIGTERM), grace - until_term),
        last,
    ]


def to_argument(steps: list[Step]) -> str:
    """Encode a ladder as a command line argument, with waits in milliseconds: "U2:400,15:1600,9:30000"."""
    return ",".join(
        f"{'U' if step.only_unarmed else ''}{step.signum}:{round(step.wait * 1000)}" for step in steps
    )


def from_argument(text: str) -> list[Step]:
    """Decode the argument that `to_argument` makes."""
    steps = []
    for part in text.split(","):
        signum, _, wait = part.removeprefix("U").partition(":")
        steps.append(Step(int(signum), int(wait) / 1000, only_unarmed=part.startswith("U")))
    return steps

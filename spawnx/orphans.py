"""How ranks that outlive their supervisor are ended. Computed here; carried out by the guardian, or a lifeline."""

from __future__ import annotations

import signal

# SIGTERM follows SIGINT after this part of the grace.
_TERM_PART = 5
# Seconds that a process may take to end after SIGKILL, until it is left to the system: in state D, a driver or a file
# system doesn't answer, and nothing helps.
KILLED_WITHIN = 30.0
# Windows has no SIGKILL.
_SIGKILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))


class Step:
    """One step of the ladder.

    Attributes:
        signum: which signal is sent.
        only_unarmed: whether only to ranks to which the kernel sends nothing: the others have it from the kernel.
        wait: how long the ranks may take then, in seconds.
    """

    __slots__ = ("only_unarmed", "signum", "wait")

    def __init__(self, signum: int, wait: float, *, only_unarmed: bool = False) -> None:
        self.signum = signum
        self.wait = wait
        self.only_unarmed = only_unarmed


def ladder(grace: float) -> list[Step]:
    """The steps, in order.

    Args:
        grace: how long ranks may live on without their supervisor, in seconds; 0: SIGKILL follows at once.
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
    """A ladder as an argument of a command line, with waits in milliseconds: "U2:400,15:1600,9:30000"."""
    return ",".join(
        f"{'U' if step.only_unarmed else ''}{step.signum}:{int(step.wait * 1000)}" for step in steps
    )


def from_argument(text: str) -> list[Step]:
    """The ladder that `to_argument` has made an argument of."""
    steps = []
    for part in text.split(","):
        signum, _, wait = part.removeprefix("U").partition(":")
        steps.append(Step(int(signum), int(wait) / 1000, only_unarmed=part.startswith("U")))
    return steps

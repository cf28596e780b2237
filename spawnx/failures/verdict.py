"""Which failure is the cause, and in which order the others follow. Pure: from what is known of each failed rank.

Three kinds, in this order: genuine failures; consequences of a peer's end, which every rank that talks to a failed one
reports a moment later, and not seldom a moment earlier; and what we have done ourselves. Within each, the earliest
first.
"""

from __future__ import annotations

import math
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Seconds for which a genuine failure may follow its consequence: the kernel closes the connections of a process that
# dies before it lets its parent know, and a rank that raises does so before it reports.
PATIENCE = 1.0
# Seconds that may pass between the signal that ends a rank and the moment from which it can be seen ended.
_EXIT_TAKES = 0.05

# What ranks raise because a peer has gone: by type, and by what system, gloo, nccl and the TCPStore of torch say.
_TYPES = {
    "BrokenBarrierError",
    "BrokenPipeError",
    "ConnectionAbortedError",
    "ConnectionResetError",
    "IncompleteReadError",
}
_TEXTS = re.compile(
    r"broken pipe"
    r"|connection (aborted|closed|reset) by (remote )?peer"
    r"|connection was likely closed"
    r"|remote process (exited|exiting)"
    r"|socket closed",
    re.IGNORECASE,
)
# What stands between two exceptions of one traceback.
_CHAIN = re.compile(
    r"\n\n(?:During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:)\n\n"
)
# A line that belongs to no frame.
_OUTSIDE = re.compile(r"^[^ \n].*", re.MULTILINE)
_SIGPIPE = 13
# How many characters of a traceback are searched for the first exception of its chain, and of what that says, at its
# beginning and its end: a rank may raise 20 MB of text, and to search it all would take 8 s.
_SEARCHED = 1 << 20
_SAID = 2048


class Fact:
    """What is known of a rank that has failed. Times are of one monotonic clock, in seconds.

    Attributes:
        rank: its index.
        text: the traceback of what it raised, "" if it raised nothing.
        raised: when it raised; None where nobody knows.
        signum: the signal that ended it, 0 if it was none.
        alive: when it was last known to live.
        seen: when its failure was seen.
        sent: the signals that we have sent it, with the time of each.
    """

    __slots__ = ("alive", "raised", "rank", "seen", "sent", "signum", "text")

    def __init__(
        self,
        rank: int,
        *,
        text: str = "",
        raised: float | None = None,
        signum: int = 0,
        alive: float = 0.0,
        seen: float = 0.0,
        sent: Mapping[int, float] | None = None,
    ) -> None:
        self.rank = rank
        self.text = text
        self.raised = raised
        self.signum = signum
        self.alive = alive
        self.seen = seen
        self.sent = sent or {}


def in_order(facts: Iterable[Fact]) -> list[Fact]:
    """The failures, the cause first. The order of what comes in makes no difference."""
    return sorted(facts, key=_key)


def is_genuine(fact: Fact) -> bool:
    """Whether a failure is neither our own doing nor the consequence of a peer's end."""
    return not is_ours(fact) and not is_consequence(fact)


def is_ours(fact: Fact) -> bool:
    """Whether a rank ended because we have ended it: after our first signal, and not by another one."""
    if not fact.sent:
        return False
    if fact.text and fact.raised is not None:
        return fact.raised > min(fact.sent.values())
    return bool(fact.text) or not fact.signum or fact.signum in fact.sent


def is_consequence(fact: Fact) -> bool:
    """Whether a failure looks like one that a peer's end has brought about."""
    if not fact.text:
        return fact.signum == _SIGPIPE
    # The first exception of a chain: what follows it was raised from it, or while it was dealt with.
    first = _CHAIN.split(fact.text[:_SEARCHED], maxsplit=1)[0]
    name, _, said = _exception_in(first).partition(":")
    if len(said) > 2 * _SAID:
        said = f"{said[:_SAID]}\n{said[-_SAID:]}"
    kind = name.rpartition(".")[2]
    # A bare EOFError is that of a connection whose other end is closed; those of files and of input() say something.
    return kind in _TYPES or (kind == "EOFError" and not said) or bool(_TEXTS.search(said))


def _exception_in(text: str) -> str:
    """The first line behind the frames of a traceback: "Type: text", or what of the text is in the first line."""
    _, _, frames = text.partition("Traceback (most recent call last):\n")
    found = _OUTSIDE.search(frames)
    return found[0] if found else ""


def _key(fact: Fact) -> tuple[int, float, bool, float, int]:
    kind = 2 if is_ours(fact) else 1 if is_consequence(fact) else 0
    return (kind, _time(fact), not fact.signum, fact.seen, fact.rank)


def _time(fact: Fact) -> float:
    """When a rank failed, for the order.

    A raise has a point in time. A death by signal lies between when the rank was last known to live and when it was
    seen dead: where that overlaps with raises, it comes first, as peers raise when a rank is gone, but no rank is
    killed because a peer raises. A silent exit is taken to have happened when it was seen.
    """
    if fact.text and fact.raised is not None:
        return fact.raised
    return fact.alive - _EXIT_TAKES if fact.signum else fact.seen


class Patience:
    """How long to wait on for a genuine failure while all that are known look like consequences."""

    def __init__(self) -> None:
        self._until = math.inf

    def take(self, fact: Fact, now: float) -> None:
        """Know of one more failure."""
        if is_genuine(fact):
            self._until = -math.inf
        elif self._until == math.inf:
            self._until = now + PATIENCE

    def left(self, now: float) -> float:
        """How many seconds to wait on; inf where no failure is known, 0 where it is time to act."""
        return max(0.0, self._until - now)

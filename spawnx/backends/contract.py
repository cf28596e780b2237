"""What a backend does for the rest of spawnx: few calls on kernel objects, no policy.

Errors are `OSError`s with the errno of the system; whoever calls turns them into the domain's words.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol
else:
    Protocol = object  # every rank that arms itself imports this package: `typing` costs more than all of it


class Watch(Protocol):
    """Tells which of many ranks have ended: each is registered once, and each end costs the same at any number."""

    def add(self, sentinel: int, rank: int) -> None:
        """Watch `sentinel`, which becomes readable when `rank` has ended. It stays the caller's."""

    def wait(self, timeout: float | None) -> list[int]:
        """Wait until some rank has ended; return all that have and were not discarded.

        A signal whose handler doesn't raise doesn't end the wait.

        Args:
            timeout: seconds; 0 and less only look, None waits for ever.

        Returns:
            Ranks, none if the time is over.
        """

    def discard(self, sentinel: int) -> None:
        """Watch `sentinel` no longer; nothing happens if it isn't watched.

        Before it is closed: a fork of the user's keeps the description behind it alive, and epoll reports that.
        """

    def close(self) -> None:
        """Release what the watch holds. May be called again."""


class Backend(Protocol):
    """One way to arm, watch, reap and signal processes."""

    name: str

    def features(self) -> dict[str, str]:
        """What the kernel offers and this backend uses, for people: name -> "yes", "no" or what is used."""

    def has_pidfd(self) -> bool:
        """Whether processes can be held by pidfds here (Linux 5.4); permanent, hence probed once."""

    def load(self) -> None:
        """Load what `arm` needs, in the supervisor, so that no forked rank has to."""

    def arm(self, signum: int, parent: int) -> bool:
        """Ask the kernel to send this process `signum` when the thread that created it ends (prctl(2)).

        Then compare `getppid()` with `parent`: who finds another one there came too late, as the parent died
        before. Never with 1: in a container the supervisor may be pid 1. 0 is a parent in an outer pid namespace.

        Returns:
            False if the parent is dead already; True otherwise, also where the system has no such signal.
        """

    def open_pidfd(self, pid: int) -> int:
        """Open a pidfd for an unreaped child of ours; the caller closes it.

        Raises:
            OSError: EMFILE or ENFILE: no fd is left. ECHILD: `pid` is no child of ours (any longer): somebody
                else reaped it, and a stranger may have its number by now. Nothing was opened.
        """

    def peek(self, pidfd: int) -> int | None:
        """The exit code of a child, as multiprocessing has it, or None while it runs. It stays unreaped.

        Raises:
            ChildProcessError: somebody else reaped it.
        """

    def reap(self, pidfd: int) -> None:
        """Let the kernel forget a child that `peek` has seen ended. May be called again, and by several threads."""

    def fan_out(self, pidfds: Iterable[int], signum: int) -> None:
        """Send one signal to many processes. By pidfd: a process that got a dead one's number is never hit."""

    def open_watch(self) -> Watch:
        """A new watch; the caller closes it."""

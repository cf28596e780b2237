"""What a backend does for the rest of spawnx: few calls on kernel objects, no policy.

Errors are `OSError`s with the errno of the system; whoever calls turns them into the domain's words.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol
else:
    Protocol = object  # every rank that arms itself imports this package: `typing` costs more than all of it


# The exit code of a child that somebody else has reaped: nobody knows it.
LOST = 1 << 16
# What a kernel that lacks a call answers, and a sandbox (a seccomp filter) that forbids it: so it stays.
FORBIDDEN = frozenset({errno.ENOSYS, errno.EPERM})

if TYPE_CHECKING:
    # A rank that a watch has seen ended: its index, its exit code as multiprocessing has it (LOST, or None where only
    # its Process can tell), and its peak resident memory in KiB (0 where unknown). Below 0: what is no rank, see `add`.
    Seen = tuple[int, int | None, int]


class Watch(Protocol):
    """Tells which of many ranks have ended: each is registered once, and each end costs the same at any number."""

    def add(self, sentinel: int, rank: int) -> None:
        """Watch `sentinel`, which becomes readable when `rank` has ended. It stays the caller's.

        With a rank below 0 it is no rank's, but any fd: told in each call in which it is readable, with an exit code
        that means nothing.
        """

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:
        """Wait until some rank has ended; list those that have, whoever was not discarded yet.

        A signal whose handler doesn't raise doesn't end the wait. Nothing is consumed: ranks stay unreaped and
        watched, so that an interrupted caller can look again.

        Args:
            timeout: seconds; 0 and less only look, None waits for ever.
            gather: for how many ranks the caller waits. If others end right after the first, as many as that may be
                listed at once, which is cheaper; one that has failed is listed at once.

        Returns:
            Ranks, none if the time is over; perhaps not all at once where there are many.
        """

    def discard(self, sentinels: Sequence[int]) -> None:
        """Watch these no longer; nothing happens to those that aren't watched.

        Before they are closed: a fork of the user's keeps the description behind one alive, and epoll reports that.
        """

    def fileno(self) -> int:
        """An fd that is readable when `wait` has something to list; -1 where there is none."""

    def close(self) -> None:
        """Release what the watch holds. May be called again."""


class Backend(Protocol):
    """One way to arm, launch, watch, reap and signal processes.

    Attributes:
        name: "native" or "python".
        can_clone: whether it has what a template needs: survey of objects, adoption of orphans.
        arms_at_launch: whether `launch` arms the death signal, before the exec.
    """

    name: str
    can_clone: bool
    arms_at_launch: bool

    def features(self) -> dict[str, str]:
        """What the kernel offers and this backend uses, for people: name -> "yes", "no" or what is used."""

    def has_pidfd(self) -> bool:
        """Whether processes can be held by pidfds here (Linux 5.4). Probed once; again where no fd was left for it."""

    def load(self) -> None:
        """Load what `arm` needs, in the supervisor, so that no forked rank has to."""

    def arm(self, signum: int, parent: int) -> bool:
        """Ask the kernel to send this process `signum` when the thread that created it ends (prctl(2)).

        Then compare `getppid()` with `parent`: who finds another one there came too late, as the parent died
        before. Never with 1: in a container the supervisor may be pid 1. 0 is a parent in an outer pid namespace.

        Returns:
            False if the parent is dead already; True otherwise, also where the system has no such signal.
        """

    def launch(self, program: Program) -> tuple[int, int]:
        """Start a program in a new process; returns its pid, and a pidfd that the caller closes.

        Raises:
            OSError: it could not be started, or the program could not be executed; no process is left.
        """

    def guardian_command(
        self, channel: int, folder: int, supervisor: int, ladder: str, path: str
    ) -> list[str]:
        """The command line of a guardian. See csrc/guardian.c.

        Args:
            channel: the fd of its end of the socket, which it inherits.
            folder: the fd of the folder that it then removes, which it inherits.
            supervisor: this process's pid.
            ladder: how ranks that outlive it are ended; see `orphans.to_argument`.
            path: the folder's.
        """

    def open_pidfd(self, pid: int) -> int:
        """Open a pidfd for an unreaped child of ours; the caller closes it.

        Raises:
            OSError: EMFILE or ENFILE: no fd is left. ECHILD: `pid` is no child of ours (any longer): somebody
                else reaped it, and a stranger may have its number by now. Nothing was opened.
        """

    def peek(self, pidfd: int) -> int | None:
        """The exit code of a child, as multiprocessing has it, or None while it runs. It stays unreaped.

        LOST if somebody else has reaped it and the kernel doesn't tell (it does since Linux 6.15).
        """

    def sweep(self, pids: Sequence[int]) -> list[tuple[int, int]]:
        """Look at children by their pids: (pid, exit code or LOST) of those that have ended. For want of pidfds."""

    def reap(self, pidfds: Sequence[int]) -> None:
        """Let the kernel forget children that have been seen ended. May be called again, and by several threads."""

    def fan_out(self, pidfds: Sequence[int], signum: int) -> None:
        """Send one signal to many processes. By pidfd: a process that got a dead one's number is never hit."""

    def open_watch(self) -> Watch:
        """A new watch over pidfds; the caller closes it."""


class Program:
    """What `Backend.launch` starts.

    Attributes:
        argv: the program's path, which is not searched for, and its arguments.
        keep: the fds that it inherits under the same numbers, besides 0 to 2.
        death_signal: sent when the calling thread ends, where the backend arms at launch; 0: none.
        mask: the signals that are blocked in it.
    """

    __slots__ = ("argv", "death_signal", "keep", "mask")

    def __init__(
        self, argv: Sequence[str], *, keep: Iterable[int], death_signal: int, mask: Iterable[int]
    ) -> None:
        self.argv = argv
        self.keep = sorted(set(keep))
        self.death_signal = death_signal
        self.mask = mask

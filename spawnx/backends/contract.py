"""The contract of a backend: a few calls on kernel objects, and no policy.

Errors are `OSError`s with the errno of the system; the caller translates them into the terms of its own domain.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol
else:
    Protocol = object  # every rank that arms itself imports this module: `typing` costs more than the package


# The exit code of a child that somebody else has reaped: it is unknown.
LOST = 1 << 16
# The errors of a kernel that lacks a call, and of a sandbox (a seccomp filter) that forbids it. They are permanent.
FORBIDDEN = frozenset({errno.ENOSYS, errno.EPERM})
# The errors of a full table of fds: of this process, or of the system.
FULL = {errno.EMFILE, errno.ENFILE}

if TYPE_CHECKING:
    # A rank that a watch has seen ended: its index; its exit code as in multiprocessing, or LOST, or None if only its
    # Process knows it; and its peak resident memory in KiB, 0 if unknown. An index below 0 is no rank: see `Watch.add`.
    Seen = tuple[int, int | None, int]


class Watch(Protocol):
    """A watch reports which of many ranks have ended. The cost of one end doesn't depend on the number of ranks."""

    def add(self, sentinel: int, rank: int) -> None:
        """Watch `sentinel`, which becomes readable when `rank` has ended. Call it once for each; the caller closes it.

        With a rank below 0, `sentinel` is any fd. Each `wait` in which it is readable lists it, with an exit code that
        means nothing.
        """

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:
        """Wait until a rank has ended; list the ranks that have ended and are not discarded.

        A signal whose handler doesn't raise doesn't end the wait. Nothing is consumed: ranks stay unreaped and
        watched, so that an interrupted caller can look again.

        Args:
            timeout: seconds; 0 or less does not wait, None waits without limit.
            gather: how many ranks the caller waits for. Up to that many may be listed together if they end right after
                one another, which is cheaper. A rank that has failed is listed without delay.

        Returns:
            The ranks; empty if the time is over. If many have ended, perhaps only some of them.
        """

    def discard(self, sentinels: Sequence[int]) -> None:
        """Stop watching these. Sentinels that aren't watched are ignored.

        Call it before closing them. A process that the user has forked may keep the open file description alive, and
        epoll would go on reporting it.
        """

    def fileno(self) -> int:
        """Return an fd that is readable when `wait` has something to list; -1 if the watch has none."""

    def close(self) -> None:
        """Release the resources of the watch. May be called again."""


class Backend(Protocol):
    """A backend is one way to arm, launch, watch, reap and signal processes.

    Attributes:
        name: "native" or "python".
        can_clone: whether it provides what a template needs: survey of objects, adoption of orphans.
        arms_at_launch: whether `launch` arms the death signal, before the exec.
    """

    name: str
    can_clone: bool
    arms_at_launch: bool

    def features(self) -> dict[str, str]:
        """Return the kernel's features that this backend uses, as text: name -> "yes", "no" or the mechanism."""

    def has_pidfd(self) -> bool:
        """Return whether processes can be held by pidfds (Linux 5.4). Probed once; again if no fd was free for it."""

    def load(self) -> None:
        """Load in the supervisor what `arm` needs, so that no forked rank must load it."""

    def arm(self, signum: int, parent: int) -> bool:
        """Ask the kernel to send this process `signum` when the thread that created it ends (prctl(2)).

        Then compare `getppid()` with `parent`: if they differ, the parent has died before the call, and no signal will
        come. Don't compare with 1: in a container the supervisor may be pid 1. 0 is a parent in an outer pid namespace.

        Returns:
            False if the parent is dead already; True otherwise, also if the system has no such signal.
        """

    def launch(self, program: Program) -> tuple[int, int]:
        """Start a program in a new process; return its pid, and a pidfd that the caller closes.

        Raises:
            OSError: the process could not be started, or could not execute the program. No process is left.
        """

    def guardian_command(
        self, channel: int, folder: int, supervisor: int, ladder: str, path: str
    ) -> list[str]:
        """Return the command line of a guardian. See csrc/guardian.c.

        Args:
            channel: the fd of the guardian's end of the socket, which it inherits.
            folder: the fd of the folder that it removes after the ranks, which it inherits.
            supervisor: the pid of this process.
            ladder: how to end ranks that outlive this process; see `orphans.to_argument`.
            path: the path of the folder.
        """

    def open_pidfd(self, pid: int) -> int:
        """Open a pidfd for an unreaped child of this process; the caller closes it.

        Raises:
            OSError: EMFILE or ENFILE: no fd is free. ECHILD: `pid` is no child of this process, or no longer one, as
                somebody else reaped it; another process may have its number by now. Nothing was opened.
        """

    def peek(self, pidfd: int) -> int | None:
        """Return the exit code of a child, as in multiprocessing, or None while it runs. It stays unreaped.

        The result is LOST if somebody else has reaped it and the kernel doesn't report the code (Linux before 6.15).
        """

    def sweep(self, pids: Sequence[int]) -> list[tuple[int, int]]:
        """Return (pid, exit code or LOST) of the children that have ended. For children that no pidfd holds."""

    def reap(self, pidfds: Sequence[int]) -> None:
        """Reap children that have been seen ended. May be called again, and from several threads."""

    def fan_out(self, pidfds: Sequence[int], signum: int) -> None:
        """Send one signal to many processes. By pidfd, so that no process that reuses a pid is signalled."""

    def open_watch(self) -> Watch:
        """Open a watch over pidfds; the caller closes it."""


class Program:
    """A `Program` is what `Backend.launch` starts.

    Attributes:
        argv: the program's path, which is not searched for in PATH, and its arguments.
        keep: the fds that it inherits under the same numbers, besides 0 to 2.
        death_signal: sent when the thread that launched it ends, if the backend arms at launch; 0: none.
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

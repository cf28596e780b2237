"""The adoption of ranks: this process becomes the parent of what a template has forked, when the template ends.

The kernel gives the children of a process that ends to the nearest ancestor that is a subreaper (prctl(2)): to its main
thread. This process is one for that moment only. Whoever else loses its parent just then, among the descendants, is
adopted as well: a stray, which would have become a child of init. It is reaped at its end, as by init, and not touched
before.
"""

from __future__ import annotations

import contextlib
import os
import threading

from spawnx import clock
from spawnx.backends.python import wait_readable
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def adopting(ranks: list[int]) -> Iterator[None]:
    """Adopt the children of descendants that end meanwhile.

    Args:
        ranks: the pids of those for whose sake it is done, at least one, in the order in which they were forked.

    Raises:
        OSError: a sandbox forbids it.
    """
    with standard_library():
        from spawnx.backends import native

    with _lock:  # one at a time, so that each knows whom it has adopted
        _reap_strays()
        # Twice, as one reading may omit a child that lives, while another one is reaped (proc_pid_task(5)).
        before = _children() | _children()
        was = native.adopt_orphans(on=True)
        try:
            yield
        finally:
            native.adopt_orphans(on=was)  # where the program has asked for it, it stays so
            _find_strays(before, ranks)


def are_adopted(pidfds: list[int]) -> bool:
    """Whether ranks are children of this process now: all or none are, as the kernel does it in one step."""
    for pidfd in pidfds:
        # Not ours; or it has ended already, where somebody else reaps.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return True
    return False


def _find_strays(before: set[int], ranks: list[int]) -> None:
    """Find those that were adopted and are no ranks: none of ours before, but older than the youngest rank.

    Younger ones may be children that another thread of ours has just made: whose status is somebody's. If they are
    strays, they stay zombies at their end, until this process ends.
    """
    if not before:  # the kernel doesn't tell
        return
    for pid in _children() - before - set(ranks):
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # one of them is gone
            youngest = os.pidfd_open(ranks[-1])
            opened.callback(os.close, youngest)
            pidfd = os.pidfd_open(pid)
            opened.callback(os.close, pidfd)
            if _is_older(pid, pidfd, ranks[-1], youngest):
                _strays.append(os.dup(pidfd))


def reap_orphans(pids: list[int], timeout: float) -> None:
    """Reap the ranks of a template that was killed, which are about to end, for up to some seconds.

    They are children of this process where it adopts orphans for another reason: it is the first one of its pid
    namespace, the program has asked for it, or another call adopts.
    """
    deadline = clock.monotonic() + timeout
    for pid in pids:
        with (
            contextlib.suppress(OSError),
            contextlib.ExitStack() as opened,
        ):  # it is gone, or no child of ours
            pidfd = os.pidfd_open(pid)
            opened.callback(os.close, pidfd)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            wait_readable([pidfd], max(0, deadline - clock.monotonic()))
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def _reap_strays() -> None:
    """Reap the strays that have ended."""
    for pidfd in [pidfd for pidfd in _strays if wait_readable([pidfd], 0)]:
        with contextlib.suppress(ChildProcessError):  # somebody else has
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        _strays.remove(pidfd)
        os.close(pidfd)


def _children() -> set[int]:
    """The children of this process; none where the kernel doesn't tell (proc_pid_task(5), CONFIG_PROC_CHILDREN)."""
    found: set[int] = set()
    # The main thread last: it gets those of a thread that ends meanwhile.
    for thread in [*(set(_threads()) - {os.getpid()}), os.getpid()]:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            found.update(map(int, file.read().split()))
    return found


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []


def _is_older(pid: int, pidfd: int, than: int, its_pidfd: int) -> bool:
    """Whether a process was made before another one."""
    made, others = os.fstat(pidfd).st_ino, os.fstat(its_pidfd).st_ino
    # Since Linux 6.9 a number that no other process has had, and the later the higher; before, all have the same.
    return made < others if made != others else _started(pid) < _started(than)


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the system was (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19])


def _forget() -> None:
    """In a forked child: the strays are the parent's."""
    global _lock  # noqa: PLW0603 - one per process
    _lock = threading.Lock()
    for pidfd in _strays:
        os.close(pidfd)
    _strays.clear()


_lock = threading.Lock()
_strays: list[int] = []
os.register_at_fork(after_in_child=_forget)

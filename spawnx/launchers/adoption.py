"""The adoption of ranks: this process becomes their parent when the template that has forked them ends.

When a process ends, the kernel gives its children to the main thread of the nearest ancestor that is a subreaper
(prctl(2)). This process is a subreaper for that moment only. Another descendant may lose its parent in the same moment.
Such a stray, which would else have become a child of init, is adopted as well. This process reaps it after its end, as
init would, and sends it no signal.
"""

from __future__ import annotations

import contextlib
import os
import threading

from spawnx import clock, proc_stat
from spawnx.backends.python import wait_readable
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def adopting(ranks: list[int]) -> Iterator[None]:
    """Adopt the children of descendants that end in this context.

    Args:
        ranks: the pids of the ranks to adopt, at least one, in the order of their forks.

    Raises:
        OSError: a sandbox forbids prctl(2).
    """
    with standard_library():
        from spawnx.backends import native

    with _lock:  # one adoption at a time, so that each knows which processes it has adopted
        _reap_strays()
        # Read twice: one reading may omit a living child while another child is reaped (proc_pid_task(5)).
        before = _children() | _children()
        was = native.adopt_orphans(on=True)
        try:
            yield
        finally:
            native.adopt_orphans(on=was)  # a program that was a subreaper stays one
            _find_strays(before, ranks)


def are_adopted(pidfds: list[int]) -> bool:
    """Return whether ranks are children of this process now. All or none are: the kernel moves them in one step."""
    for pidfd in pidfds:
        # ChildProcessError: it is no child of ours. Or it has ended, and another party has reaped it.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return True
    return False


def _find_strays(before: set[int], ranks: list[int]) -> None:
    """Find the strays: adopted processes that are no ranks, were no children before, and are older than the last rank.

    A younger process may be a child that another thread has just created, whose exit status belongs to that thread. If
    it is a stray, it stays a zombie from its end to the end of this process.
    """
    if not before:  # the kernel doesn't list children
        return
    for pid in _children() - before - set(ranks):
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # one of the two is gone
            youngest = os.pidfd_open(ranks[-1])
            opened.callback(os.close, youngest)
            pidfd = os.pidfd_open(pid)
            opened.callback(os.close, pidfd)
            if _is_older(pid, pidfd, ranks[-1], youngest):
                _strays.append(os.dup(pidfd))


def reap_orphans(pids: list[int], timeout: float) -> None:
    """Reap the ranks of a template that was killed. They are about to end: wait for that up to `timeout` seconds.

    They are children of this process if it adopts orphans for another reason. It may be the first process of its pid
    namespace, or the program is a subreaper, or another call adopts.
    """
    deadline = clock.monotonic() + timeout
    for pid in pids:
        with (
            contextlib.suppress(OSError),
            contextlib.ExitStack() as opened,
        ):  # it is gone, or no child of this process
            pidfd = os.pidfd_open(pid)
            opened.callback(os.close, pidfd)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            wait_readable([pidfd], max(0, deadline - clock.monotonic()))
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def _reap_strays() -> None:
    """Reap the strays that have ended."""
    for pidfd in [pidfd for pidfd in _strays if wait_readable([pidfd], 0)]:
        with contextlib.suppress(ChildProcessError):  # another party has reaped it
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        _strays.remove(pidfd)
        os.close(pidfd)


def _children() -> set[int]:
    """The children of this process; empty if the kernel doesn't list them (proc_pid_task(5), CONFIG_PROC_CHILDREN)."""
    found: set[int] = set()
    # The main thread last: it gets the children of a thread that ends meanwhile.
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
    """Whether a process was created before another one."""
    made, others = os.fstat(pidfd).st_ino, os.fstat(its_pidfd).st_ino
    # Since Linux 6.9, a pidfd's inode number is unique to its process and higher for a later one. Before, all pidfds
    # have the same number.
    return made < others if made != others else _started(pid) < _started(than)


def _started(pid: int) -> int:
    """The start time of a process, in clock ticks since boot (proc_pid_stat(5))."""
    return int(proc_stat.fields(pid)[proc_stat.STARTED])


def _forget() -> None:
    """In a forked child, forget the strays: they are the parent's."""
    global _lock  # noqa: PLW0603 - one per process
    _lock = threading.Lock()
    for pidfd in _strays:
        os.close(pidfd)
    _strays.clear()


_lock = threading.Lock()
_strays: list[int] = []
os.register_at_fork(after_in_child=_forget)

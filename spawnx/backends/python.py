"""The contract, by the standard library: pidfds and epoll on Linux, kqueue on macOS, sentinels elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from functools import partial

from spawnx.backends.contract import FORBIDDEN, FULL, LOST
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Sequence

    from spawnx.backends.contract import Backend, Program, Seen, Watch

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# <linux/pidfd.h>: struct pidfd_info in its first form, its ioctl, and the bit that requests the exit code.
_INFO = "QQ11Ii"
_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3


class PythonBackend:
    """See `contract.Backend`."""

    name = "python"
    can_clone = False
    arms_at_launch = False

    def features(self) -> dict[str, str]:
        """See the contract."""
        return {
            "parent death signal": "prctl by ctypes" if sys.platform == "linux" else "no",
            "pidfd": "yes" if self.has_pidfd() else "no",
            "watch": "multiprocessing.connection.wait"
            if sys.platform == "win32"
            else _watching_selector().__name__,
        }

    def has_pidfd(self) -> bool:
        """See the contract."""
        global _has_pidfd  # noqa: PLW0603 - an answer of the kernel, the same for the life of this process
        if _has_pidfd is None:
            _has_pidfd = _probe_pidfd()
        return bool(_has_pidfd)

    def load(self) -> None:
        """See the contract.

        The standard library has no prctl(2), so every rank that arms itself must load a way to call it. That takes 2 ms
        by ctypes, and 0.5 ms by CPython's `_ctypes` below it (read in CPython 3.10 to 3.15). PyPy's `_ctypes` differs.
        """
        global _prctl  # noqa: PLW0603
        if sys.platform == "linux" and _prctl is None:
            _prctl = _prctl_of_cpython() or _prctl_of_ctypes()

    def arm(self, signum: int, parent: int) -> bool:
        """See the contract."""
        self.load()
        if _prctl is None:
            return True
        if _prctl((_PR_SET_PDEATHSIG, signum, 0, 0, 0)) != 0:
            # A sandbox forbids it: ranks then run as on systems without such a signal.
            return True
        # The order matters: if the parent dies after the prctl, the kernel signals; if before, getppid() shows it.
        return os.getppid() in {parent, 0}

    def launch(self, program: Program) -> tuple[int, int]:
        """See the contract. The program must arm itself: the standard library can't run our code before the exec."""
        with standard_library():
            from spawnx.mp import interpreter

        pid = interpreter.launch(program)
        try:
            return pid, self.open_pidfd(pid)
        except BaseException:
            end_unheld(pid)
            raise

    def guardian_command(
        self, channel: int, folder: int, supervisor: int, ladder: str, path: str
    ) -> list[str]:
        """See the contract."""
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = f"import sys; sys.path.append({package!r}); from spawnx.remote.guardian import main; main()"
        # Isolated and without site, so that it uses little memory and runs no code of the user.
        numbers = map(str, (channel, folder, supervisor, ladder))
        return [sys.executable, "-I", "-S", "-c", code, *numbers, path]

    def open_pidfd(self, pid: int) -> int:
        """See the contract."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD)) from None
        # Between fork and open, an ignored SIGCHLD or somebody's waitpid(-1) may have reaped the child. Then another
        # process may have got its number. waitid(2) reports on children only, so `peek` returns LOST for that one.
        if self.peek(pidfd) == LOST:
            os.close(pidfd)
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        return pidfd

    def peek(self, pidfd: int) -> int | None:
        """See the contract."""
        try:
            info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return _reaped_code(pidfd)
        return _code(info)

    def sweep(self, pids: Sequence[int]) -> list[tuple[int, int]]:
        """See the contract."""
        found = []
        for pid in pids:
            try:
                code = _code(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
            except ChildProcessError:
                code = LOST
            if code is not None:
                found.append((pid, code))
        return found

    def reap(self, pidfds: Sequence[int]) -> None:
        """See the contract."""
        for pidfd in pidfds:
            # Suppressed: another thread, or a signal handler in this one, has reaped it first.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

    def fan_out(self, pidfds: Sequence[int], signum: int) -> None:
        """See the contract."""
        with standard_library():
            import signal

        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):  # it has ended in the meantime
                signal.pidfd_send_signal(pidfd, signum)

    def open_watch(self) -> Watch:
        """See the contract."""
        return PidfdWatch(self)


_has_pidfd: bool | None = None
# Looked up once, in the supervisor: in a forked rank the lookup would cost more than all else before the call.
_prctl: Callable[[tuple[int, ...]], int] | None = None


def _prctl_of_cpython() -> Callable[[tuple[int, ...]], int] | None:
    """Find prctl(2) by `_ctypes`; None if that is not CPython's."""
    with standard_library():
        import _ctypes

    if not hasattr(_ctypes, "call_cdeclfunction"):
        return None
    this_program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
    return partial(_ctypes.call_cdeclfunction, _ctypes.dlsym(this_program, "prctl"))


def _prctl_of_ctypes() -> Callable[[tuple[int, ...]], int]:
    with standard_library():
        import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return lambda arguments: int(prctl(*arguments))


def _probe_pidfd() -> bool | None:
    """Try the real calls: libc or the kernel may lack them, or a seccomp filter forbid them. None: no fd is free."""
    if not (hasattr(os, "pidfd_open") and hasattr(os, "P_PIDFD")):
        return False
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError as error:
        if error.errno in FORBIDDEN:
            return False
        if error.errno in FULL:
            return None
        raise
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # the expected error: this process is no child of its own
        return True
    except OSError:  # EINVAL: Linux 5.3 has pidfds, but can't wait for them
        return False
    finally:
        os.close(pidfd)
    return True


def _code(info: os.waitid_result | None) -> int | None:
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def _reaped_code(pidfd: int) -> int:
    """The exit code of a child that somebody else has reaped (Linux 6.15), or LOST if the kernel doesn't report it."""
    with standard_library():
        import fcntl

    info = struct.pack(_INFO, _INFO_EXIT, *[0] * 13)
    try:
        told = struct.unpack(_INFO, fcntl.ioctl(pidfd, _GET_INFO, info))
    except OSError:
        return LOST
    return os.waitstatus_to_exitcode(told[-1]) if told[0] & _INFO_EXIT else LOST


def end_unheld(pid: int) -> None:
    """Kill and reap a child that no pidfd holds. Checks first that it is our child: its number may have been reused."""
    with standard_library():
        import signal

    with contextlib.suppress(ChildProcessError):  # no child of ours, or no longer
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def signal_child(backend: Backend, pid: int, pidfd: int, signum: int) -> None:
    """Send a signal to a child of this process, by its pidfd; by its pid if a sandbox forbids that.

    A pid can't be reused before the child is reaped. Somebody else may have reaped it, so this looks at it first.
    Pass 0 as the pid of a process that is no child: then only its pidfd is used.
    """
    try:
        backend.fan_out([pidfd], signum)
    except OSError as error:
        # EPERM may also mean that this process runs as another user: kill(2) then fails with EPERM, too.
        if error.errno not in FORBIDDEN:
            raise
        if pid and backend.peek(pidfd) is None:
            os.kill(pid, signum)


def wait_readable(fds: Sequence[int], timeout: float | None) -> bool:
    """Wait up to `timeout` seconds, or without limit, for one of a few fds to be readable; return whether one is."""
    with _waiting_selector()() as selector:
        for fd in fds:
            selector.register(fd, 1)  # selectors.EVENT_READ
        while not (ready := selector.select(timeout)) and timeout is None:
            pass
    return bool(ready)


def has_epoll() -> bool:
    """Return whether epoll works and may block the calling thread: not if gevent or eventlet has replaced it."""
    with standard_library():
        import selectors

    return _watching_selector() is getattr(selectors, "EpollSelector", None)


def _watching_selector() -> type[selectors.BaseSelector]:
    """The selector for many fds: the best that works. Under gevent or eventlet theirs, which lets greenlets run."""
    with standard_library():
        import selectors

    return _first_that_works(selectors.DefaultSelector, "PollSelector", "SelectSelector")


def _waiting_selector() -> type[selectors.BaseSelector]:
    """The selector for a few fds: poll(2), which is one system call, if that works."""
    with standard_library():
        import selectors

    default = selectors.DefaultSelector
    if default.__module__ != selectors.__name__:  # gevent's
        return default
    return _first_that_works(getattr(selectors, "PollSelector", default), default.__name__, "SelectSelector")


def _first_that_works(best: type[selectors.BaseSelector], *others: str) -> type[selectors.BaseSelector]:
    """Find the first selector that works, once. The probe waits: a sandbox may allow epoll_create, not epoll_wait."""
    with standard_library():
        import selectors

    if best not in _working:
        found = [best, *(getattr(selectors, name) for name in others if hasattr(selectors, name))]
        try:
            _working[best] = next((kind for kind in found[:-1] if _works(kind)), found[-1])
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            return best  # no fd is free for the probe, this time
    return _working[best]


# The selector that was preferred -> the one that works.
_working: dict[type[selectors.BaseSelector], type[selectors.BaseSelector]] = {}


def _works(kind: type[selectors.BaseSelector]) -> bool:
    ends = os.pipe()
    try:
        with kind() as selector:
            selector.register(ends[0], 1)
            selector.select(0)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return False
    finally:
        for fd in ends:
            os.close(fd)
    return True


class SelectorWatch:
    """See `contract.Watch`: one selector with all sentinels."""

    def __init__(self) -> None:
        self._selector = _watching_selector()()

    def add(self, sentinel: int, rank: int) -> None:
        """See the contract."""
        self._selector.register(sentinel, 1, rank)  # selectors.EVENT_READ

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:  # noqa: ARG002 - each wake-up is the interpreter's, gathered or not
        """See the contract."""
        return [(key.data, None, 0) for key, _ in self._selector.select(timeout)]

    def discard(self, sentinels: Sequence[int]) -> None:
        """See the contract."""
        for sentinel in sentinels:
            with contextlib.suppress(KeyError):
                self._selector.unregister(sentinel)

    def fileno(self) -> int:
        """See the contract."""
        return self._selector.fileno() if hasattr(self._selector, "fileno") else -1

    def close(self) -> None:
        """See the contract."""
        self._selector.close()


class PidfdWatch(SelectorWatch):
    """See `contract.Watch`: a selector over pidfds, which also reports exit codes."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._peek = backend.peek

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:  # noqa: ARG002 - each wake-up is the interpreter's, gathered or not
        """See the contract."""
        seen = [
            (key.data, self._peek(key.fd) if key.data >= 0 else None, 0)
            for key, _ in self._selector.select(timeout)
        ]
        return [one for one in seen if one[1] is not None or one[0] < 0]


class SentinelWatch:
    """See `contract.Watch`: it passes every sentinel to each call, as the reference does.

    For Windows, as no selector takes its handles, and for Process objects that spawnx has not made. Their owner may
    close a sentinel without notice: a selector misses that, this class doesn't.
    """

    def __init__(self) -> None:
        self._ranks: dict[int, int] = {}

    def add(self, sentinel: int, rank: int) -> None:
        """See the contract."""
        self._ranks[sentinel] = rank

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:  # noqa: ARG002 - each wake-up is the interpreter's, gathered or not
        """See the contract."""
        with standard_library():
            from multiprocessing.connection import wait

        ready = wait(list(self._ranks), timeout)
        return [(self._ranks[sentinel], None, 0) for sentinel in ready]  # type: ignore[index]

    def discard(self, sentinels: Sequence[int]) -> None:
        """See the contract."""
        for sentinel in sentinels:
            self._ranks.pop(sentinel, None)

    def fileno(self) -> int:
        """See the contract."""
        return -1

    def close(self) -> None:
        """See the contract."""
        self._ranks.clear()

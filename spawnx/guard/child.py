"""A process of the supervisor's that is no rank: a guardian, a template."""

from __future__ import annotations

import os
import signal

from spawnx.backends.contract import LOST
from spawnx.backends.python import signal_child, wait_readable
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from spawnx.backends.contract import Backend, Program

# Seconds that one which is dismissed may take to end; who takes longer is stopped.
_ENDS_WITHIN = 1.0


class Child:
    """A program that was launched, held by its pidfd.

    Args:
        backend: by which it is watched, signalled and reaped.
        pid: of a child; 0: it is a child of the zygote's.
        pidfd: of the same; from now on its own.

    Attributes:
        pidfd: readable when it has ended.
    """

    __slots__ = ("_backend", "_pid", "pidfd")

    def __init__(self, backend: Backend, pid: int, pidfd: int) -> None:
        self._backend = backend
        self._pid = pid
        self.pidfd = pidfd

    @classmethod
    def launch(cls, backend: Backend, program: Program) -> Child:
        """Launch a program.

        Raises:
            OSError: it could not be started.
        """
        return cls(backend, *backend.launch(program))

    def kill(self) -> None:
        """Send SIGKILL, if it is still known."""
        pidfd = self.pidfd
        if pidfd >= 0:
            signal_child(self._backend, self._pid, pidfd, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds, or for ever, for it to end; whether it has."""
        return wait_readable([self.pidfd], timeout)

    def reap(self) -> int:
        """Forget it, which has ended; its exit code, or `LOST`."""
        code = self._backend.peek(self.pidfd)
        self._backend.reap([self.pidfd])
        self.close()
        return LOST if code is None else code

    def end(self) -> int:
        """Wait for it, which was told to end; its exit code, or `LOST`, also where it was reaped before."""
        if self.pidfd < 0:
            return LOST
        if not self.wait(_ENDS_WITHIN):
            self.kill()
            self.wait(_ENDS_WITHIN)
        return self.reap()

    def close(self) -> None:
        """Close the pidfd. May be called again."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)


def connection() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that keeps messages apart (unix(7), SOCK_SEQPACKET), and whose reads wait.

    Whatever `socket.setdefaulttimeout` says: that is for the program's own sockets, and would make the end of the other
    process one that doesn't wait (O_NONBLOCK).
    """
    with standard_library():
        import socket  # not at the top: contexts without a child need none

    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(None)
    return ends


def describe_exit(code: int) -> str:
    """How a process ended, in words that follow "ended"."""
    if code == LOST:
        return "in an unknown way"
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"

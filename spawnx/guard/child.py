"""Child processes of the supervisor that are no ranks: guardians, templates, the zygote."""

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

# Seconds that a process may take to end after it was asked to. One that takes longer is killed.
_ENDS_WITHIN = 1.0


class Child:
    """A launched process, held by its pidfd.

    Args:
        backend: watches, signals and reaps it.
        pid: its pid; 0 if it is a child of the zygote.
        pidfd: its pidfd, which this object will close.

    Attributes:
        pidfd: readable when the process has ended; -1 when closed.
    """

    __slots__ = ("_backend", "_pid", "pidfd")

    def __init__(self, backend: Backend, pid: int, pidfd: int) -> None:
        self._backend = backend
        self._pid = pid
        self.pidfd = pidfd

    @classmethod
    def launch(cls, backend: Backend, program: Program) -> Child:
        """Launch a program in a new process.

        Raises:
            OSError: the program could not be started.
        """
        return cls(backend, *backend.launch(program))

    def kill(self) -> None:
        """Send SIGKILL, unless the pidfd is closed."""
        pidfd = self.pidfd
        if pidfd >= 0:
            signal_child(self._backend, self._pid, pidfd, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds, or for ever, for the end of the process. Return whether it has ended."""
        return wait_readable([self.pidfd], timeout)

    def reap(self) -> int:
        """Reap the process, which has ended, and close its pidfd. Return its exit code, or `LOST`."""
        code = self._backend.peek(self.pidfd)
        self._backend.reap([self.pidfd])
        self.close()
        return LOST if code is None else code

    def end(self) -> int:
        """Wait for a process that was asked to end, and reap it. Return its exit code; `LOST` if that is unknown."""
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
    """Return both ends of a connection that keeps message boundaries (unix(7), SOCK_SEQPACKET). Reads block.

    `socket.setdefaulttimeout` is for the program's own sockets, so its effect is undone. It would set O_NONBLOCK, also
    on the end of the other process.
    """
    with standard_library():
        import socket  # not at the top: a context without such a child doesn't need it

    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(None)
    return ends


def describe_exit(code: int) -> str:
    """Describe how a process ended, in words that follow "ended"."""
    if code == LOST:
        return "in an unknown way"
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"

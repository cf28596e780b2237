"""How a template makes ranks: it forks them, and the supervisor adopts them when the template ends.

The template tells when each rank waits at the gate, or has ended; the supervisor then opens pidfds of all, has the
guardian hold them, and lets the template end. Who is whose child, step by step: docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from spawnx.backends.python import wait_readable
from spawnx.ipc import gate, protocol
from spawnx.ipc import pid_table as table
from spawnx.remote.rank import SIGINT, SIGKILL, arm_or_leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from spawnx.backends.contract import Backend


class Unadopted:
    """A rank that is a child of its template as yet.

    Args:
        backend: by which it arms.
        template: the template's pid.
        supervisor: a pidfd of the supervisor.
        not_at_gate: an fd that is closed when the rank waits at the gate.
    """

    __slots__ = ("_backend", "_not_at_gate", "_supervisor", "_template")

    def __init__(self, backend: Backend, template: int, supervisor: int, not_at_gate: int) -> None:
        self._backend = backend
        self._template = template
        self._supervisor = supervisor
        self._not_at_gate = not_at_gate
        # A template that is killed takes with it what it has made.
        arm_or_leave(backend, SIGKILL, template)

    def pass_gate(self, fd: int, parent: int) -> None:
        """Be adopted by the supervisor, whose pid is given, and let on to user code; else leave."""
        # The kernel would send the signal when the template ends, as it is about to. From here on it is the end of the
        # supervisor, or of the gate, that tells; and the guardian holds this process before the template ends.
        arm_or_leave(self._backend, 0, self._template)
        os.close(self._not_at_gate)
        # Another process may hold the other end of the gate: then nobody would see that end.
        _wait([fd, self._supervisor])
        # Not a byte for a rank that was not adopted: it would be one too few for those that were.
        word = gate.wait(fd) if os.getppid() == parent else b""
        os.close(self._supervisor)
        if not word:
            os._exit(1)
        # A rank that the guardian can't hold ends with the supervisor at once.
        arm_or_leave(self._backend, SIGINT if word == gate.HELD else SIGKILL, parent)


def fork_ranks(
    backend: Backend, shared: table.Table, ranks: int, channel: int, supervisor: int
) -> tuple[int, Unadopted]:
    """Fork the ranks, and end when the supervisor says so. Returns in the ranks only, with the position of each.

    Args:
        backend: by which ranks arm.
        shared: where their pids are noted.
        ranks: how many.
        channel: the fd of a SOCK_SEQPACKET socket, whose other end is the supervisor's.
        supervisor: a pidfd of it.

    Raises:
        OSError: the first one could not be made.
    """
    template = os.getpid()
    at_gate, not_at_gate = os.pipe()
    ignored = keep_zombies()
    shared.write(table.CLONING)
    for position in range(ranks):
        if _wait([channel, supervisor], 0):
            _end_with_ranks(shared)  # the call was cancelled
        try:
            pid = os.fork()
        except OSError as error:
            shared.write(table.CLONING if position else table.BOOTING, error.errno or 0)
            if position == 0:
                raise
            _end_with_ranks(shared)
        if pid == 0:
            unadopted = Unadopted(backend, template, supervisor, not_at_gate)
            os.close(channel)
            os.close(at_gate)
            if ignored:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            return position, unadopted
        shared.note(position, pid)
    shared.write(table.CLONING)
    os.close(not_at_gate)
    # The end of that pipe is nobody's but the ranks': each closes it at the gate, or by its own end.
    _wait([at_gate, channel, supervisor])
    with contextlib.suppress(OSError):  # the supervisor is gone, and this is how it is noticed
        os.write(channel, protocol.AT_GATE)
    _wait([channel, supervisor])
    if _heard(channel) != protocol.ADOPT:
        _end_with_ranks(shared)
    shared.write_last(table.CLONED)
    os._exit(0)


def _wait(fds: list[int], timeout: float | None = None) -> bool:
    """As `wait_readable`, by what touches the fewest pages: each of a thousand ranks would copy them."""
    try:
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout))
    except (AttributeError, OSError):  # gevent has taken it away; or a sandbox forbids it
        return wait_readable(fds, timeout)


def keep_zombies() -> bool:
    """Have children that end stay zombies, so that their pids stay theirs; whether SIGCHLD was ignored.

    Where the supervisor ignores it, so does what it has launched (execve(2)): the kernel would keep no zombie.
    """
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return ignored


def _heard(channel: int) -> bytes:
    """What the supervisor has said, which is there, or it is gone."""
    try:
        os.set_blocking(channel, False)
        return os.read(channel, 1)
    except OSError:
        return b""


def _end_with_ranks(shared: table.Table) -> NoReturn:
    """End, and leave no rank: the supervisor can't, or won't, adopt them."""
    for pid in shared.pids:
        os.kill(pid, signal.SIGKILL)
    for pid in shared.pids:
        os.waitpid(pid, 0)
    os._exit(0)

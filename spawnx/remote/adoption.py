"""Make ranks in a template: the template forks them, and the supervisor adopts them when the template ends.

The template sends a message when each rank waits at the gate, or has ended. Then the supervisor opens a pidfd of each,
the guardian holds them, and the template ends. docs/architecture.md shows step by step whose child each process is.
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
    """A rank that is still a child of its template.

    Args:
        backend: the backend that arms.
        template: the template's pid.
        supervisor: a pidfd of the supervisor.
        not_at_gate: an fd that the rank closes when it waits at the gate.
    """

    __slots__ = ("_backend", "_not_at_gate", "_supervisor", "_template")

    def __init__(self, backend: Backend, template: int, supervisor: int, not_at_gate: int) -> None:
        self._backend = backend
        self._template = template
        self._supervisor = supervisor
        self._not_at_gate = not_at_gate
        # If the template is killed, the kernel kills its ranks.
        arm_or_leave(backend, SIGKILL, template)

    def pass_gate(self, fd: int, parent: int) -> None:
        """Wait until the supervisor, whose pid is `parent`, adopts this rank and opens the gate. Exit if it doesn't."""
        # Disarm: the template is about to end, and the kernel would then send the signal. From now on this rank waits
        # for the end of the supervisor, or of the gate. The guardian holds it before the template ends.
        arm_or_leave(self._backend, 0, self._template)
        os.close(self._not_at_gate)
        # The gate is not enough: another process may hold its other end open, and end of file would never come.
        _wait([fd, self._supervisor])
        # A rank that was not adopted must not read a byte: the adopted ranks would have one too few.
        word = gate.wait(fd) if os.getppid() == parent else b""
        os.close(self._supervisor)
        if not word:
            os._exit(1)
        # If the guardian can't hold this rank, the kernel kills it at the end of the supervisor.
        arm_or_leave(self._backend, SIGINT if word == gate.HELD else SIGKILL, parent)


def fork_ranks(
    backend: Backend, shared: table.Table, ranks: int, channel: int, supervisor: int
) -> tuple[int, Unadopted]:
    """Fork the ranks, and end when the supervisor adopts them. Returns only in the ranks, with the position of each.

    Args:
        backend: the backend that arms the ranks.
        shared: the table for their pids.
        ranks: the number of ranks.
        channel: the fd of a SOCK_SEQPACKET socket, whose other end is the supervisor's.
        supervisor: a pidfd of the supervisor.

    Raises:
        OSError: the first rank could not be forked.
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
    # Now only ranks have that end of the pipe open. Each closes it at the gate, or by its exit.
    _wait([at_gate, channel, supervisor])
    with contextlib.suppress(OSError):  # the supervisor is gone: `_heard` finds that out
        os.write(channel, protocol.AT_GATE)
    _wait([channel, supervisor])
    if _heard(channel) != protocol.ADOPT:
        _end_with_ranks(shared)
    shared.write_last(table.CLONED)
    os._exit(0)


def _wait(fds: list[int], timeout: float | None = None) -> bool:
    """Do as `wait_readable`, and touch the fewest pages: each of a thousand ranks would copy them."""
    try:
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout))
    except (AttributeError, OSError):  # gevent has removed it; or a sandbox forbids it
        return wait_readable(fds, timeout)


def keep_zombies() -> bool:
    """Keep ended children as zombies, so that no other process gets their pids; return whether SIGCHLD was ignored.

    A launched process inherits an ignored SIGCHLD from the supervisor (execve(2)): the kernel would keep no zombie.
    """
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return ignored


def _heard(channel: int) -> bytes:
    """Read the supervisor's message without waiting; b"" if there is none: the supervisor is gone."""
    try:
        os.set_blocking(channel, False)
        return os.read(channel, 1)
    except OSError:
        return b""


def _end_with_ranks(shared: table.Table) -> NoReturn:
    """Kill and reap all ranks, then end: the supervisor can't, or won't, adopt them."""
    for pid in shared.pids:
        os.kill(pid, signal.SIGKILL)
    for pid in shared.pids:
        os.waitpid(pid, 0)
    os._exit(0)

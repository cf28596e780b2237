"""The guardian in Python, where there is no C core. Its contract is that of `spx_guard` in csrc/guard.h.

A program of its own, started as `python -I -S -c ...`: it must outlive a killed supervisor, and pin none of its memory.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys

from spawnx import clock
from spawnx.backends.contract import FORBIDDEN
from spawnx.ipc.names import is_ours
from spawnx.ipc.protocol import DISMISS, HOLD_ARMED, HOLD_UNARMED, MAX_SENT
from spawnx.orphans import Step, from_argument
from spawnx.remote.daemonize import daemonize

_ANSWER = struct.Struct("i")


def main() -> None:
    """Run the guardian. csrc/guardian.c describes the arguments in `sys.argv`."""
    channel, folder, supervisor = map(int, sys.argv[1:4])
    steps = from_argument(sys.argv[4])
    _daemonize()
    if Guardian(channel, _pidfd_of_parent(supervisor), steps).guard():
        _remove(folder, sys.argv[5])
    os._exit(0)


def _daemonize() -> None:
    """Block all signals, start a session, and leave the supervisor's streams and folder. See csrc/guardian.c."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    with contextlib.suppress(OSError):
        os.setsid()
    daemonize()
    _check_signals()
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("spawnx-guardian")


def _check_signals() -> None:
    """Check that signals can be sent by pidfd, which a sandbox may forbid, before the supervisor relies on us.

    Raises:
        OSError: signals can't be sent.
    """
    pidfd = os.pidfd_open(os.getpid())
    signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def _pidfd_of_parent(pid: int) -> int:
    """A pidfd of the supervisor; -1 if it is gone. Its pid can't be another process's while it is our parent.

    A supervisor in an outer pid namespace has no pid in ours. Then only the channel shows its end, and the fd returned
    is never readable.
    """
    if os.getppid() == 0:
        return os.eventfd(0)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    return pidfd if os.getppid() == pid else -1


def _remove(folder: int, path: str) -> None:
    """Remove a context's folder with the ranks' files in it, and nothing else. See csrc/guardian.c."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if is_ours(name):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
        if os.path.samestat(os.fstat(folder), os.lstat(path)):
            os.rmdir(path)


class Guardian:
    """Holds ranks, and ends them when their supervisor is gone.

    Args:
        channel: the fd of a socket whose other end is the supervisor's alone.
        supervisor: its pidfd, or -1 if it is gone already.
        steps: the steps by which its ranks are ended.
    """

    def __init__(self, channel: int, supervisor: int, steps: list[Step]) -> None:
        self._channel = socket.socket(fileno=channel)
        self._channel.setblocking(False)  # noqa: FBT003
        self._supervisor = supervisor
        self._steps = steps
        self._ranks: dict[int, bytes] = {}  # pidfd -> `HOLD_ARMED` or `HOLD_UNARMED`
        self._epoll = select.epoll()
        self._owner_gone = supervisor < 0
        self._dismissed = False

    def guard(self) -> bool:
        """Guard until the end; return whether the supervisor was gone, so that its ranks were ended."""
        self._epoll.register(self._channel, select.EPOLLIN)
        if not self._owner_gone:
            self._epoll.register(self._supervisor, select.EPOLLIN)
        while not (self._owner_gone or self._dismissed):
            self._take(None)
        # Read what the supervisor sent before its end: else nothing would end those ranks.
        while not self._dismissed and self._listen_once():
            pass
        if self._dismissed:
            return False
        executed = self._supervisor >= 0 and not select.select([self._supervisor], [], [], 0)[0]
        self._epoll.unregister(self._channel)
        if self._supervisor >= 0:
            self._epoll.unregister(self._supervisor)
        self._end_all(executed=executed)
        return True

    def _take(self, timeout: float | None) -> None:
        for fd, _ in self._epoll.poll(timeout):
            if fd == self._supervisor:
                self._owner_gone = True
            elif fd == self._channel.fileno():
                self._listen_once()
            else:
                # Closing does not unregister it: the supervisor has the same description open.
                self._epoll.unregister(fd)
                del self._ranks[fd]
                os.close(fd)

    def _listen_once(self) -> bool:
        """Take one message; return whether there was one."""
        room = socket.CMSG_SPACE(MAX_SENT * _ANSWER.size)
        try:
            word, ancillary, _, _ = self._channel.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise  # taken for the supervisor's end, it would remove the folder of a context that lives
            self._owner_gone = True
            # ECONNRESET comes once, before earlier messages can be read: the supervisor left our answers unread.
            return isinstance(error, ConnectionResetError)
        if not word:
            self._owner_gone = True
            return False
        if word == DISMISS:
            self._dismissed = True
        else:
            self._hold(word, [fd for _, _, data in ancillary for (fd,) in _ANSWER.iter_unpack(data)])
        return True

    def _hold(self, word: bytes, pidfds: list[int]) -> None:
        for pidfd in pidfds:
            self._ranks[pidfd] = word
            self._epoll.register(pidfd, select.EPOLLIN)
        # Other errors are ignored: if the supervisor has died meanwhile, its pidfd shows that.
        try:
            self._channel.send(_ANSWER.pack(len(pidfds)), socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise

    def _end_all(self, *, executed: bool) -> None:
        """End the ranks. If the supervisor has executed another program, the kernel has sent no death signal."""
        for step in self._steps:
            armed_too = executed or not step.only_unarmed
            self._send({HOLD_ARMED, HOLD_UNARMED} if armed_too else {HOLD_UNARMED}, step.signum)
            self._wait_for_ends(step.wait)

    def _send(self, kinds: set[bytes], signum: int) -> None:
        for pidfd, kind in self._ranks.items():
            if kind in kinds:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(pidfd, signum)

    def _wait_for_ends(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        while self._ranks and (left := deadline - clock.monotonic()) > 0:
            self._take(left)

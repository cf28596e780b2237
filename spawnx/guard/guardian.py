"""The supervisor's handle of a guardian. The guardian itself is in csrc/guard.c, or in `remote.guardian`."""

from __future__ import annotations

import os
import signal
import sys

from spawnx import orphans
from spawnx.backends.contract import Program
from spawnx.guard.child import Child, connection
from spawnx.ipc import protocol
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.guard.directory import Folder

# Seconds that a guardian may take to answer. One that takes longer is dismissed.
_ANSWERS_WITHIN = 10.0


class GuardianHandle:
    """The guardian of one context: it outlives a killed supervisor until it has ended the ranks (csrc/guard.c).

    Each context has a guardian of its own, instead of one for the supervisor. A guardian starts in less time than a
    rank, and nothing of it is left when the context has ended.

    Attributes:
        channel: the socket to the guardian, over which it gets ranks to hold.
        child: its process.

    Raises:
        OSError: the guardian could not be started.
    """

    def __init__(self, backend: Backend, folder: Folder, grace: float) -> None:
        self.channel, theirs = connection()
        try:
            self.channel.settimeout(_ANSWERS_WITHIN)
            fds = theirs.fileno(), folder.fd
            ladder = orphans.to_argument(orphans.ladder(grace))
            argv = backend.guardian_command(*fds, os.getpid(), ladder, folder.path)
            keep = [fd for fd in fds if fd >= 0]  # the folder may have been removed
            program = Program(argv, keep=keep, death_signal=0, mask=signal.valid_signals())
            self.child = Child.launch(backend, program)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()

    def hold(self, word: bytes, pidfds: Sequence[int]) -> None:
        """Hand ranks over, with one of the words of `ipc.protocol`. When this returns, the guardian holds them.

        Raises:
            OSError: the guardian doesn't answer, or has no room for all.
        """
        with standard_library():
            import socket

        for start in range(0, len(pidfds), protocol.MAX_SENT):
            some = pidfds[start : start + protocol.MAX_SENT]
            try:
                socket.send_fds(self.channel, [word], some)
                # Wait for the answer to each message: fds of unread messages are in flight, which the kernel limits.
                answer = self.channel.recv(4)
            except ConnectionError:
                answer = b""
            if not answer:
                raise OSError("the guardian has ended; a sandbox may forbid its system calls")
            if int.from_bytes(answer, sys.byteorder) != len(some):
                raise OSError("the guardian can't hold all ranks: too many open files")

    def dismiss(self) -> None:
        """Ask the guardian to end, and reap it. May be called again."""
        try:
            self.channel.send(protocol.DISMISS)
        except OSError:
            # The guardian has ended. Or no message can be sent: without one it takes a closed channel for the end of
            # the supervisor.
            self.child.kill()
        self.channel.close()
        self.child.end()

"""Resources of one call that outlive its ranks: the shared folder, the scoreboard, the start gate, the guardian."""

from __future__ import annotations

import contextlib
import os
import weakref

from spawnx.guard.directory import Folder
from spawnx.ipc import gate, notices
from spawnx.ipc import scoreboard_reader as scoreboard
from spawnx.ipc.ends import Ends, out_of_the_way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.guard.guardian import GuardianHandle


class Resources:
    """The resources that a guard opens and must close.

    Attributes:
        folder, scoreboard: as the supervisor uses them.
        ends: the fds for the ranks.
        notices, gate: the supervisor's ends of these pipes; -1 if there is none.
        guardian: None if there is none.
    """

    def __init__(self, ranks: int) -> None:
        self.guardian: GuardianHandle | None = None
        self.gate = -1
        self.notices = -1
        self.ends = Ends()
        self.folder = Folder()
        self.scoreboard = scoreboard.Scoreboard(-1, ranks)
        self._ranks = ranks
        self._forks = True
        _inherited.add(self)

    def open(self, *, gated: bool) -> None:
        """Open the scoreboard and the pipes: the ends for the ranks, and those of the supervisor."""
        self.scoreboard.fd = self.ends.scoreboard = out_of_the_way(
            scoreboard.make(self.folder.path, self._ranks)
        )
        self.notices, self.ends.notices = notices.make()
        self.ends.notices = out_of_the_way(self.ends.notices)
        if gated:
            self.ends.gate, self.gate = gate.make()
            self.ends.gate = out_of_the_way(self.ends.gate)

    def dismiss(self) -> None:
        """Dismiss the guardian, if there is one. May be called again."""
        if self.guardian is not None:
            self.guardian.dismiss()
            self.guardian = None

    def close(self) -> None:
        """Close and remove all resources. May be called again, also after an interrupt has cut it short."""
        # An interrupt may cut one of these short: the others still run, and the next call repeats that one.
        with contextlib.ExitStack() as rest:
            rest.callback(self.folder.remove)
            rest.callback(self._close_ends)
            rest.callback(_close, self, "notices")
            rest.callback(self.close_gate)
            self.dismiss()

    def close_gate(self) -> None:
        """Close both ends of the gate. Ranks have their own end, and unread words stay in the pipe for them."""
        self._forks = False
        _close(self, "gate")
        _close(self.ends, "gate")

    def leave(self) -> None:
        """Close, in a forked child, all that ranks don't use. Until all ranks exist, the child may be a rank."""
        if self.guardian is not None:
            self.guardian.channel.close()
            self.guardian.child.close()
        self.folder.leave()
        _close(self, "gate")
        _close(self, "notices")
        if not self._forks:
            self._close_ends()

    def _close_ends(self) -> None:
        self.scoreboard.close()
        self.ends.scoreboard = -1
        _close(self.ends, "notices")


# Resources that a forked child inherits and must close. While they are open there, the other ends see no end of file
# when this process ends or calls exec.
_inherited: weakref.WeakSet[Resources] = weakref.WeakSet()


def _close_inherited() -> None:
    for one in list(_inherited):
        one.leave()
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


def _close(owner: Resources | Ends, name: str) -> None:
    """Close an fd once. The owner forgets its number first: a call out of a handler then finds -1."""
    fd = getattr(owner, name)
    setattr(owner, name, -1)
    if fd >= 0:
        os.close(fd)

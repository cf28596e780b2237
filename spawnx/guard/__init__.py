"""Guard: the one object by which a call holds its resources, and through which its guardian holds the ranks."""

from __future__ import annotations

import contextlib
import os
from functools import partial

from spawnx import clock, settings, uninterrupted
from spawnx.fd_room import FULL, streams_taken
from spawnx.guard.guardian import GuardianHandle
from spawnx.guard.resources import Resources
from spawnx.ipc import gate, protocol
from spawnx.ipc import report_reader as reports
from spawnx.ipc import scoreboard_reader as scoreboard
from spawnx.mp import process as mp_process
from spawnx.remote.rank import GUARDIAN, LIFELINE, OFF
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spawnx.backends.contract import Backend
    from spawnx.ipc.ends import Ends
    from spawnx.ipc.report import Report
    from spawnx.process import RankProcess

# Seconds that the launching thread may take to end when all ranks have.
_ENDS_WITHIN = 1.0


class Guard:
    """The folder of one call, and who guards its ranks.

    The context holds it, and so does each rank's Process: it lasts until the ranks have ended and the context knows it;
    where nobody joins, until the last Process is forgotten; at the latest until this process exits.

    Args:
        backend: by which the guardian is started and the ranks are held.
        ranks: how many there will be.

    Attributes:
        folder: where ranks report; 0700, removed at the end.
        began: `clock.monotonic()` when it was made, before the first rank.
        kind: who guards: `GUARDIAN`, a process of its own; `LIFELINE`, a thread in each rank, where there are no
            pidfds; `OFF`, only the kernel.
        grace: how long ranks may outlive the supervisor, in seconds; 0 if `OFF`.
        holds_all: whether the guardian holds all ranks, where it was asked to before they were adopted; else None.
        on_end: called when a Process has seen its rank ended, and the context is gone: nobody else will.
        join_thread: waits, for some seconds, for the end of the thread that has created the ranks, and ends with them.

    Raises:
        ValueError: `SPAWNX_ORPHAN_GRACE` has no meaning.
    """

    holds_all: bool | None = None
    join_thread: Callable[[float], None] | None = None
    on_end: Callable[[], None] | None = None

    def __init__(self, backend: Backend, ranks: int) -> None:
        self.began = clock.monotonic()
        grace = settings.ORPHAN_GRACE.read()
        self.kind = OFF if grace is None else GUARDIAN if backend.has_pidfd() else LIFELINE
        self.grace = grace or 0.0
        self._backend = backend
        if self.kind == GUARDIAN:
            uninterrupted.do(partial(self._open, ranks))
        else:  # no process is made: a thread would be one more for the limit of these
            self._open(ranks)
        self.folder = self._resources.folder.path
        self._resources.folder.mark_untouched()

    def _open(self, ranks: int) -> None:
        with streams_taken():
            self._resources = Resources(ranks)
            # The callback has no reference to this guard, whose end calls it.
            self._close = mp_process.close_late(self, self._resources.close)
            try:
                self._resources.open(gated=self.kind == GUARDIAN)
                if self.kind == GUARDIAN:
                    self._start_guardian()
            except BaseException:
                self.close()
                raise

    @property
    def sentinel(self) -> int:
        """What becomes readable when the guardian has ended; -1 if there is none."""
        guardian = self._resources.guardian
        return -1 if guardian is None else guardian.child.pidfd

    @property
    def notices(self) -> int:
        """The fd at which ranks say that they have reported; -1 if they can't."""
        return self._resources.notices

    @property
    def scoreboard(self) -> scoreboard.Scoreboard:
        """What ranks say of themselves."""
        return self._resources.scoreboard

    @property
    def ends(self) -> Ends:
        """What is to be handed over to each rank."""
        return self._resources.ends

    def is_untouched(self) -> bool:
        """Whether one look says that no rank has left anything in the folder."""
        return self._resources.folder.is_untouched()

    def report(self, rank: int) -> Report | None:
        """What a rank has reported, in the folder or on the scoreboard; None if it has not, or it can't be read."""
        return self._resources.folder.report(rank) or reports.parse(self._resources.scoreboard.report(rank))

    def has_ended_well(self, rank: int) -> bool:
        """Whether a rank has left word that it ended well."""
        return self._resources.folder.has_ended_well(rank)

    def hold_child(self, pidfd: int) -> None:
        """Have the guardian hold a process that makes ranks, until it has ended by itself."""
        # Unarmed: an exec in the thread that launched it sends no signal, and it takes none but SIGKILL.
        self._hand_over(protocol.HOLD_UNARMED, [pidfd])

    def hold_unadopted(self, pidfds: Sequence[int]) -> bool:
        """Have the guardian hold all ranks, before they become children of this process; whether it does."""
        return self._hand_over(protocol.HOLD_ARMED, pidfds)

    def _hand_over(self, word: bytes, pidfds: Sequence[int]) -> bool:
        """Hand processes over to the guardian; whether it holds them."""
        guardian = self._resources.guardian
        if guardian is None:
            return False
        try:
            guardian.hold(word, pidfds)
        except OSError as error:
            _warn(error)
            self._resources.dismiss()
            return False
        return True

    def open_gate(self, ranks: Sequence[RankProcess]) -> None:
        """Have the guardian hold all ranks, which have been started, then let them on to user code."""
        if self.kind == GUARDIAN:
            held = self._hold(ranks) if self.holds_all is None else self.holds_all
            gate.let(self._resources.gate, len(ranks), gate.HELD if held else gate.UNHELD)
        self._resources.close_gate()

    def shut_gate(self) -> None:
        """Let no rank on, and those that wait leave."""
        self._resources.close_gate()

    def renew(self, ranks: Sequence[RankProcess]) -> None:
        """Start another guardian for the ranks that live, in place of one that has ended."""
        self._resources.dismiss()
        self._start_guardian()
        self._hold(ranks)

    def remove_folder(self) -> None:
        """Remove the folder, when its files have been read."""
        self._resources.folder.remove()

    def dismiss(self) -> None:
        """Let the guardian end: no rank lives. May be called again."""
        self._resources.dismiss()

    def close(self) -> None:
        """Dismiss the guardian and remove the folder. May be called again, also where an interrupt has cut it short."""
        self._resources.close()
        self._close()
        if self.join_thread is not None:
            self.join_thread(_ENDS_WITHIN)

    def _start_guardian(self) -> None:
        try:
            self._resources.guardian = GuardianHandle(self._backend, self._resources.folder, self.grace)
        except OSError as error:
            _warn(error)

    def _hold(self, ranks: Iterable[RankProcess]) -> bool:
        """Hand ranks over; whether all are held."""
        guardian = self._resources.guardian
        if guardian is None:
            return False
        all_held = True
        try:
            with contextlib.ExitStack() as opened:
                pidfds: dict[bytes, list[int]] = {protocol.HOLD_ARMED: [], protocol.HOLD_UNARMED: []}
                for rank in ranks:
                    try:
                        pidfd = self._pidfd(rank, opened)
                    except (ChildProcessError, ProcessLookupError, FileNotFoundError):
                        continue  # it has ended already
                    all_held = all_held and pidfd >= 0
                    if pidfd >= 0:
                        pidfds[
                            protocol.HOLD_ARMED if rank.supervision.armed else protocol.HOLD_UNARMED
                        ].append(pidfd)
                for word, some in pidfds.items():
                    guardian.hold(word, some)
        except OSError as error:
            _warn(error)
            self._resources.dismiss()
            return False
        return all_held

    def _pidfd(self, rank: RankProcess, opened: contextlib.ExitStack) -> int:
        """A pidfd of a rank, whoever started it: its own, or one that `opened` closes; -1 if there is no room."""
        if rank.holds_pidfd:
            return int(rank.sentinel)
        try:
            pidfd = rank.open_pidfd(self._backend)
        except OSError as error:
            if error.errno in FULL:
                return -1
            raise
        opened.callback(os.close, pidfd)
        return pidfd


class Unguarded:
    """What a context made by hand has in place of a guard: its ranks report in files of the caller's.

    Attributes:
        began: `clock.monotonic()` when it was made.
        notices, sentinel: -1: there is nothing to watch.
        scoreboard: an empty one.
    """

    notices = -1
    sentinel = -1
    on_end: Callable[[], None] | None = None

    def __init__(self, error_files: Sequence[str]) -> None:
        self.began = clock.monotonic()
        self.scoreboard = scoreboard.Scoreboard(-1, 0)
        self._error_files = error_files

    def is_untouched(self) -> bool:
        """Nobody knows."""
        return False

    def report(self, rank: int) -> Report | None:
        """What a rank has reported in its file."""
        return reports.read(self._error_files[rank])

    def has_ended_well(self, rank: int) -> bool:
        """No such rank says so."""
        del rank
        return False

    def renew(self, ranks: Sequence[RankProcess]) -> None:
        """There is no guardian to be replaced."""

    def remove_folder(self) -> None:
        """The files are the caller's."""

    def dismiss(self) -> None:
        """There is no guardian."""

    def close(self) -> None:
        """Nothing is held."""


def _warn(error: OSError) -> None:
    with standard_library():
        import logging  # not at the top: it costs more than all of spawnx

    logging.getLogger("spawnx").warning(
        "no guardian for these ranks (%s): only the kernel ends them if this process is killed",
        str(error),  # not the error, which has frames, and these have ranks: a handler may keep it
    )

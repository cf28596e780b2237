"""Guard: owns the resources of one call, and hands its ranks over to the guardian."""

from __future__ import annotations

import contextlib
import os
from functools import partial

from spawnx import clock, settings, uninterrupted
from spawnx.backends.contract import FULL
from spawnx.fd_room import streams_taken
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
    """Owns the folder and the other resources of one call, and its guardian.

    The context and the Process of each rank refer to it. It is closed when the ranks have ended and the context has
    seen that. Without a join, it is closed when the last Process is collected, or when this process exits.

    Args:
        backend: starts the guardian, and opens pidfds of the ranks.
        ranks: how many ranks the call will have.

    Attributes:
        folder: the path of the folder in which ranks report; 0700, removed at the end.
        began: `clock.monotonic()` when the guard was made, before the first rank.
        kind: what guards the ranks: `GUARDIAN`, a process of its own; `LIFELINE`, a thread in each rank, on systems
            without pidfds; `OFF`, only the kernel.
        grace: how long ranks may outlive the supervisor, in seconds; 0 if `OFF`.
        holds_all: whether the guardian holds all ranks, if they were handed over before their adoption; else None.
        on_end: called when a Process sees its rank ended, if the context that would see it was collected; or None.
        join_thread: waits up to the given seconds for the launching thread, which ends after the ranks.

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
        else:  # creates no process, so it does without a thread, which would count against the limit of threads
            self._open(ranks)
        self.folder = self._resources.folder.path
        self._resources.folder.mark_untouched()

    def _open(self, ranks: int) -> None:
        with streams_taken():
            self._resources = Resources(ranks)
            # The callback must not refer to this guard: it is called when the guard is collected.
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
        """The fd that becomes readable when the guardian has ended; -1 if there is none."""
        guardian = self._resources.guardian
        return -1 if guardian is None else guardian.child.pidfd

    @property
    def notices(self) -> int:
        """The supervisor's end of the pipe of notices; -1 if there is none."""
        return self._resources.notices

    @property
    def scoreboard(self) -> scoreboard.Scoreboard:
        """The scoreboard of the ranks."""
        return self._resources.scoreboard

    @property
    def ends(self) -> Ends:
        """The fds to hand over to each rank."""
        return self._resources.ends

    def is_untouched(self) -> bool:
        """Whether no rank has left anything in the folder. Costs one stat(2) for all ranks."""
        return self._resources.folder.is_untouched()

    def report(self, rank: int) -> Report | None:
        """Return the report of a rank, from the folder or the scoreboard; None if there is none that can be read."""
        return self._resources.folder.report(rank) or reports.parse(self._resources.scoreboard.report(rank))

    def has_ended_well(self, rank: int) -> bool:
        """Whether a rank has recorded, by a file, that it ended well."""
        return self._resources.folder.has_ended_well(rank)

    def hold_child(self, pidfd: int) -> None:
        """Hand over to the guardian a process that creates ranks. It is held until it ends by itself."""
        # Unarmed: if the thread that launched it calls exec, the kernel sends no death signal. The process blocks all
        # signals but SIGKILL.
        self._hand_over(protocol.HOLD_UNARMED, [pidfd])

    def hold_unadopted(self, pidfds: Sequence[int]) -> bool:
        """Hand all ranks over to the guardian, before this process adopts them. Return whether it holds them."""
        return self._hand_over(protocol.HOLD_ARMED, pidfds)

    def _hand_over(self, word: bytes, pidfds: Sequence[int]) -> bool:
        """Hand processes over to the guardian. Return whether it holds them."""
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
        """Hand all ranks, which have been started, over to the guardian. Then open the gate to user code."""
        if self.kind == GUARDIAN:
            held = self._hold(ranks) if self.holds_all is None else self.holds_all
            gate.let(self._resources.gate, len(ranks), gate.HELD if held else gate.UNHELD)
        self._resources.close_gate()

    def shut_gate(self) -> None:
        """Shut the gate for good: no rank passes, and ranks that wait at it end."""
        self._resources.close_gate()

    def renew(self, ranks: Sequence[RankProcess]) -> None:
        """Replace a guardian that has ended, for the ranks that still live."""
        self._resources.dismiss()
        self._start_guardian()
        self._hold(ranks)

    def remove_folder(self) -> None:
        """Remove the folder. Its files have been read."""
        self._resources.folder.remove()

    def dismiss(self) -> None:
        """Dismiss the guardian: no rank lives any more. May be called again."""
        self._resources.dismiss()

    def close(self) -> None:
        """Dismiss the guardian and remove the folder. May be called again, also after an interrupt has cut it short."""
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
        """Hand ranks over to the guardian. Return whether it holds all."""
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
        """Return the pidfd of a rank, or, if it has none, a new one that `opened` closes; -1 if no fd is free."""
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
    """Takes the place of a guard in a context made by hand. Its ranks report in files of the caller.

    Attributes:
        began: `clock.monotonic()` when it was made.
        notices, sentinel: -1: there is nothing to watch.
        scoreboard: an empty one.
    """

    notices = -1
    sentinel = -1

    def __init__(self, error_files: Sequence[str]) -> None:
        self.began = clock.monotonic()
        self.scoreboard = scoreboard.Scoreboard(-1, 0)
        self._error_files = error_files

    def is_untouched(self) -> bool:
        """Return False: it is unknown."""
        return False

    def report(self, rank: int) -> Report | None:
        """Return the report of a rank, from its file."""
        return reports.read(self._error_files[rank])

    def has_ended_well(self, rank: int) -> bool:
        """Return False: these ranks don't record it."""
        del rank
        return False

    def renew(self, ranks: Sequence[RankProcess]) -> None:
        """Do nothing: there is no guardian."""

    def remove_folder(self) -> None:
        """Do nothing: the files are the caller's."""

    def close(self) -> None:
        """Do nothing: there are no resources."""


def _warn(error: OSError) -> None:
    with standard_library():
        import logging  # not at the top: it costs more than all of spawnx

    logging.getLogger("spawnx").warning(
        "no guardian for these ranks (%s): only the kernel ends them if this process is killed",
        str(error),  # not the error: a handler of logging may keep it, and its frames refer to ranks
    )

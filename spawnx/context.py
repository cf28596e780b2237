"""ProcessContext: the ranks of one call, joined as the reference joins them (torch 2.13)."""

from __future__ import annotations

import math
import threading
import warnings

from spawnx import backends, clock, settings
from spawnx.failures import stacks, teardown, text, verdict
from spawnx.failures.activity import Activity
from spawnx.failures.postmortem import PostMortem
from spawnx.guard import Unguarded
from spawnx.watch.unjoined import Unjoined
from spawnx.watch.watcher import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from spawnx.errors import ProcessException, ProcessTimeoutError
    from spawnx.failure import Failure
    from spawnx.guard import Guard
    from spawnx.process import RankProcess
    from spawnx.watch.ended import Ended


class ProcessContext:
    """A context holds the ranks of one call: `join` waits for them and raises their failures.

    `start_processes(..., join=False)` returns one. You can also make one by hand, from started
    `multiprocessing.Process` objects and the paths of their report files. Such processes report as the reference's
    `_wrap` does.

    Args:
        processes: started processes; rank i is the i-th.
        error_files: one path for each process. The files need not exist.

    Attributes:
        processes: the argument. Usable after the context has ended, too.
        error_files: the argument. In a context of `start_processes`, valid until `join` raises or returns True.
        sentinels: `Process.sentinel` -> rank, for the ranks whose end `join` has not reported yet.
        launcher: how the ranks were started: "clone", "exec", "fork", "forkserver" or "stdlib"; None for a context made
            by hand.
        launcher_reason: why this launcher was used, in words; None for a context made by hand.
    """

    launcher: str | None = None
    launcher_reason: str | None = None

    def __init__(self, processes: Sequence[BaseProcess], error_files: Sequence[str]) -> None:
        self._set_up(processes, error_files, Unguarded(error_files), math.inf)

    @classmethod
    def _of_call(
        cls,
        processes: Sequence[RankProcess],
        error_files: Sequence[str],
        guard: Guard,
        timeout: float | None,
        *,
        fresh: bool,
    ) -> ProcessContext:
        """Make the context of a call whose ranks wait at the gate. It opens the gate as soon as its set-up can't fail.

        Args:
            processes: all ranks.
            error_files: the paths of their reports.
            guard: resources of the call.
            timeout: how long the whole run may take, in seconds; None: no limit.
            fresh: whether each rank is an interpreter of its own.
        """
        self = cls.__new__(cls)
        self._set_up(processes, error_files, guard, math.inf if timeout is None else timeout, fresh=fresh)
        guard.open_gate(processes)
        self._watcher.watch_guardian()
        self._unjoined = Unjoined(self, self._lock, self._watcher, guard)
        return self

    def _set_up(
        self,
        processes: Sequence[BaseProcess],
        error_files: Sequence[str],
        guard: Guard | Unguarded,
        timeout: float,
        *,
        fresh: bool = False,
    ) -> None:
        self.error_files = error_files
        self.processes = processes
        self.sentinels: dict[int, int] = {process.sentinel: rank for rank, process in enumerate(processes)}
        self._backend = backends.choose()[0]
        self._guard = guard
        self._watcher = Watcher(processes, guard, self._backend)
        self._unjoined: Unjoined | None = None
        self._post_mortem = PostMortem(guard.scoreboard, guard.began, fresh=fresh)
        self._waits = settings.GRACE.read() or 0.0, settings.KILL_AFTER.read() or 0.0
        # How long the whole run may take, and when it must be over.
        self._timeout, self._ends = timeout, guard.began + timeout
        self._patience = verdict.Patience()
        # rank -> the signals that were sent to it -> when.
        self._sent: dict[int, dict[int, float]] = {}
        # The failures that are still to be raised, the next one last.
        self._pending: list[Ended] = []
        # All failures, in the order of the verdict; and how many of the watcher's failures it has covered.
        self._failures: tuple[Failure, ...] = ()
        self._judged = 0
        self._raised: set[int] = set()
        # Reentrant: a signal handler may join in the middle of a join.
        self._lock = threading.RLock()

    def pids(self) -> list[int]:
        """Return the process ids, by rank."""
        return [int(process.pid or 0) for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until a rank has ended, and return whether all have.

        If a rank has failed, `join` ends the others (SIGTERM, then SIGKILL), reaps them and raises the failure that is
        the cause. It has the rank's traceback if the rank raised. Each further call raises the next failure, also
        those of the ranks that `join` has ended; the call after the last returns True. `exception.failures` has them
        all. A rank that raises has failed at that moment, not at its exit. When its finalizers have done nothing for
        half a second, `join` ends it like the others.

        A failure may look like the consequence of a peer's end (a reset connection). `join` then waits up to a second
        for its cause.

        Ctrl-C does not end the ranks: call `join` again to let them finish.

        Args:
            timeout: how long to wait for an end, in seconds. 0 or less does not wait; None waits without limit.
            grace_period: how long the others may take to end by themselves after a failure, in seconds, and again
                after SIGTERM, until SIGKILL. None takes `SPAWNX_GRACE` before SIGTERM (default: no time) and
                `SPAWNX_KILL_AFTER` after it (default: 30 s).

        Returns:
            True if all ranks have ended, False if some may still run. It returns as soon as any rank has ended, perhaps
            before `timeout`. So call it in a loop.

        Raises:
            ProcessRaisedException: a rank raised.
            ProcessExitedException: a rank ended by a signal or with an exit code other than 0.
            ProcessTimeoutError: the `timeout` of the whole call is over, and no rank had failed. The ranks have been
                ended as after a failure; the next call returns True.
        """
        return self._join(timeout, grace_period)

    def join_all(self) -> None:
        """Wait until all ranks have ended, like `while not join(): pass`, but cheaper when many end in a row.

        Raises:
            ProcessRaisedException, ProcessExitedException, ProcessTimeoutError: as `join`.
        """
        while not self._join(for_all=True):
            pass

    def dump_tracebacks(self) -> dict[int, str]:
        """Return the Python stacks of all threads of the live ranks, as faulthandler writes them.

        The ranks go on running. They receive SIGURG, and write their stacks even if they are busy in C. You may call
        this from any thread, also while another one joins. It waits up to two seconds for ranks that don't answer.

        Returns:
            rank -> its stacks; or, in brackets, why it has none: it is stopped, it boots, it uses SIGURG for something
            else, or spawnx did not start it. No stacks on Windows.
        """
        alive = {rank: self.processes[rank] for rank in self._watcher.alive}
        return stacks.dump(alive, self._guard.scoreboard, self._backend)

    def _join(
        self, timeout: float | None = None, grace_period: float | None = None, *, for_all: bool = False
    ) -> bool:
        deadline = None if timeout is None else clock.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0, timeout)):
            return not self.sentinels  # another thread joins, and returns or raises the result
        try:
            if not self.sentinels:
                return True
            self._wait_for_news(deadline, for_all=for_all)
            failure = self._next_failure(grace_period)
            self._tell_successes()
            if failure is not None:
                raise self._exception(failure)
            if clock.monotonic() >= self._ends and self._watcher.any_alive:
                raise self._time_is_over(grace_period)
            return not self.sentinels
        finally:
            try:
                self._give_back()
            finally:
                self._lock.release()

    def _give_back(self) -> None:
        """Release the guard when no rank is alive, and the watcher when all ends are reported."""
        try:
            if not self._watcher.any_alive:
                self._guard.close()
        finally:
            if not self.sentinels:
                if self._unjoined is not None:
                    self._unjoined.forget()
                self._watcher.close()

    def _join_procs_with_timeout(self, timeout: float) -> None:
        """Wait until all ranks have ended, or until `timeout` seconds are over."""
        deadline = clock.monotonic() + timeout
        while self._watcher.any_alive:
            left = deadline - clock.monotonic()
            self._watcher.wait(left)
            if left <= 0:
                return

    def _wait_for_news(self, deadline: float | None, *, for_all: bool) -> None:
        """Wait until a rank has ended or reported."""
        until = min(self._ends, math.inf if deadline is None else deadline)
        while not (self._watcher.ended or self._pending or self._judged < len(self._watcher.failed)):
            left = until - clock.monotonic()
            self._watcher.wait(None if left == math.inf else left, for_all=for_all)
            if left <= 0:
                return

    def _next_failure(self, grace_period: float | None) -> Ended | None:
        """Return the failure to raise now, or None. Ends all other ranks first."""
        if self._judged < len(self._watcher.failed):
            self._wait_for_genuine()
            self._end_all(grace_period)
            self._judge()
        return self._pending[-1] if self._pending else None

    def _wait_for_genuine(self) -> None:
        """While all failures look like consequences, wait a moment for the cause."""
        known = self._judged
        while self._watcher.any_alive:
            now = clock.monotonic()
            for rank in self._watcher.failed[known:]:
                self._patience.take(self._fact(rank), now)
                known += 1
            left = self._patience.left(now)
            if left <= 0:
                return
            self._watcher.wait(left)

    def _end_all(self, grace_period: float | None) -> None:
        waits = self._waits if grace_period is None else (grace_period, grace_period)
        ladder = teardown.Ladder(clock.monotonic(), *waits)
        activity, failing = Activity(), dict[int, float]()
        while self._watcher.any_alive:
            now = clock.monotonic()
            # Spare the ranks that are about to report: many may have failed for one cause.
            failing = {**dict.fromkeys(self._post_mortem.failing(), now), **failing}
            pids = {rank: self.processes[rank].pid or 0 for rank in self._watcher.alive}
            spared = activity.idle_since(now, {**failing, **self._watcher.reported_at}, pids)
            step = ladder.step(now, pids, spared)
            self._send(teardown.SIGKILL if step.kill else teardown.SIGTERM, step.ranks)
            activity.measure(pids)
            if step.wait is None:
                return
            self._join_procs_with_timeout(step.wait)

    def _send(self, signum: int, ranks: Sequence[int]) -> None:
        alive = [rank for rank in ranks if self.processes[rank].is_alive()]
        text.warn(signum, [self.processes[rank].pid for rank in alive])
        for rank in alive:
            self._sent.setdefault(rank, {})[signum] = clock.monotonic()
            if signum == teardown.SIGTERM:
                self.processes[rank].terminate()
            else:
                self.processes[rank].kill()

    def _fact(self, rank: int) -> verdict.Fact:
        """The facts of a failed rank that the verdict needs."""
        ended = self._watcher.ended_or_reported(rank)
        report = ended.report
        return verdict.Fact(
            rank,
            text="" if report is None else report.text,
            raised=None if report is None else report.time,
            signum=max(0, -ended.exit_code),
            alive=ended.alive,
            seen=ended.seen,
            sent=self._sent.get(rank),
        )

    def _judge(self) -> None:
        """Order the failures; those that were raised before stay before the others."""
        self._post_mortem.read()
        self._judged = len(self._watcher.failed)
        failed = [rank for rank in dict.fromkeys(self._watcher.failed) if rank not in self._raised]
        facts = verdict.in_order(map(self._fact, failed))
        self._pending = [self._watcher.ended_or_reported(fact.rank) for fact in reversed(facts)]
        raised = [failure for failure in self._failures if failure.rank in self._raised]
        self._failures = (*raised, *map(self._failure, facts))

    def _failure(self, fact: verdict.Fact) -> Failure:
        return self._post_mortem.failure(
            self._watcher.ended_or_reported(fact.rank),
            fact.seen if fact.raised is None else fact.raised,
            signalled=verdict.is_ours(fact),
            lives=fact.rank in self._watcher.reported,
        )

    def _exception(self, failure: Ended) -> ProcessException:
        """Make the exception of a failure, and mark the failure as raised."""
        error = text.exception_of(failure, self._watcher.alive)
        error.failures = self._failures
        if not self._raised:
            text.add_notes(error, self._failures)
        self._pending.pop()
        self._raised.add(failure.rank)
        if failure.rank in self._watcher.ended:
            self._tell(failure)
        return error

    def _time_is_over(self, grace_period: float | None) -> ProcessTimeoutError:
        """End all ranks, and make the exception for a run that took too long. It covers all ranks that were alive."""
        tracebacks = self.dump_tracebacks()
        self._end_all(grace_period)
        self._judged = len(self._watcher.failed)
        self._raised.update(tracebacks)
        self._tell_successes()
        return text.timeout_error(self._timeout, len(self.processes), tracebacks, self._watcher.alive)

    def _tell_successes(self) -> None:
        for ended in list(self._watcher.ended.values()):
            if not ended.failed or ended.rank in self._raised:
                self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        self.sentinels.pop(self._watcher.take(ended.rank), None)
        if ended.failed:
            self._guard.remove_folder()


class SpawnContext(ProcessContext):
    """This is the old name of `ProcessContext`."""

    def __init__(self, processes: Sequence[BaseProcess], error_files: Sequence[str]) -> None:
        warnings.warn("SpawnContext is renamed to ProcessContext since 1.4 release.", stacklevel=2)
        super().__init__(processes, error_files)

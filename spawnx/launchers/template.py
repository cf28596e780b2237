"""The supervisor's side of a template: its request, and the adoption of the ranks that it has forked.

The launcher starts the template: `clone` launches a fresh interpreter, `forkserver` asks the zygote for a clone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
from functools import partial

from spawnx import affinity, clock
from spawnx.backends.contract import FORBIDDEN
from spawnx.backends.python import wait_readable
from spawnx.guard.child import connection, describe_exit
from spawnx.ipc import gate, protocol
from spawnx.ipc import pid_table as table
from spawnx.ipc.ends import Ends
from spawnx.launchers import adoption, popen
from spawnx.launchers.message import Messages
from spawnx.launchers.threads import launch_in_thread
from spawnx.memory import append, to_memory
from spawnx.orphans import KILLED_WITHIN
from spawnx.remote import preload
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spawnx.guard import Guard
    from spawnx.guard.child import Child
    from spawnx.launchers.contract import Order
    from spawnx.launchers.payload import Payloads
    from spawnx.launchers.threads import Job
    from spawnx.process import RankProcess

# The errnos that mean that this system can never clone.
PERMANENT = {errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EINVAL}
# socket.SHUT_RDWR.
BOTH_WAYS = 2
# Seconds that ranks may take to exit after their gate was shut.
_LEAVES_WITHIN = 1


class PreloadGivenUp(Exception):  # noqa: N818 - not an error: a reason to clone without a preload
    """A template can't be cloned after its imports, and has ended. The text is the reason."""


class CantServe(Exception):  # noqa: N818 - not an error: a reason to start ranks by exec
    """No template can serve this call, and no rank is left. The text is the reason.

    Attributes:
        for_good: whether the next call would fail for the same reason.
        expected: whether the call's own arguments are the reason, and nothing is wrong.
    """

    def __init__(self, reason: str, *, for_good: bool = False, expected: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good
        self.expected = expected


class TemplateRequest:
    """The request that a template gets.

    Attributes:
        message: the fd of its message.
        arguments: the keyword arguments of `remote.template.main`.
        keep: the fds that it inherits under the same numbers.
        affinity: see `spawnx.affinity.capture`.
        pending: the signals that were sent to a zygote while it started for this request. The zygote blocks them.
    """

    __slots__ = ("affinity", "arguments", "keep", "message", "pending")

    def __init__(self, message: int, arguments: dict[str, object], keep: list[int]) -> None:
        self.message = message
        self.arguments = arguments
        self.keep = keep
        self.pending: set[int] = set()
        self.affinity = affinity.capture()


class CloneFailedError(OSError):
    """A template could not fork a rank. No rank is left.

    Attributes:
        rank: the index of that rank.
    """

    def __init__(self, number: int, rank: int) -> None:
        super().__init__(number, os.strerror(number))
        self.rank = rank


class Template:
    """The template of one call.

    Args:
        order: the parameters of the call.
        ranks: the ranks that the template forks.
        payloads: the payloads of the call.
        modules: the modules that the template imports before it forks.

    Attributes:
        backend, guard: those of the call.
        pending: the signals that were sent to the template, which blocks them: the launcher sends them to the ranks.
        on_end: called in the launching thread after the template has ended.
    """

    on_end: Callable[[], None] | None = None

    def __init__(
        self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads, modules: tuple[str, ...]
    ) -> None:
        self.backend, self.guard = order.backend, order.guard
        self.pending: set[int] = set()
        self._order = order
        self._modules = modules
        self._ranks = ranks
        self._holder = popen.Holder(order.backend)
        self._pidfds: list[int] = []  # of ranks that are not yet children of this process
        self._are_held: bool | None = None
        self._forbidden: OSError | None = None
        self._is_cancelled = False
        with contextlib.ExitStack() as opened:
            self._messages = Messages(order, payloads)
            opened.callback(self._messages.close)
            self._table_file = to_memory("spawnx-pids", memoryview(bytes(table.size_of(len(ranks)))))
            opened.callback(os.close, self._table_file)
            self._table = table.Table(self._table_file, len(ranks))
            opened.callback(self._table.close)
            try:
                self._channel, self._theirs = connection()
            except OSError as error:
                if error.errno not in FORBIDDEN:
                    raise
                raise CantServe(f"no connection to a template can be made: {error}", for_good=True) from error
            opened.callback(self._channel.close)
            opened.callback(self._theirs.close)
            self._gate = _Gate(order.guard)
            opened.callback(self._gate.close)
            self._opened = opened.pop_all()

    def serve(self, launch: Callable[[TemplateRequest, Job], Child]) -> None:
        """Start the template, and adopt the ranks that it forks.

        Args:
            launch: starts the template; called in a launching thread.

        Raises:
            PreloadGivenUp: the template can't be cloned after its imports; no rank was made.
            CantServe: the template can't serve the call for another reason; no rank is left.
            CloneFailedError: rank k could not be forked; no rank is left.
            RuntimeError: the template died while it forked the ranks; no rank is left.
        """
        with self._opened:
            # The thread also prepares the request: no signal handler runs between the creation of its memory and the
            # assignment of the fd.
            launch_in_thread(lambda job: self._work(job, launch, self._request()), self.guard)

    def __del__(self) -> None:
        """Close the files that were opened, if an interrupt came before `serve`."""
        if (opened := getattr(self, "_opened", None)) is not None:
            opened.close()

    def _request(self) -> TemplateRequest:
        message = self._messages.of(self._ranks[0])
        for rank in self._ranks:
            rank.supervision.keepalive = self._ranks[0].supervision.keepalive
        # All places have one size, so that each clone reads only its own. A list of N places would cost each of the N
        # clones the time for N.
        places = [pickle.dumps(rank.place) for rank in self._ranks]
        place_size = max(map(len, places))
        os.lseek(message.file, message.size, os.SEEK_SET)
        append(message.file, memoryview(b"".join(place.ljust(place_size) for place in places)))
        ends = self._gate.ends
        keep = [
            message.file, self._table_file, self._messages.tracker, self._theirs.fileno(), *ends.fds, *message.fds,
        ]  # fmt: skip
        arguments: dict[str, object] = {
            "size": message.size,
            "place_size": place_size,
            "ranks": len(self._ranks),
            "table": self._table_file,
            "channel": self._theirs.fileno(),
            "parent": os.getpid(),
            "tracker": self._messages.tracker,
            "ends": ends.numbers,
            "preload": self._modules,
            "known": tuple(filter(preload.is_known, self._modules)),
            "mask": [int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            "start_method": self._order.start_method,
            "keep": tuple(keep),
        }
        return TemplateRequest(message.file, arguments, keep)

    def _work(
        self, job: Job, launch: Callable[[TemplateRequest, Job], Child], request: TemplateRequest
    ) -> None:
        try:
            child = launch(request, job)
        finally:
            self.pending |= request.pending
            self._theirs.close()
        try:
            job.on_cancel = partial(self._cancel, child)
            if job.cancelled:
                self._cancel(child)
            self.guard.hold_child(child.pidfd)
            if self._wait_made(child):
                self._adopt(child)
            child.wait()
            job.on_cancel = None
            code = child.reap()
            self.pending.update(self._table.pending)
            self._take(code, cancelled=job.cancelled)
        finally:
            self._end_unadopted()
            if self.on_end is not None:
                self.on_end()

    def _cancel(self, child: Child) -> None:
        """End the template and its ranks: by SIGKILL while it boots or at the second call, else by shutdown(2)."""
        if self._table.state == table.BOOTING or self._is_cancelled:
            child.kill()  # the kernel then sends the ranks their death signal
        self._is_cancelled = True
        self._channel.shutdown(BOTH_WAYS)

    def _wait_made(self, child: Child) -> bool:
        """Wait until each rank waits at the gate or has ended (True), or the template ends (False)."""
        from posix import read as read_now  # not eventlet's, which waits; a sandbox may forbid recvfrom(2)

        channel = self._channel.fileno()
        wait_readable([channel, child.pidfd], None)
        return wait_readable([channel], 0) and read_now(channel, 1) == protocol.AT_GATE

    def _adopt(self, child: Child) -> None:
        """Let the template end, so that its ranks become children of this process."""
        pids = self._table.pids
        pidfds = self._holder.open_unadopted(pids)
        if child.wait(0):
            # The template has ended, so it no longer keeps its ranks unreaped: a pid may have been reused before its
            # pidfd was opened.
            for pidfd in pidfds:
                os.close(pidfd)
            return
        self._pidfds = pidfds
        if len(pidfds) == len(pids):
            self._are_held = self.guard.hold_unadopted(pidfds)
        try:
            with adoption.adopting(pids):
                self._send(protocol.ADOPT)
                child.wait()
        except BrokenPipeError:  # the template was cancelled, or has died
            pass
        except OSError as error:
            self._forbidden = error
            self._channel.shutdown(BOTH_WAYS)

    def _send(self, word: bytes) -> None:
        with standard_library():
            import socket

        try:
            # MSG_NOSIGNAL: the program may have set SIGPIPE to its default action, which would end this process.
            self._channel.send(word, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            os.write(self._channel.fileno(), word)

    def _take(self, code: int, *, cancelled: bool) -> None:
        """Attach the ranks of a template that has ended with exit code `code`, or raise why it made none."""
        shared, pids = self._table, self._table.pids
        self._check_gave_way(code)
        if shared.errno:
            raise CloneFailedError(shared.errno, len(pids))
        is_adopted = shared.state == table.CLONED and self._are_adopted()
        if not is_adopted:
            self._end_unadopted()
        if self._forbidden is not None:
            raise CantServe(f"this process can't adopt the ranks: {self._forbidden}", for_good=True)
        if shared.state != table.CLONED:
            if code:  # the template was killed, and has reaped no rank
                self._gate.shut()
                adoption.reap_orphans(pids, _LEAVES_WITHIN)
            if cancelled:
                return  # the caller is about to raise the interrupt
            half_way = f"while it made rank {len(pids)} of {len(self._ranks)}"
            raise RuntimeError(
                f"the template of the ranks ended {describe_exit(code)} {half_way}; no rank is left"
            )
        if not is_adopted:
            # The kernel accepts PR_SET_CHILD_SUBREAPER and ignores it. Or the zygote died: the template was an orphan
            # then, and this process was no ancestor of its ranks.
            raise CantServe("the kernel gave the ranks to another process")
        pidfds, self._pidfds = self._pidfds, []
        self.guard.holds_all = self._are_held  # set only now: exec may start other ranks in place of these
        self._holder.adopt_all(self._ranks, pids, pidfds)
        for rank in self._ranks:
            rank.supervision.armed = True
        self._gate.open(len(pids))

    def _check_gave_way(self, code: int) -> None:
        """Raise the reason if the template has forked no rank.

        Raises:
            PreloadGivenUp: its imports left something that can't be cloned.
            CantServe: it could not start, or start-up code must run in each rank.
        """
        shared = self._table
        if shared.state == table.GAVE_UP_PRELOAD:
            raise PreloadGivenUp(shared.reason)
        if shared.state == table.HAS_STARTUP_CODE:
            hint = "SPAWNX_LAUNCHER=clone runs it once for all ranks"
            raise CantServe(f"{shared.reason}; {hint}", for_good=True)
        if shared.state == table.BOOTING:
            reason = shared.reason or f"the template ended {describe_exit(code)}"
            raise CantServe(reason, for_good=shared.errno in PERMANENT)

    def _are_adopted(self) -> bool:
        """Whether the ranks are children of this process. True also if all have ended: they may be reaped already."""
        return adoption.are_adopted(self._pidfds) or all(wait_readable([fd], 0) for fd in self._pidfds)

    def _end_unadopted(self) -> None:
        """Kill ranks that have not become children of this process."""
        pidfds, self._pidfds = self._pidfds, []
        with contextlib.suppress(OSError):
            self.backend.fan_out(pidfds, signal.SIGKILL)
        deadline = clock.monotonic() + KILLED_WITHIN  # of all, as in `start.abandon`
        for pidfd in pidfds:
            wait_readable([pidfd], max(0.0, deadline - clock.monotonic()))
        # If the template was killed while this process was a subreaper, the ranks are children of this process.
        self.backend.reap(pidfds)
        for pidfd in pidfds:
            os.close(pidfd)


class _Gate:
    """The gate of the call. If the call has none (no guardian), a gate of its own: ranks wait at it for adoption."""

    def __init__(self, guard: Guard) -> None:
        self.ends = guard.ends
        self._guard = guard
        self._own = -1
        if self.ends.gate < 0:
            theirs, self._own = gate.make()
            self.ends = Ends(guard.ends.scoreboard, guard.ends.notices, theirs)

    def open(self, ranks: int) -> None:
        if self._own >= 0:
            gate.let(self._own, ranks, gate.HELD)

    def shut(self) -> None:
        """Close the gate: the ranks that wait at it exit, and no other rank will come."""
        self._guard.shut_gate()
        self.close()

    def close(self) -> None:
        if self._own >= 0:
            own, self._own = self._own, -1
            os.close(own)
            os.close(self.ends.gate)

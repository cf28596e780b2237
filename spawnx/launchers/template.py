"""A template, as the supervisor sees it: what it is told, and what it has made.

How one comes into being is a launcher's business: `clone` launches a fresh interpreter, `forkserver` has a kept one
cloned.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
from functools import partial

from spawnx import affinity
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

# The errnos by which a system says that it never clones.
PERMANENT = {errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EINVAL}
# Of socket.shutdown(): SHUT_RDWR.
_BOTH_WAYS = 2
# Seconds that ranks may take to leave a gate that was shut.
_LEAVES_WITHIN = 1


class PreloadGivenUp(Exception):  # noqa: N818 - no error, but a reason to clone without
    """A template could not be cloned after its imports, and has ended: the text says why."""


class CantServe(Exception):  # noqa: N818 - no error, but a reason to go another way
    """No rank was made: the text says why.

    Attributes:
        for_good: whether it would be the same at the next call.
        expected: whether it lies in what the program asks for, and nothing is wrong.
    """

    def __init__(self, reason: str, *, for_good: bool = False, expected: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good
        self.expected = expected


class TemplateRequest:
    """What a template is to do.

    Attributes:
        message: the fd of its message.
        arguments: of `remote.template.main`, besides that.
        keep: the fds that it has under the same numbers.
        affinity: see `spawnx.affinity.capture`.
        pending: the signals that were sent to what was started for it, and that nobody has taken.
    """

    __slots__ = ("affinity", "arguments", "keep", "message", "pending")

    def __init__(self, message: int, arguments: dict[str, object], keep: list[int]) -> None:
        self.message = message
        self.arguments = arguments
        self.keep = keep
        self.pending: set[int] = set()
        self.affinity = affinity.capture()


class CloneFailedError(OSError):
    """A rank could not be made, and none is left.

    Attributes:
        rank: which one.
    """

    def __init__(self, number: int, rank: int) -> None:
        super().__init__(number, os.strerror(number))
        self.rank = rank


class Template:
    """The template of one call.

    Args:
        order: what the call asks for.
        ranks: those that it is to make.
        payloads: what they run.
        modules: what it imports before.

    Attributes:
        backend, guard: the call's.
        pending: the signals that it was sent and didn't take: they are meant for the ranks.
        on_end: called when it has ended, in the launching thread.
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
        self._pidfds: list[int] = []  # of ranks that are no children of this process yet
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
                raise CantServe(f"a template can't be reached: {error}", for_good=True) from error
            opened.callback(self._channel.close)
            opened.callback(self._theirs.close)
            self._gate = _Gate(order.guard)
            opened.callback(self._gate.close)
            self._opened = opened.pop_all()

    def serve(self, launch: Callable[[TemplateRequest, Job], Child]) -> None:
        """Have it make all ranks.

        Args:
            launch: brings it into being, in a launching thread.

        Raises:
            PreloadGivenUp: what it imported can't be cloned; none was made.
            CantServe: none was made, for another reason.
            CloneFailedError: rank k could not be made; none is left.
            RuntimeError: the template died while it made them; none is left.
        """
        with self._opened:
            # The request is prepared there as well: no handler comes between the making of its memory and its note.
            launch_in_thread(lambda job: self._work(job, launch, self._request()), self.guard)

    def __del__(self) -> None:
        """Give back what was opened, where an interrupt came before `serve`."""
        if (opened := getattr(self, "_opened", None)) is not None:
            opened.close()

    def _request(self) -> TemplateRequest:
        message = self._messages.of(self._ranks[0])
        for rank in self._ranks:
            rank.supervision.keepalive = self._ranks[0].supervision.keepalive
        # All of one size, so that each clone reads its own: to drop a list of them would be work for N in each of N.
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
        """Have it end, with what it has made: at the second time at once."""
        if self._table.state == table.BOOTING or self._is_cancelled:
            child.kill()  # the kernel then ends its ranks
        self._is_cancelled = True
        self._channel.shutdown(_BOTH_WAYS)

    def _wait_made(self, child: Child) -> bool:
        """Wait until all ranks have been made, and wait at the gate; whether it says so, and does not end."""
        from posix import read as read_now  # eventlet's os.read waits; recvfrom(2) may be forbidden

        channel = self._channel.fileno()
        wait_readable([channel, child.pidfd], None)
        return wait_readable([channel], 0) and read_now(channel, 1) == protocol.AT_GATE

    def _adopt(self, child: Child) -> None:
        """Let it end, and its ranks be children of this process."""
        pids = self._table.pids
        pidfds = self._holder.open_unadopted(pids)
        if child.wait(0):
            # Until now it has kept the numbers of its ranks from being others'; not for certain.
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
        except BrokenPipeError:  # it was cancelled, or has died
            pass
        except OSError as error:
            self._forbidden = error
            self._channel.shutdown(_BOTH_WAYS)

    def _send(self, word: bytes) -> None:
        with standard_library():
            import socket

        try:
            # The program may have given SIGPIPE its default back, which would end it.
            self._channel.send(word, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            os.write(self._channel.fileno(), word)

    def _take(self, code: int, *, cancelled: bool) -> None:
        """Take what the template has made; it has ended, with an exit code."""
        shared, pids = self._table, self._table.pids
        self._check_gave_way(code)
        if shared.errno:
            raise CloneFailedError(shared.errno, len(pids))
        is_adopted = shared.state == table.CLONED and self._are_adopted()
        if not is_adopted:
            self._end_unadopted()
        if self._forbidden is not None:
            raise CantServe(f"orphans can't be adopted: {self._forbidden}", for_good=True)
        if shared.state != table.CLONED:
            if code:  # it was killed, and has reaped none
                self._gate.shut()
                adoption.reap_orphans(pids, _LEAVES_WITHIN)
            if cancelled:
                return  # the interrupt is about to be raised
            half_way = f"while it made rank {len(pids)} of {len(self._ranks)}"
            raise RuntimeError(
                f"the template of the ranks ended {describe_exit(code)} {half_way}; no rank is left"
            )
        if not is_adopted:
            # A kernel that takes the request and ignores it; or the zygote has died, and was between.
            raise CantServe("the kernel has given the ranks to another process")
        pidfds, self._pidfds = self._pidfds, []
        self.guard.holds_all = self._are_held  # of these ranks: those by exec in their place would be others
        self._holder.adopt_all(self._ranks, pids, pidfds)
        for rank in self._ranks:
            rank.supervision.armed = True
        self._gate.open(len(pids))

    def _check_gave_way(self, code: int) -> None:
        """See that it has come to make ranks."""
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
        """Whether the ranks are children of this process; those that have ended may be nobody's."""
        return adoption.are_adopted(self._pidfds) or all(wait_readable([fd], 0) for fd in self._pidfds)

    def _end_unadopted(self) -> None:
        """End ranks that are no children of this process, and will be none."""
        pidfds, self._pidfds = self._pidfds, []
        with contextlib.suppress(OSError):
            self.backend.fan_out(pidfds, signal.SIGKILL)
        for pidfd in pidfds:
            wait_readable([pidfd], KILLED_WITHIN)
        # A template that is killed while this process adopts leaves them to this process all the same.
        self.backend.reap(pidfds)
        for pidfd in pidfds:
            os.close(pidfd)


class _Gate:
    """The gate of the call; or one of its own, where ranks wait for their adoption only, as nobody guards them."""

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
        """Let the ranks that wait at it leave: no other ones will come, and none is let on."""
        self._guard.shut_gate()
        self.close()

    def close(self) -> None:
        if self._own >= 0:
            own, self._own = self._own, -1
            os.close(own)
            os.close(self.ends.gate)

"""A template, as the supervisor sees it: what it is told, and what it has made.

How one comes into being is a launcher's business: `clone` launches a fresh interpreter, `forkserver` has a kept one
cloned.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal

from spawnx import affinity
from spawnx.backends.contract import LOST
from spawnx.backends.python import end_unheld
from spawnx.helper import told
from spawnx.launchers import held
from spawnx.launchers.message import Messages
from spawnx.launchers.thread import launch_in_thread
from spawnx.payload import append, to_memory
from spawnx.remote import preload, template
from spawnx.remote.rank import GUARDIAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spawnx.helper import Helper
    from spawnx.launchers import Order
    from spawnx.launchers.thread import Job
    from spawnx.payload import Payloads
    from spawnx.process import RankProcess

# The errnos by which a system says that it never clones.
PERMANENT = {errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EINVAL}


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


class Errand:
    """What a template is to do.

    Attributes:
        order: the fd of its message.
        arguments: of `remote.template.main`, besides that.
        keep: the fds that it has under the same numbers.
        affinity: see `spawnx.affinity.present`.
        pending: the signals that were sent to what was started for it, and that nobody has taken.
    """

    __slots__ = ("affinity", "arguments", "keep", "order", "pending")

    def __init__(self, order: int, arguments: dict[str, object], keep: list[int]) -> None:
        self.order = order
        self.arguments = arguments
        self.keep = keep
        self.pending: set[int] = set()
        self.affinity = affinity.present()


class Template:
    """The template of one call.

    Args:
        order: what the call asks for.
        ranks: those that it is to make.
        payloads: what they run.
        modules: what it imports before.

    Attributes:
        pending: the signals that it was sent and didn't take: they are meant for the ranks.
    """

    def __init__(
        self, order: Order, ranks: Sequence[RankProcess], payloads: Payloads, modules: tuple[str, ...]
    ) -> None:
        self.pending: set[int] = set()
        self._order = order
        self._modules = modules
        self._ranks = ranks
        self._messages = Messages(order, payloads)
        self._table_file = to_memory("spawnx-pids", memoryview(bytes(template.size_of(len(ranks)))))
        try:
            self._table = template.Table(self._table_file, len(ranks))
        except BaseException:
            os.close(self._table_file)
            raise

    def serve(self, launch: Callable[[Errand, Job], Helper | None]) -> None:
        """Have it make all ranks.

        Args:
            launch: brings it into being, in a launching thread; None if it has ended already, nobody knows how.

        Raises:
            PreloadGivenUp: what it imported can't be cloned; none was made.
            CantServe: none was made, for another reason.
            OSError: rank k could not be made; those before it have been adopted.
            RuntimeError: the template died while it made them; none is left.
        """
        try:
            errand = self._errand()
            launch_in_thread(lambda job: self._work(job, launch, errand), self._order.guard)
        finally:
            self._table.close()
            os.close(self._table_file)
            self._messages.close()

    def _errand(self) -> Errand:
        message = self._messages.of(self._ranks[0])
        for rank in self._ranks:
            rank.kept = self._ranks[0].kept
        # All of one size, so that each clone reads its own: to drop a list of them would be work for N in each of N.
        places = [pickle.dumps(rank.place) for rank in self._ranks]
        place_size = max(map(len, places))
        os.lseek(message.file, message.size, os.SEEK_SET)
        append(message.file, memoryview(b"".join(place.ljust(place_size) for place in places)))
        arguments: dict[str, object] = {
            "size": message.size,
            "place_size": place_size,
            "ranks": len(self._ranks),
            "table": self._table_file,
            "guarded": self._order.guard.kind == GUARDIAN,
            "parent": os.getpid(),
            "tracker": self._messages.tracker,
            "ends": self._order.guard.ends.numbers,
            "preload": self._modules,
            "known": tuple(filter(preload.is_known, self._modules)),
            "mask": [int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            "start_method": self._order.start_method,
        }
        ends = self._order.guard.ends.fds
        keep = [message.file, self._table_file, self._messages.tracker, *ends, *message.fds]
        arguments["keep"] = tuple(keep)
        return Errand(message.file, arguments, keep)

    def _work(self, job: Job, launch: Callable[[Errand, Job], Helper | None], errand: Errand) -> None:
        try:
            helper = launch(errand, job)
        finally:
            self.pending |= errand.pending
        code = LOST
        if helper is not None:
            job.on_cancel = helper.kill
            if job.cancelled:
                helper.kill()
            self._order.guard.hold_helper(helper.pidfd)
            helper.wait()
            job.on_cancel = None
            code = helper.reap()
        self.pending.update(self._table.pending)
        # Its siblings: their death signals are tied to the thread that has created it.
        job.outlive(pid for pid in self._table.pids if pid > 0)
        self._take(code, cancelled=job.cancelled)

    def _take(self, code: int, *, cancelled: bool) -> None:
        """Adopt what the template has made; it has ended, with an exit code."""
        table, pids = self._table, self._table.pids
        if any(pid < 0 for pid in pids):
            # Their parent was the template, against what was asked for; they have left by themselves.
            raise CantServe("the kernel ignores CLONE_PARENT", for_good=True)
        if table.state == template.GAVE_UP_PRELOAD:
            raise PreloadGivenUp(table.reason)
        if table.state == template.HAS_STARTUP_CODE:
            hint = "SPAWNX_LAUNCHER=clone runs it once for all ranks"
            raise CantServe(f"{table.reason}; {hint}", for_good=True)
        if table.state == template.BOOTING and not pids:
            reason = table.reason or f"the template ended {told(code)}"
            raise CantServe(reason, for_good=table.errno in PERMANENT)
        if table.state != template.CLONED and not table.errno:
            for pid in pids:
                end_unheld(pid)
            if cancelled:
                return  # the interrupt is about to be raised
            half_way = f"while it made rank {len(pids)} of {len(self._ranks)}"
            raise RuntimeError(f"the template of the ranks ended {told(code)} {half_way}; no rank is left")
        held.Holder(self._order.backend).adopt_all(self._ranks, pids)
        for rank in self._ranks:
            rank.armed = True
        if table.errno:
            raise OSError(table.errno, os.strerror(table.errno))

"""RankProcess: the `multiprocessing.Process` face of one rank."""

from __future__ import annotations

import errno
import os
import signal

from spawnx import mp_private
from spawnx.backends.contract import FORBIDDEN
from spawnx.remote import rank as remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from typing import Any

    from spawnx.backends.contract import Backend
    from spawnx.guard import Guard
    from spawnx.payload import Payload


class RankProcess(remote.Rank):
    """One rank, as the supervisor sees it: all that `multiprocessing.Process` has, and made by a launcher.

    Attributes:
        on_close: called by `close()` of an ended process, before anything is released.
        kept: what must live until the rank has ended, because the rank finds it by name: a semaphore whose last
            owner is collected here is gone before a rank that still boots can open it (pytorch#30461).
        guard: what stands behind all ranks of the call, and lasts as long as any of them is known.
        armed: whether the kernel sends the rank a signal when this process ends.
    """

    on_close: Callable[[], None] | None = None
    kept: object = None
    early_word: mp_private.EarlyWord | None = None
    guard: Guard | None = None
    armed = False
    _name: str

    def __init__(self, context: BaseContext, rank: int, report_path: str, *, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        self._process_class: type[BaseProcess] = context.Process  # type: ignore[attr-defined]
        # Named as the class of the reference's processes is: "SpawnProcess-1".
        self.name = self.name.replace(type(self).__name__, self._process_class.__name__, 1)
        self._start_method = mp_private.start_method_of(self._process_class)
        self._rank = rank
        self._report_path = report_path
        # The kernel throws exit codes away where SIGCHLD is ignored (wait(2)).
        self._records_end = hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN

    @property
    def place(self) -> tuple[int, str, tuple[int, ...], str]:
        """What tells this rank from the others of its call: see `remote.rank.Rank.take_place`."""
        return self._rank, self.name, mp_private.identity_of(self), self._report_path

    def give(self, call: Payload | remote.Call) -> None:
        """What the rank is to run."""
        self._call = call  # type: ignore[assignment]  # a Payload arrives as a Received

    def _Popen(self, _: RankProcess) -> object:  # noqa: N802 - the hook by which BaseProcess.start launches
        plain, self._name = self._name, self.early_word or self._name
        try:
            return mp_private.launch_as(self._process_class, self)
        finally:
            self._name = plain

    def start(self) -> None:
        """Start by multiprocessing's own means."""
        super().start()
        self.forget_call()

    def forget_call(self) -> None:
        """Hold what was given no longer: the rank has been started with it."""
        vars(self).pop("_call", None)

    @property
    def popen(self) -> Any:
        """What is behind the started process: see `launchers.held`."""
        return mp_private.popen_of(self)

    @property
    def status_lost(self) -> bool:
        """Whether the exit code is unknown because somebody else reaped the rank; it then reads 255."""
        return getattr(self.popen, "status_lost", False)

    @property
    def is_unheld(self) -> bool:
        """Whether no sentinel can be waited for: no pidfd could be had for the rank."""
        return self.sentinel < 0

    @property
    def holds_pidfd(self) -> bool:
        """Whether `sentinel` is a pidfd: the rank was made by a launcher of ours."""
        return hasattr(self.popen, "note") and not self.is_unheld

    def open_pidfd(self, backend: Backend) -> int:
        """A new pidfd of a started rank that is held by something else; the caller closes it.

        Raises:
            OSError: there is no room for one; or (ECHILD) the rank has been reaped already.
        """
        parent = mp_private.forked_by(self)
        if parent == os.getpid():
            return backend.open_pidfd(self.pid or 0)
        return _pidfd_of_child(self.pid or 0, parent)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(super().terminate, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(super().kill, signal.SIGKILL)

    def _send(self, send: Callable[[], None], signum: int) -> None:
        """Send a signal as multiprocessing does: by pid, where it has made the rank; by pidfd, if that is forbidden."""
        try:
            send()
        except OSError as error:
            if error.errno not in FORBIDDEN or not hasattr(signal, "pidfd_send_signal"):
                raise
            pidfd = _pidfd_of_child(self.pid or 0, mp_private.forked_by(self))
            try:
                signal.pidfd_send_signal(pidfd, signum)
            finally:
                os.close(pidfd)

    def note_ended(self, code: int) -> None:
        """Note how a rank that was made by a launcher of ours has ended; it may then be reaped."""
        mp_private.popen_of(self).note(code)
        mp_private.forget(self)

    def join(self, timeout: float | None = None) -> None:
        """See `multiprocessing.Process`."""
        super().join(timeout)
        self._tell_guard()

    def is_alive(self) -> bool:
        """See `multiprocessing.Process`."""
        is_alive = super().is_alive()
        self._tell_guard()
        return is_alive

    def _tell_guard(self) -> None:
        if self.guard is not None and self.guard.on_end is not None and self.exitcode is not None:
            self.guard.on_end()

    def close(self) -> None:
        """Release the process, which must have ended; nothing happens if it is closed already."""
        if self.on_close is not None and not self.is_alive():
            on_close, self.on_close = self.on_close, None
            on_close()
        super().close()

    def __reduce__(self) -> tuple[Callable[[], remote.Rank], tuple[()], dict[str, object]]:
        """Pickle as what the rank itself needs: a fresh interpreter imports nothing of the supervisor's side."""
        ours = {
            "_process_class",
            "armed",
            "early_word",
            "ends",
            "guard",
            "kept",
            "mask",
            "on_close",
            "others",
        }
        state = {name: value for name, value in vars(self).items() if name not in ours}
        state["_name"] = str(self._name)
        return remote.unpickled, (), state


def _pidfd_of_child(pid: int, parent: int) -> int:
    """A pidfd of a child of ours, or of the forkserver: trusted only if it still is one when it has been opened."""
    pidfd = os.pidfd_open(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            if int(stat.read().rpartition(b")")[2].split()[1]) == parent:
                return pidfd
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))

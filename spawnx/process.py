"""RankProcess: the `multiprocessing.Process` face of one rank."""

from __future__ import annotations

import errno
import os
import signal

from spawnx.backends.contract import FORBIDDEN
from spawnx.mp import forkserver, interpreter
from spawnx.mp import process as mp_process
from spawnx.remote import rank as remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from typing import Any, Protocol

    from spawnx.backends.contract import Backend

    class Owner(Protocol):
        """Resources of one call that outlive its ranks: its guard.

        Attributes:
            on_end: called when a Process has seen its rank ended, and no context is left to see it; or None.
        """

        on_end: Callable[[], None] | None
else:
    Owner = object


class Supervision:
    """What only the supervisor has of a rank. It is not pickled with the rank.

    Attributes:
        process_class: multiprocessing's class of processes of the start method.
        owner: the guard of the call, which lasts as long as any of its ranks is known.
        armed: whether the kernel sends the rank a signal when this process ends.
        keepalive: what must live until the rank has ended, because the rank finds it by name: a semaphore whose last
            owner is collected here is gone before a rank that still boots can open it (pytorch#30461).
        preparation_hook: the name under which multiprocessing starts the rank, while it does.
        on_close: called by `close()` of an ended process, before anything is released.
    """

    __slots__ = ("armed", "keepalive", "on_close", "owner", "preparation_hook", "process_class")

    def __init__(self, process_class: type[BaseProcess]) -> None:
        self.process_class = process_class
        self.owner: Owner | None = None
        self.armed = False
        self.keepalive: object = None
        self.preparation_hook: interpreter.PreparationHook | None = None
        self.on_close: Callable[[], None] | None = None


class RankProcess(remote.Rank):
    """One rank, as the supervisor sees it: all that `multiprocessing.Process` has, and made by a launcher.

    Attributes:
        supervision: what only the supervisor has of it.
    """

    _name: str

    def __init__(self, context: BaseContext, rank: int, report_path: str, *, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        self.supervision = Supervision(context.Process)  # type: ignore[attr-defined]
        process_class = self.supervision.process_class
        # Named as the class of the reference's processes is: "SpawnProcess-1".
        self.name = self.name.replace(type(self).__name__, process_class.__name__, 1)
        self._start_method = mp_process.start_method_of(process_class)
        self._rank = rank
        self._report_path = report_path
        # The kernel throws exit codes away where SIGCHLD is ignored (wait(2)).
        self._records_end = hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN

    @property
    def place(self) -> tuple[int, str, tuple[int, ...], str]:
        """What tells this rank from the others of its call: see `remote.rank.Rank.set_place`."""
        return self._rank, self.name, mp_process.identity_of(self), self._report_path

    def give(self, call: object) -> None:
        """What the rank is to run: a `remote.rank.Call`, or what is pickled as one."""
        self._call = call  # type: ignore[assignment]

    def _Popen(self, _: RankProcess) -> object:  # noqa: N802 - the hook by which BaseProcess.start launches
        plain, self._name = self._name, self.supervision.preparation_hook or self._name
        try:
            return mp_process.launch_as(self.supervision.process_class, self)
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
        """What is behind the started process: see `launchers.popen`."""
        return mp_process.popen_of(self)

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
        parent = forkserver.forked_by(self)
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
            pidfd = _pidfd_of_child(self.pid or 0, forkserver.forked_by(self))
            try:
                signal.pidfd_send_signal(pidfd, signum)
            finally:
                os.close(pidfd)

    def note_ended(self, code: int) -> None:
        """Note how a rank that was made by a launcher of ours has ended; it may then be reaped."""
        mp_process.popen_of(self).note(code)
        mp_process.forget(self)

    def join(self, timeout: float | None = None) -> None:
        """See `multiprocessing.Process`."""
        super().join(timeout)
        self._notify_owner()

    def is_alive(self) -> bool:
        """See `multiprocessing.Process`."""
        is_alive = super().is_alive()
        self._notify_owner()
        return is_alive

    def _notify_owner(self) -> None:
        owner = self.supervision.owner
        if owner is not None and owner.on_end is not None and self.exitcode is not None:
            owner.on_end()

    def close(self) -> None:
        """Release the process, which must have ended; nothing happens if it is closed already."""
        on_close = self.supervision.on_close
        if on_close is not None and not self.is_alive():
            self.supervision.on_close = None
            on_close()
        super().close()

    def __reduce__(self) -> tuple[Callable[[], remote.Rank], tuple[()], dict[str, object]]:
        """Pickle as what the rank itself needs: a fresh interpreter imports nothing of the supervisor's side."""
        ours = {"supervision", "ends", "mask", "others"}
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

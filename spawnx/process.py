"""RankProcess: one rank as a `multiprocessing.Process`."""

from __future__ import annotations

import errno
import os
import signal

from spawnx import proc_stat
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
            on_end: called when a Process has seen its rank end and the call has no context any more; None before that.
        """

        on_end: Callable[[], None] | None
else:
    Owner = object


class Supervision:
    """A `Supervision` is the part of a rank's state that only the supervisor has. It is not pickled with the rank.

    Attributes:
        process_class: multiprocessing's class of processes of the start method.
        owner: the guard of the call, which lasts as long as any of its ranks is known.
        armed: whether the kernel sends the rank a signal when this process ends.
        keepalive: objects that must live until the rank has ended, because the rank finds them by name. If the last
            owner of a semaphore is collected in this process, a rank that still boots can't open it (pytorch#30461).
        preparation_hook: stands in for the rank's name while multiprocessing starts it; else None.
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
    """A `RankProcess` is one rank in the supervisor. It can do all that `multiprocessing.Process` can.

    Attributes:
        supervision: the state that only the supervisor has.
    """

    _name: str

    def __init__(self, context: BaseContext, rank: int, report_path: str, *, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        self.supervision = Supervision(context.Process)  # type: ignore[attr-defined]
        process_class = self.supervision.process_class
        # As in the reference, the name starts with the class of the start method: "SpawnProcess-1".
        self.name = self.name.replace(type(self).__name__, process_class.__name__, 1)
        self._start_method = mp_process.start_method_of(process_class)
        self._rank = rank
        self._report_path = report_path
        # The kernel discards exit codes if SIGCHLD is ignored (wait(2)).
        self._records_end = hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN

    @property
    def place(self) -> tuple[int, str, tuple[int, ...], str]:
        """What is different in each rank of a call: see `remote.rank.Rank.set_place`."""
        return self._rank, self.name, mp_process.identity_of(self), self._report_path

    def give(self, call: object) -> None:
        """Set the call that the rank runs: a `remote.rank.Call`, or an object that is pickled as one."""
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
        """Drop the call that `give` has set: the rank has been started with it."""
        vars(self).pop("_call", None)

    @property
    def popen(self) -> Any:
        """The Popen object of the started process: see `launchers.popen`."""
        return mp_process.popen_of(self)

    @property
    def status_lost(self) -> bool:
        """Whether another reaper took the exit status of the rank; `exitcode` is 255 then."""
        return getattr(self.popen, "status_lost", False)

    @property
    def is_unheld(self) -> bool:
        """Whether the rank has no sentinel to wait for, because no pidfd could be opened."""
        return self.sentinel < 0

    @property
    def holds_pidfd(self) -> bool:
        """Whether `sentinel` is a pidfd: spawnx, and not multiprocessing, has created the process."""
        return hasattr(self.popen, "note") and not self.is_unheld

    def open_pidfd(self, backend: Backend) -> int:
        """Open a pidfd of a started rank whose sentinel is none; the caller closes it.

        Raises:
            OSError: no fd is free; or (ECHILD) the rank has been reaped already.
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
        """Send a signal as multiprocessing does: by pid, if it made the rank; by pidfd, if that is forbidden."""
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
        """Note the exit code of a rank that spawnx itself has created; the rank may then be reaped."""
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
        """Release the process, which must have ended. Does nothing if it is closed already."""
        on_close = self.supervision.on_close
        if on_close is not None and not self.is_alive():
            self.supervision.on_close = None
            on_close()
            # The end may be known only now: multiprocessing's forkserver writes the status before it closes the pipe
            # that is the sentinel, and no other look follows the last `close`.
            self._notify_owner()
        super().close()

    def __reduce__(self) -> tuple[Callable[[], remote.Rank], tuple[()], dict[str, object]]:
        """Pickle only the state that the rank needs: a fresh interpreter imports none of the supervisor's modules."""
        ours = {"supervision", "ends", "mask", "others"}
        state = {name: value for name, value in vars(self).items() if name not in ours}
        state["_name"] = str(self._name)
        return remote.unpickled, (), state


def _pidfd_of_child(pid: int, parent: int) -> int:
    """Open a pidfd of a child of `parent`, which is this process or the forkserver.

    The child may be reaped before the pidfd is opened, and its number given away. So the parent is compared after that.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if int(proc_stat.fields(pid)[proc_stat.PARENT]) == parent:
            return pidfd
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))

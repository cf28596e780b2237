"""A rank, from the first line of our code that it runs to the last: it runs the function, reports a failure, and ends.

There are two beginnings. A fresh interpreter or a clone calls `before_main` or `run_rank` before it imports the main
module, then unpickles a `Rank` and bootstraps it. A forked child has its `Rank` already. Every rank imports this file,
so it imports very little.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from functools import partial
from multiprocessing.process import BaseProcess

from spawnx import clock
from spawnx.ipc import report, scoreboard
from spawnx.ipc.ends import Ends, Own
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any

    from spawnx.backends.contract import Backend
    from spawnx.mp.boot import Preparation

# The exit status on Windows of a console program that Ctrl-C ended (STATUS_CONTROL_C_EXIT), as in CPython's own main.
_WINDOWS_CONTROL_C = 0xC000013A


# The means that end ranks after their supervisor: a process; a thread in each rank; only the kernel.
GUARDIAN = "guardian"
LIFELINE = "lifeline"
OFF = "off"

SIGINT = int(signal.SIGINT)
SIGKILL = int(getattr(signal, "SIGKILL", 9))  # Windows has none, and doesn't use this


class OrphanPolicy:
    """How a rank that multiprocessing starts is kept from outliving its supervisor.

    Attributes:
        kind: `GUARDIAN`, `LIFELINE` or `OFF`.
        grace: how long the rank may outlive its supervisor, in seconds.
        backend: the name of the backend that arms.
        parent: the pid of the rank's parent, if the thread that creates the rank outlives the rank. When that thread
            ends, the kernel sends the death signal. None: the thread may end earlier, and the signal would hit a
            healthy rank.
    """

    __slots__ = ("backend", "grace", "kind", "parent")

    def __init__(self, kind: str, grace: float, backend: str, parent: int | None) -> None:
        self.kind = kind
        self.grace = grace
        self.backend = backend
        self.parent = parent

    def arm(self, signum: int) -> None:
        """Arm a death signal for the end of the parent, if there is a `parent`."""
        if self.parent is not None:
            with standard_library():
                from spawnx import backends

            arm_or_leave(backends.named(self.backend), signum, self.parent)

    def enforce(self, gate: int) -> None:
        """Apply the policy before user code runs: wait at the gate, or arm SIGINT; start a lifeline if asked for."""
        if self.kind == GUARDIAN:
            with standard_library():
                from spawnx import backends

            pass_gate(gate, backends.named(self.backend), self.parent)
        else:
            self.arm(SIGINT)
        if self.kind == LIFELINE:
            with standard_library():
                from spawnx.remote import lifeline

            lifeline.hold(self.grace)


def main(
    message: int,
    *,
    size: int,
    rank: tuple[int, str, tuple[int, ...], str],
    backend: str,
    armed: bool,
    guarded: bool,
    parent: int,
    tracker: int,
    ends: tuple[int, int, int],
) -> None:
    """Run a fresh interpreter that `launchers.exec` has launched, from its start to its exit.

    Args:
        message: the fd of the message, which all ranks share: it is read without moving its offset.
        size: the length of the message in bytes.
        rank: this rank's place, see `Rank.set_place`.
        backend: the name of the backend that arms.
        armed: whether the launch has armed the death signal already.
        guarded: whether there is a gate to wait at.
        parent: the supervisor's pid.
        tracker: the fd of the supervisor's resource tracker.
        ends: the fds of `Ends`.
    """
    with standard_library():
        from spawnx.mp import boot

        preparation = boot.Preparation(os.pread(message, size, 0))
    os.close(message)
    boot.use_path(preparation.path)
    if not armed:
        OrphanPolicy(OFF, 0, backend, parent).arm(SIGKILL if guarded else SIGINT)
    boot.use_resource_tracker(tracker)
    policy = OrphanPolicy(GUARDIAN, 0, backend, parent)
    enter = partial(policy.enforce, ends[2]) if guarded else None
    sys.exit(run_rank(preparation, rank, parent, enter, Ends(*ends)))


def rehearse(message: int, *, path: list[object], backend: str) -> None:
    """Do what a rank does before it reads its message, and end: see `failures.postmortem.try_interpreter`."""
    os.close(message)
    with standard_library():
        from spawnx import backends
        from spawnx.mp import boot
    boot.use_path(path)
    with standard_library():
        backends.named(backend).load()


def run_rank(
    preparation: Preparation,
    place: tuple[int, str, tuple[int, ...], str],
    parent: int,
    enter: Callable[[], None] | None,
    ends: Ends,
) -> int:
    """Run a rank that spawnx has launched, from the gate to its last finalizer; return the exit status.

    Args:
        preparation: the message that the rank unpickles.
        place: see `Rank.set_place`.
        parent: the supervisor's pid.
        enter: waits at the gate; None: there is no gate.
        ends: the fds by which the rank reaches the supervisor.
    """
    with standard_library():
        from spawnx.mp import boot

    _begin_to_import(place[3], ends)
    if enter is not None:
        enter()
    process: Rank = preparation.receive(place[1])
    del preparation
    process.set_place(*place)
    return boot.bootstrap(process, open_parent(parent))


def open_parent(supervisor: int) -> int | None:
    """Open a pidfd of the supervisor, on which `multiprocessing.parent_process()` waits; None if that fails."""
    try:
        # 0: the rank is in a pid namespace of its own, where that pid is no process's, or a stranger's.
        return os.pidfd_open(supervisor) if os.getppid() != 0 else None
    except (OSError, AttributeError):  # no fd left, no such supervisor, no such call: only that wait is lost
        return None


def before_main(name: str, report_path: str, death_signal: int, policy: OrphanPolicy, ends: Ends) -> str:
    """Arm and observe a fresh interpreter of multiprocessing's before it imports the main module; return `name`.

    The gate comes later, in `Rank.run`: the supervisor may still be writing data that this interpreter must read.
    """
    policy.arm(death_signal)
    _begin_to_import(report_path, ends)
    return name


def _begin_to_import(report_path: str, ends: Ends) -> None:
    """Take the rank's fds and install the boot reporter, in an interpreter that is about to import the main module."""
    _receive_ends(report_path, ends)
    scoreboard.mark(scoreboard.IMPORT)
    _boot_reporter.install(report_path)


def _receive_ends(report_path: str, ends: Ends) -> None:
    """Take the fds that were handed over to this rank, before user code runs; they are kept until its end."""
    global _ends, _notices
    folder, rank = report.place_of(report_path)
    _ends, _notices = ends, Own(ends.notices)
    scoreboard.open_place(ends.scoreboard, rank, folder)


# The fds of this process as a rank.
_ends = Ends()
_notices = Own()


def fail(path: str, stage: str, error: BaseException, traceback: TracebackType | None) -> None:
    """Report the exception of this rank of a context, and write a notice to the supervisor."""
    with standard_library():
        from spawnx.ipc import notices

    raised = clock.monotonic()
    scoreboard.mark_failing()
    number = report_or_print(path, stage, error, traceback, raised)
    if number:
        with standard_library():
            from traceback import format_exception_only

        scoreboard.write_headline("".join(format_exception_only(error)))
    notices.tell(_notices, report.place_of(path)[1], number)


def report_or_print(
    path: str, stage: str, error: BaseException, traceback: TracebackType | None, raised: float | None = None
) -> int:
    """Write the report; if that fails, print the traceback to stderr and return the errno, else 0."""
    made = report.of(error, traceback, stage, raised)
    is_on_scoreboard = scoreboard.write_report(report.pack(made, scoreboard.MOST_TEXT))
    try:
        report.write(path, report.pack(made))
    except OSError as failed:
        if is_on_scoreboard:
            return 0
        # Suppressed: stderr may be a file on the same full disk; or closed, or None.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(made.text)
        return failed.errno or errno.EIO
    return 0


def arm_or_leave(backend: Backend, signum: int, parent: int) -> None:
    """Arm a death signal for the end of `parent`. If `parent` has ended already, exit."""
    if not backend.arm(signum, parent):
        os._exit(1)


def pass_gate(fd: int, backend: Backend, parent: int | None) -> None:
    """Wait until all ranks exist and the guardian holds them; from then on SIGINT is the death signal.

    A rank that the guardian can't hold keeps SIGKILL, its death signal until now.
    """
    with standard_library():
        from spawnx.ipc import gate

    word = gate.wait(fd)
    if not word:
        os._exit(1)
    if word == gate.HELD and parent is not None:
        arm_or_leave(backend, SIGINT, parent)


class _BootReporter:
    """Reports an exception that ends the interpreter before there is a `Rank`: mostly, one of the main module's."""

    stage = scoreboard.IMPORT

    def install(self, report_path: str) -> None:
        self._report_path = report_path
        self._pid = os.getpid()
        self._outer = sys.excepthook
        sys.excepthook = self

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, Exception) and os.getpid() == self._pid:
            fail(self._report_path, self.stage, error, traceback)
        else:
            self._outer(kind, error, traceback)

    def remove(self) -> None:
        """Leave the hook to user code, unless the main module has set its own."""
        if sys.excepthook is self:
            sys.excepthook = self._outer


_boot_reporter = _BootReporter()


class Rank(BaseProcess):
    """The current process of a rank: `multiprocessing.current_process()` returns it there.

    The supervisor's `RankProcess` is a subclass, and pickles as a `Rank`.
    """

    _rank: int
    _report_path: str
    _records_end: bool
    _start_method: str
    _call: Call | PickledCall
    # None: the rank is protected before it comes to `run`.
    orphan_policy: OrphanPolicy | None = None
    # Set in a forked rank only. Other ranks receive theirs before they unpickle the `Rank`.
    ends: Ends | None = None
    # The supervisor's ends of multiprocessing's pipes to earlier ranks, inherited by a forked rank. While they are open
    # in this rank, an earlier rank can't see by its pipe that the supervisor has ended.
    others: Sequence[int] = ()
    # The supervisor's signal mask before it blocked all signals to fork ranks. None: the rank was not made so.
    mask: set[int | signal.Signals] | None = None

    def set_place(self, rank: int, name: str, identity: tuple[int, ...], report_path: str) -> None:
        """Set the attributes in which ranks differ that unpickle the same message."""
        self._rank = rank
        self._name = name
        self._identity = identity
        self._report_path = report_path

    def run(self) -> None:
        """Call the function; if it raises, write a report and exit with status 1.

        As in the reference, a BaseException that is no Exception ends the rank with exit status 1 and no report
        (SystemExit: with its own status). Unlike in the reference, KeyboardInterrupt is no success: see `_bootstrap`.
        """
        stage = scoreboard.UNPICKLE
        try:
            if self.orphan_policy is not None:
                self.orphan_policy.enforce(_ends.gate)
            _boot_reporter.remove()
            scoreboard.mark(stage)
            fn, args = self._call.take()
            del self._call  # a payload need not live as long as the rank
            stage = scoreboard.RUN
            scoreboard.mark(stage)
            fn(self._rank, *args)
            scoreboard.mark(scoreboard.EXIT)
        except KeyboardInterrupt:
            self._interrupted = True
        except Exception as error:
            if os.getpid() != self._pid:
                raise  # in a process that the rank forked: it must not report for the rank
            fail(self._report_path, stage, error, users_part(error.__traceback__))
            sys.exit(1)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Run as multiprocessing does. An interrupted rank then dies by SIGINT, so that its exit status shows that."""
        self._pid = os.getpid()
        self._interrupted = False
        for fd in self.others:
            os.close(fd)
        if self.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        self.others, self.mask = (), None
        if self.ends is not None:
            _receive_ends(self._report_path, self.ends)
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        if self._interrupted:
            die_by_sigint(self._start_method)
        if code == 0 and self._records_end:
            report.record_end(self._report_path)
        return code


def unpickled() -> Rank:
    """Make an empty `Rank`, which unpickling then fills; mark the stage."""
    _boot_reporter.stage = scoreboard.UNPICKLE
    scoreboard.mark(scoreboard.UNPICKLE)
    return Rank.__new__(Rank)


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frame that caught the exception, if there are others."""
    return traceback.tb_next if traceback is not None and traceback.tb_next is not None else traceback


def die_by_sigint(start_method: str) -> None:
    """End by SIGINT, which interrupted us, after everything that would have run at a normal exit."""
    with standard_library():
        from spawnx.mp import boot

    try:
        boot.run_exit_functions(start_method)
        boot.flush_streams()
    finally:
        if sys.platform == "win32":
            os._exit(_WINDOWS_CONTROL_C)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)


class Call:
    """The function and its arguments, as objects: in a forked rank, and where they are pickled with the rank."""

    __slots__ = ("_args", "_fn")

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._fn = fn
        self._args = args

    def take(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return the function and its arguments."""
        return self._fn, self._args


class PickledCall:
    """A payload in a rank.

    Args:
        data: the pickle, or a `multiprocessing.reduction.DupFd` of a file that holds it.
        size: its length in bytes.
    """

    __slots__ = ("_data", "_size")

    def __init__(self, data: bytes | Any, size: int) -> None:
        self._data = data
        self._size = size

    def take(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Unpickle the function and its arguments."""
        with standard_library():
            import pickle

        if isinstance(self._data, bytes):
            return pickle.loads(self._data)  # type: ignore[no-any-return]  # noqa: S301 - from our supervisor
        with standard_library():
            import mmap

        fd = self._data.detach()
        try:
            with mmap.mmap(fd, self._size, access=mmap.ACCESS_READ) as pages:
                return pickle.loads(pages)  # type: ignore[no-any-return]  # noqa: S301 - the pages are shared by all
        finally:
            os.close(fd)

"""A rank, from its first instruction of ours to its last: what it runs, how it fails, how it ends.

Two ways lead here. A fresh interpreter calls `before_main` before it imports the main module, then unpickles a `Rank`
and bootstraps it. A forked child has its `Rank` already. Every rank imports this file: it imports next to nothing.
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

# What Windows gives a console program that Ctrl-C ended (STATUS_CONTROL_C_EXIT), as CPython's own main does.
_WINDOWS_CONTROL_C = 0xC000013A


# Who sees to it that ranks don't outlive their supervisor: a process; a thread in each rank; only the kernel.
GUARDIAN = "guardian"
LIFELINE = "lifeline"
OFF = "off"

SIGINT = int(signal.SIGINT)
SIGKILL = int(getattr(signal, "SIGKILL", 9))  # Windows has none, and no use for it here


class OrphanPolicy:
    """How a rank that multiprocessing starts is kept from outliving its supervisor.

    Attributes:
        kind: `GUARDIAN`, `LIFELINE` or `OFF`.
        grace: how long it may live on without the supervisor, in seconds.
        backend: the name of the backend that arms.
        parent: the pid of the process whose creating thread outlives the rank: when it ends, the kernel sends a signal.
            None: there is no such thread, the signal would hit a healthy rank.
    """

    __slots__ = ("backend", "grace", "kind", "parent")

    def __init__(self, kind: str, grace: float, backend: str, parent: int | None) -> None:
        self.kind = kind
        self.grace = grace
        self.backend = backend
        self.parent = parent

    def arm(self, signum: int) -> None:
        """Let a signal follow the end of the parent, if that can be."""
        if self.parent is not None:
            with standard_library():
                from spawnx import backends

            arm_or_leave(backends.named(self.backend), signum, self.parent)

    def enforce(self, gate: int) -> None:
        """Wait at the gate to be let on to user code."""
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
    """The whole life of a fresh interpreter that `launchers.exec` has launched.

    Args:
        message: the fd of the message, which all ranks share: it is read without moving its offset.
        size: the length of the message in bytes.
        rank: this rank's place, see `Rank.set_place`.
        backend: the backend that arms.
        armed: whether the launch has armed already.
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
    """Do what ranks do before they read what is their own, and end: see `failures.postmortem.try_interpreter`."""
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
    """Be a rank of our own launching, from the gate until its exit code is known.

    Args:
        preparation: what it unpickles.
        place: see `Rank.set_place`.
        parent: the supervisor's pid.
        enter: waits at the gate; None: there is none.
        ends: by which it reaches the supervisor.
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
    """What `multiprocessing.parent_process()` waits on: a pidfd of the supervisor."""
    try:
        # In a pid namespace of its own (0) the number is nobody's, or a stranger's.
        return os.pidfd_open(supervisor) if os.getppid() != 0 else None
    except (OSError, AttributeError):  # no fd left, no such supervisor, no such call: nothing else is lost
        return None


def before_main(name: str, report_path: str, death_signal: int, policy: OrphanPolicy, ends: Ends) -> str:
    """Protect and observe a fresh interpreter of multiprocessing's before it imports the main module; returns `name`.

    The gate comes later, in `Rank.run`: the supervisor may still be writing what this interpreter is to read.
    """
    policy.arm(death_signal)
    _begin_to_import(report_path, ends)
    return name


def _begin_to_import(report_path: str, ends: Ends) -> None:
    """Begin to be a rank, in a fresh interpreter that is about to import the main module."""
    _receive_ends(report_path, ends)
    scoreboard.mark(scoreboard.IMPORT)
    _boot_reporter.install(report_path)


def _receive_ends(report_path: str, ends: Ends) -> None:
    """Have what was handed over to this rank, from before user code is run until its end."""
    global _ends, _notices
    folder, rank = report.place_of(report_path)
    _ends, _notices = ends, Own(ends.notices)
    scoreboard.open_place(ends.scoreboard, rank, folder)


# What this process has as a rank.
_ends = Ends()
_notices = Own()


def fail(path: str, stage: str, error: BaseException, traceback: TracebackType | None) -> None:
    """As a rank of a context, report what it raised, and let the supervisor know."""
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
    """Report; where that can't be, leave the traceback on stderr, and return the errno."""
    made = report.of(error, traceback, stage, raised)
    is_on_scoreboard = scoreboard.write_report(report.pack(made, scoreboard.MOST_TEXT))
    try:
        report.write(path, report.pack(made))
    except OSError as failed:
        if is_on_scoreboard:
            return 0
        # Suppressed: it may be a file on the same full disk; or closed, or None.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(made.text)
        return failed.errno or errno.EIO
    return 0


def arm_or_leave(backend: Backend, signum: int, parent: int) -> None:
    """Let a signal follow the end of `parent`; who comes too late for that leaves: nobody is left to work for."""
    if not backend.arm(signum, parent):
        os._exit(1)


def pass_gate(fd: int, backend: Backend, parent: int | None) -> None:
    """Wait until all ranks exist and the guardian holds them; from then on SIGINT follows the end of `parent`.

    A rank that the guardian can't hold keeps SIGKILL, with which it came here.
    """
    with standard_library():
        from spawnx.ipc import gate

    word = gate.wait(fd)
    if not word:
        os._exit(1)
    if word == gate.HELD and parent is not None:
        arm_or_leave(backend, SIGINT, parent)


class _BootReporter:
    """Reports what ends the interpreter before there is a `Rank` to do it: chiefly, what the main module raises."""

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
    """The current process of a rank, as `multiprocessing.current_process()` shows it there.

    The supervisor's `RankProcess` is made of it and pickles as it.
    """

    _rank: int
    _report_path: str
    _records_end: bool
    _start_method: str
    _call: Call | PickledCall
    # None: the rank is protected before it comes to `run`.
    orphan_policy: OrphanPolicy | None = None
    # Of a forked rank; the others have theirs before they have this.
    ends: Ends | None = None
    # What a forked rank has of the pipes by which multiprocessing's supervisor holds the ranks before it. While one has
    # it open, an earlier rank isn't told by its pipe that the supervisor has ended.
    others: Sequence[int] = ()
    # The signals that are blocked in the supervisor, but for its forking of ranks. None: the rank was not made so.
    mask: set[int | signal.Signals] | None = None

    def set_place(self, rank: int, name: str, identity: tuple[int, ...], report_path: str) -> None:
        """Be this one of the ranks that unpickle the same message."""
        self._rank = rank
        self._name = name
        self._identity = identity
        self._report_path = report_path

    def run(self) -> None:
        """Call the function; report what it raises, and exit with 1.

        As in the reference, a BaseException that is no Exception ends the rank with exit code 1 and no report
        (SystemExit: with its own code). Unlike there, KeyboardInterrupt is no success: see `_bootstrap`.
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
                raise  # a process that the rank forked, and that came back here: it doesn't speak for the rank
            fail(self._report_path, stage, error, users_part(error.__traceback__))
            sys.exit(1)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Run as multiprocessing has it; a rank that was interrupted then dies by SIGINT, so that the end is true."""
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
    """The `Rank` that a fresh interpreter is about to fill with what comes next in the pickle."""
    _boot_reporter.stage = scoreboard.UNPICKLE
    scoreboard.mark(scoreboard.UNPICKLE)
    return Rank.__new__(Rank)


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frame that has caught the exception, if there are others."""
    return traceback.tb_next if traceback is not None and traceback.tb_next is not None else traceback


def die_by_sigint(start_method: str) -> None:
    """End by the signal that interrupted us, after everything that would have run at a normal exit."""
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
        """The function and its arguments."""
        return self._fn, self._args


class PickledCall:
    """A payload in a rank.

    Args:
        data: the pickle, or what `multiprocessing.reduction.DupFd` made of a file that holds it.
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

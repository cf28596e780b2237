"""`spawn` and `start_processes`: the reference's functions (torch 2.13), and the public path of all its names."""

from __future__ import annotations

import multiprocessing
import operator
import os
import sys
import warnings
from functools import partial

from spawnx import backends, launchers, settings, uninterrupted
from spawnx.context import ProcessContext, SpawnContext
from spawnx.errors import (
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    ProcessTimeoutError,
)
from spawnx.guard import Guard
from spawnx.ipc import report
from spawnx.launchers import preload as preloading
from spawnx.launchers import start
from spawnx.launchers.contract import Order
from spawnx.settings import ENV_VAR_PARALLEL_START
from spawnx.standard import standard_library
from spawnx.watch import unjoined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, SupportsIndex

    from spawnx.launchers.contract import Served
    from spawnx.process import RankProcess

# How many characters of an argument an error message shows.
_SHORT = 40

__all__ = [
    "ENV_VAR_PARALLEL_START",
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "ProcessTimeoutError",
    "SpawnContext",
    "spawn",
    "start_processes",
]


def spawn(
    fn: Callable[..., object],
    args: Iterable[Any] = (),
    nprocs: SupportsIndex = 1,
    join: bool = True,  # noqa: FBT001, FBT002 - the reference's signature
    daemon: bool = False,  # noqa: FBT001, FBT002
    start_method: str = "spawn",
    *,
    preload: str | Iterable[str] = "auto",
    timeout: float | None = None,
) -> ProcessContext | None:
    """Start `nprocs` ranks that run `fn(rank, *args)`, each in a fresh interpreter.

    If a rank fails, the others are ended and its failure is raised, with its traceback if it raised.

    Args:
        fn: called in each rank; defined at the top level of a module, so that it can be pickled.
        args: what follows the rank; any iterable.
        nprocs: how many ranks; none if negative.
        join: wait for all ranks.
        daemon: the ranks' daemon flag: daemonic ones are terminated when the supervisor exits, and have no children.
        start_method: deprecated, always "spawn"; see `start_processes` for others.
        preload: see `start_processes`.
        timeout: how long the ranks may take in all, in seconds; None is what `SPAWNX_TIMEOUT` says, or else for ever.

    Returns:
        None if `join`, else the `ProcessContext`.

    Raises:
        ProcessRaisedException: a rank raised.
        ProcessExitedException: a rank ended by a signal or with an exit code other than 0.
        ProcessTimeoutError: the time was over; it names the ranks that lived, and has their stacks.
        TypeError, ValueError: an argument or a setting has no meaning, or can't be pickled; no rank was started.
        OSError: a rank could not be started; none is left.
    """
    if start_method != "spawn":
        msg = (
            f"This method only supports start_method=spawn (got: {start_method}).\n"
            "To use a different start_method use:\n\t\t"
            " spawnx.start_processes(...)"
        )
        warnings.warn(msg, FutureWarning, stacklevel=2)
    return start_processes(
        fn, args, nprocs, join, daemon, start_method="spawn", preload=preload, timeout=timeout
    )


def start_processes(
    fn: Callable[..., object],
    args: Iterable[Any] = (),
    nprocs: SupportsIndex = 1,
    join: bool = True,  # noqa: FBT001, FBT002 - the reference's signature
    daemon: bool = False,  # noqa: FBT001, FBT002
    start_method: str | None = "spawn",
    *,
    numa_options: object = None,
    preload: str | Iterable[str] = "auto",
    timeout: float | None = None,
) -> ProcessContext | None:
    """Start `nprocs` ranks that run `fn(rank, *args)`, by any start method. See `spawn`.

    Args:
        fn: called in each rank.
        args: what follows the rank; any iterable.
        nprocs: how many ranks; none if negative.
        join: wait for all ranks.
        daemon: the ranks' daemon flag.
        start_method: "spawn", "fork" or "forkserver", where the platform has it; None is multiprocessing's default.
        numa_options: only None: torch's callers of 2025 pass it.
        preload: what is imported once, before ranks are cloned ("spawn" and "forkserver" on Linux), instead of once in
            each: names of modules, none by `()`. "auto" is what `SPAWNX_PRELOAD` says, and where that says nothing,
            torch and numpy if they are imported here, and what the main module and that of `fn` use of the standard
            library, all as far as these modules import it before they do anything that might change the import; and
            what `spawnx.preload` and `multiprocessing.set_forkserver_preload` were told. "__main__" is the main
            module, once as `__mp_main__`. A module that raises, starts threads or opens files when it is
            imported is not preloaded, with a warning. What you name, you answer for: ranks share the state that it has
            after its import, random state above all, but for what it renews by `os.register_at_fork` or
            `pthread_atfork`.
        timeout: see `spawn`. It counts from this call; with `join=False` the context's `join` sees to it.

    Returns:
        None if `join`, else the `ProcessContext`.

    Raises:
        ProcessRaisedException, ProcessExitedException, ProcessTimeoutError, TypeError, ValueError, OSError: as `spawn`.
    """
    if numa_options is not None:
        msg = "numa_options are not supported: bind each rank to its node in fn, for instance by os.sched_setaffinity"
        raise TypeError(msg)
    _check_callable(fn)
    context = _start(
        fn,
        _checked_args(args),
        _checked_nprocs(nprocs),
        daemon=daemon,
        start_method=start_method,
        preload=preloading.checked(preload),
        timeout=_checked_timeout(timeout),
    )
    if not join:
        return context
    context.join_all()
    return None


def _start(
    fn: Callable[..., object],
    args: tuple[Any, ...],
    nprocs: int,
    *,
    daemon: bool,
    start_method: str | None,
    preload: str | tuple[str, ...],
    timeout: float | None,
) -> ProcessContext:
    settings.check()
    unjoined.reap()
    method = multiprocessing.get_context(start_method).get_start_method()
    backend, _ = backends.choose()
    launcher = launchers.choose(method, backend)
    if nprocs == 0:
        return ProcessContext([], [])
    guard = Guard(backend, nprocs)
    processes: list[RankProcess] = []
    try:
        paths = [report.path_in(guard.folder, rank) for rank in range(nprocs)]
        order = Order(
            fn,
            args,
            daemon=daemon,
            start_method=method,
            report_paths=paths,
            backend=backend,
            guard=guard,
            preload=preload,
        )
        served = start.launch(launcher, order, processes)
        context = ProcessContext._of_call(  # noqa: SLF001 - this is its one caller
            processes, paths, guard, timeout, fresh=served.fresh_interpreter
        )
    except BaseException:
        # Whole, also where a second interrupt follows.
        uninterrupted.do(partial(_undo, processes, guard))
        raise
    launchers.note_served(served)
    context.launcher, context.launcher_reason = served.name, served.reason
    _tell_launcher(served, method)
    return context


def _undo(processes: list[RankProcess], guard: Guard) -> None:
    try:
        start.abandon(processes)
    finally:
        guard.close()


def _check_callable(fn: object) -> None:
    if not callable(fn):
        msg = f"fn must be callable, as each rank calls fn(rank, *args); got {fn!r}"
        raise TypeError(msg)


def _checked_args(args: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(args)
    except TypeError:
        if hasattr(type(args), "__iter__"):
            raise  # it can be iterated: the error is of its own
        msg = (
            f"args must be an iterable of what follows the rank, as each rank calls fn(rank, *args); "
            f"got {type(args).__name__}: did you mean args=({_short(args)},)?"
        )
        raise TypeError(msg) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else type(value).__name__.lower()


def _checked_nprocs(nprocs: SupportsIndex) -> int:
    try:
        return max(0, operator.index(nprocs))
    except TypeError:
        msg = f"nprocs must be an integer, the number of ranks; got {nprocs!r}"
        raise TypeError(msg) from None


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return settings.TIMEOUT.read()
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        seconds = -1
    if not seconds >= 0:
        msg = f"timeout must be seconds, 0 or more, or None; got {timeout!r}"
        raise TypeError(msg)
    return seconds


def _tell_launcher(served: Served, method: str) -> None:
    """Say at DEBUG which launcher has served; nobody listens where logging was never imported.

    Where a handler that raises can't come between: ranks run by now, and logging's lock, which each fork takes, would
    be held for ever by who was interrupted right after taking it.
    """
    logging = sys.modules.get("logging")
    if logging is None or logging.root.manager.disable >= logging.DEBUG:
        return
    logger = logging.root.manager.loggerDict.get("spawnx", logging.root)
    if logger.getEffectiveLevel() <= logging.DEBUG:  # these two take no lock
        text = "start_method=%s was served by launcher %s: %s"
        told = method, served.name, served.reason
        uninterrupted.do(lambda: logging.getLogger("spawnx").debug(text, *told))


def _wrap(fn: Callable[..., object], i: int, args: Iterable[Any], error_file: str) -> None:
    """Run one rank in a Process of the caller's own making, for a `ProcessContext` made by hand.

    As the reference's: SIGINT follows the end of the parent, and what `fn` raises is reported in `error_file`. Unlike
    there, KeyboardInterrupt is raised on: it is no success.
    """
    with standard_library():
        from spawnx.ipc import scoreboard
        from spawnx.remote import rank

    rank.arm_or_leave(backends.choose()[0], rank.SIGINT, os.getppid())
    try:
        fn(i, *args)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        rank.report_or_print(error_file, scoreboard.RUN, error, rank.users_part(error.__traceback__))
        sys.exit(1)

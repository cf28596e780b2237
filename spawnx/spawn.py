"""`spawn` and `start_processes`: the reference's functions (torch 2.13). This module exports all its public names."""

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

    If a rank fails, spawnx ends the others and raises the failure, with the rank's traceback if it raised.

    Args:
        fn: the function that each rank calls. Define it at the top level of a module, so that it can be pickled.
        args: the arguments after the rank; any iterable.
        nprocs: the number of ranks; a negative one counts as 0.
        join: whether to wait for all ranks.
        daemon: the ranks' daemon flag. Daemonic ranks are terminated when the supervisor exits, and have no children.
        start_method: deprecated, always "spawn"; for other start methods use `start_processes`.
        preload: see `start_processes`.
        timeout: how long the call may take in all, in seconds. None is the value of `SPAWNX_TIMEOUT`; without one, no
            limit.

    Returns:
        None if `join`, else the `ProcessContext`.

    Raises:
        ProcessRaisedException: a rank raised.
        ProcessExitedException: a rank ended by a signal or with an exit code other than 0.
        ProcessTimeoutError: the ranks did not end in time. It has the stacks of the ranks that were still alive.
        TypeError, ValueError: an argument or a setting is invalid, or can't be pickled. No rank was started.
        OSError: a rank could not be started. No rank is left.
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
        fn: the function that each rank calls.
        args: the arguments after the rank; any iterable.
        nprocs: the number of ranks; a negative one counts as 0.
        join: whether to wait for all ranks.
        daemon: the ranks' daemon flag.
        start_method: "spawn", "fork" or "forkserver", where the platform has it; None is multiprocessing's default.
        numa_options: must be None. It exists because torch's callers of 2025 pass it.
        preload: the modules to import once, before ranks are cloned ("spawn" and "forkserver" on Linux), instead of
            once in each rank. Pass their names, or `()` for none; "__main__" imports the main module, as `__mp_main__`.
            "auto" is the value of `SPAWNX_PRELOAD`. If that is "auto" or unset, the modules are: torch and numpy, if
            this process has imported them; the modules of the standard library that the main module and the module of
            `fn` use; and the names given to `spawnx.preload` and `multiprocessing.set_forkserver_preload`. torch, numpy
            and the standard library's modules count only if these two modules import them before they do anything that
            might change the import. A module that raises, starts threads or opens files when it is imported is not
            preloaded, and spawnx logs a warning. If you name a module, all ranks share the state that it has after its
            import, such as random state. Make sure that this is right for it. State that the module renews by
            `os.register_at_fork` or `pthread_atfork` is not shared.
        timeout: see `spawn`. It counts from this call; with `join=False`, the context's `join` enforces it.

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
        # Runs to its end even if a second interrupt follows.
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
            raise  # `args` is iterable: its own __iter__ has raised
        msg = (
            f"args must be an iterable of the arguments after the rank, as each rank calls fn(rank, *args); "
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
    """Log at DEBUG which launcher has served. If logging was never imported, there is nobody to log to.

    `uninterrupted.do` logs, as the ranks already run. Otherwise a signal handler might raise right after logging has
    taken its lock. The lock would then be held for ever, and each fork takes it.
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
    """Run one rank in a Process that the caller has made, for a `ProcessContext` made by hand.

    As in the reference, the kernel sends SIGINT when the parent ends, and an exception of `fn` is reported in
    `error_file`. Unlike in the reference, KeyboardInterrupt is re-raised, as it is no success.
    """
    with standard_library():
        from spawnx.ipc import scoreboard
        from spawnx.remote import rank

    rank.arm_or_leave(backends.choose()[0], rank.SIGINT, os.getppid())
    try:
        fn(i, *args)
    except Exception as error:  # noqa: BLE001 - every exception is reported
        rank.report_or_print(error_file, scoreboard.RUN, error, rank.users_part(error.__traceback__))
        sys.exit(1)

"""The launchers, ways to bring ranks into being: one interface, and the one place that chooses."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from functools import partial

from spawnx import settings, uninterrupted
from spawnx.fd_room import streams_taken
from spawnx.remote.rank import GUARDIAN, SIGINT, SIGKILL
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from spawnx.backends.contract import Backend
    from spawnx.guard import Guard
    from spawnx.process import RankProcess
else:
    Protocol = object


# Seconds that a rank may take to end after SIGKILL before it is left to the system (state D: it can't be helped).
_KILLED_WITHIN = 30


class Order:
    """What one call asks for.

    Attributes:
        fn, args, daemon, start_method: as in `start_processes`, checked; the method is one of multiprocessing's.
        report_paths: one for each rank.
        backend: by which ranks arm themselves and are held.
        guard: what stands behind the ranks.
        preload: what a template imports before it is cloned; "auto", or names of modules.
    """

    __slots__ = ("args", "backend", "daemon", "fn", "guard", "preload", "report_paths", "start_method")

    def __init__(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        daemon: bool,
        start_method: str,
        report_paths: Sequence[str],
        backend: Backend,
        guard: Guard,
        preload: str | tuple[str, ...] = (),
    ) -> None:
        self.fn = fn
        self.args = args
        self.daemon = daemon
        self.start_method = start_method
        self.report_paths = report_paths
        self.backend = backend
        self.guard = guard
        self.preload = preload

    @property
    def first_death_signal(self) -> int:
        """What a rank gets if the supervisor ends before the guardian holds it."""
        return SIGKILL if self.guard.kind == GUARDIAN else SIGINT


class Launcher(Protocol):
    """One way to bring ranks into being.

    Attributes:
        name: which one; after `start`, the one that has served.
        reason: why that one.
    """

    name: str
    reason: str

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> None:
        """Start all ranks, each of which waits at the gate, if the call has one, before it comes to user code.

        When it raises, those that were started are known by their `pid`, and the first that has none is the one
        that could not be started. Whoever called ends them.
        """


# Name and reason of the launcher that has served the last call of this process.
_served: tuple[str, str] | None = None


def note_served(launcher: Launcher) -> tuple[str, str]:
    """Note which launcher has made the ranks of a call; its name and reason."""
    global _served  # noqa: PLW0603 - one per process
    _served = launcher.name, launcher.reason
    return _served


def served() -> tuple[str, str]:
    """Name and reason of the launcher of the last call; before the first, of the one that `spawn` would take.

    Raises:
        ValueError, RuntimeError: there was no call, and a setting has no meaning here.
    """
    if _served is not None:
        return _served
    with standard_library():
        from spawnx import backends

    launcher = choose("spawn", backends.choose()[0])
    return launcher.name, launcher.reason


def choose(start_method: str, backend: Backend) -> Launcher:
    """The launcher for a start method.

    Raises:
        ValueError: `SPAWNX_LAUNCHER` has no meaning.
    """
    launcher, reason = _chosen(start_method, backend)
    launcher.reason = reason
    return launcher


def _chosen(start_method: str, backend: Backend) -> tuple[Launcher, str]:
    """The launcher for a start method, and why it is that one."""
    with standard_library():
        from spawnx.launchers import stdlib

    wanted = settings.LAUNCHER.read()
    told = f"{settings.LAUNCHER.name}={wanted}"
    clones = wanted != "exec" and backend.name == "native"
    if why := told if wanted == "stdlib" else _why_stdlib(start_method, backend, clones=clones):
        return stdlib.StdlibLauncher(), why
    if start_method == "fork":
        with standard_library():
            from spawnx.launchers import fork

        return fork.ForkLauncher(), "pidfds hold forked ranks"
    if start_method == "forkserver":
        with standard_library():
            from spawnx.launchers import forkserver

        return forkserver.ForkserverLauncher(), "the C core clones a kept interpreter"
    if not clones:
        with standard_library():
            from spawnx.launchers import exec as exec_

        return exec_.ExecLauncher(), told if wanted == "exec" else "pidfds hold fresh interpreters"
    with standard_library():
        from spawnx.launchers import clone

    return clone.CloneLauncher(), "the C core clones one fresh interpreter"


def _why_stdlib(start_method: str, backend: Backend, *, clones: bool) -> str | None:
    """Why ranks of a start method are left to multiprocessing, or None if they aren't."""
    fresh = start_method != "fork"
    reasons = {
        "no pidfds here": not backend.has_pidfd(),
        "without clones, the forkserver is multiprocessing's": start_method == "forkserver" and not clones,
        "no memfd here": fresh and not hasattr(os, "memfd_create"),
        "a frozen program has an interpreter of its own": fresh and getattr(sys, "frozen", False),
        "a debugger patches how multiprocessing starts processes": fresh and "pydevd" in sys.modules,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def launch(launcher: Launcher, order: Order, ranks: list[RankProcess]) -> None:
    """Start every rank of `order`, or none.

    Args:
        launcher: by which.
        order: what is asked for.
        ranks: an empty list, to which they are added before any is started: the caller abandons them if an interrupt
            comes when all are there.

    Raises:
        OSError: a rank could not be started: the text names the rank, and the limit to raise; the errno is the
            system's. Whatever is raised, no rank is left.
    """
    with standard_library():
        from spawnx import mp_private
        from spawnx.process import RankProcess

    context = multiprocessing.get_context(order.start_method)
    ranks += [RankProcess(context, i, path, daemon=order.daemon) for i, path in enumerate(order.report_paths)]
    for rank in ranks:
        rank.guard = order.guard
    if order.start_method != "fork":
        mp_private.complete_main_module()
    # A forked rank would have what is taken: it is a copy of this process as it is.
    fds = contextlib.nullcontext() if order.start_method == "fork" else streams_taken()
    try:
        with fds:
            launcher.start(order, ranks)
    except BaseException as error:
        number, started = len(ranks), len([rank for rank in ranks if rank.pid is not None])
        uninterrupted.do(partial(abandon, ranks))  # whole, also where a second interrupt follows
        if isinstance(error, OSError) and error.errno is not None and started < number:
            # A template that can't make one ends those before it.
            raise _explained(error, getattr(error, "rank", started), number) from error
        raise


def abandon(ranks: list[RankProcess]) -> None:
    """End and reap ranks that nobody will ever join; the list is empty then."""
    started = [rank for rank in ranks if rank.pid is not None]
    for rank in started:
        rank.kill()
    for rank in started:
        rank.join(_KILLED_WITHIN)
        if not rank.is_alive():
            rank.close()
    ranks.clear()


def _explained(error: OSError, rank: int, nprocs: int) -> OSError:
    named = f": {error.filename!r}" if error.filename else ""
    text = f"rank {rank} of {nprocs} could not be started: {error.strerror}{named}"
    limit = _limit(error.errno or 0)
    return OSError(error.errno, f"{text}; {limit}" if limit else text)


def _limit(errno_: int) -> str:
    """Which limit an errno speaks of, with its present value, and where to raise it."""
    import errno

    if sys.platform == "win32":
        return ""
    with standard_library():
        import resource

    if errno_ == errno.EAGAIN:
        with standard_library():
            from spawnx import cgroup

        soft, room = resource.getrlimit(resource.RLIMIT_NPROC)[0], cgroup.room_for_processes()
        most = f" (pids.max, now {room[1]})" if room else ""
        return f"too many processes: raise RLIMIT_NPROC (`ulimit -u`, now {soft}) or the container's pids limit{most}"
    if errno_ == errno.EMFILE:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files: raise RLIMIT_NOFILE (`ulimit -n`, now {soft})"
    return {
        errno.ENFILE: "too many open files in the whole system: raise the sysctl fs.file-max",
        errno.ENOMEM: "too little memory: free some, start fewer ranks, or see the sysctl vm.overcommit_memory",
    }.get(errno_, "")

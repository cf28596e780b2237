"""Start all ranks of a call, or none."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from functools import partial

from spawnx import clock, uninterrupted
from spawnx.fd_room import streams_taken
from spawnx.orphans import KILLED_WITHIN
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.launchers.contract import Launcher, Order, Served
    from spawnx.process import RankProcess


def launch(launcher: Launcher, order: Order, ranks: list[RankProcess]) -> Served:
    """Start every rank of `order`, or none. Returns the launcher that has started them.

    Args:
        launcher: the launcher that was chosen for the call.
        order: the parameters of the call.
        ranks: an empty list. All ranks are added to it before any is started. If an interrupt comes after all have
            been started, the caller abandons them.

    Raises:
        OSError: a rank could not be started. The text names the rank, and the limit to raise. The errno is the
            system's.

    Whatever is raised, no rank is left.
    """
    with standard_library():
        from spawnx.mp import interpreter
        from spawnx.process import RankProcess

    context = multiprocessing.get_context(order.start_method)
    ranks += [RankProcess(context, i, path, daemon=order.daemon) for i, path in enumerate(order.report_paths)]
    for rank in ranks:
        rank.supervision.owner = order.guard
    if not launcher.copies_caller:
        interpreter.complete_main_module()
    # A rank that is a copy of this process would inherit the fds that `streams_taken` holds open.
    fds = contextlib.nullcontext() if launcher.copies_caller else streams_taken()
    try:
        with fds:
            return launcher.start(order, ranks)
    except BaseException as error:
        number, started = len(ranks), len([rank for rank in ranks if rank.pid is not None])
        uninterrupted.do(partial(abandon, ranks))  # a second interrupt doesn't cut it short
        if isinstance(error, OSError) and error.errno is not None and started < number:
            # `error.rank`: a template that can't fork a rank ends the ranks before it, so `started` is 0.
            raise _explained(error, getattr(error, "rank", started), number) from error
        raise


def abandon(ranks: list[RankProcess]) -> None:
    """Kill and reap ranks that no caller will ever join. Empties the list."""
    started = [rank for rank in ranks if rank.pid is not None]
    for rank in started:
        rank.kill()
    deadline = clock.monotonic() + KILLED_WITHIN  # of all: this can't be interrupted
    for rank in started:
        rank.join(max(0.0, deadline - clock.monotonic()))
        if not rank.is_alive():
            rank.close()
    ranks.clear()


def _explained(error: OSError, rank: int, nprocs: int) -> OSError:
    named = f": {error.filename!r}" if error.filename else ""
    text = f"rank {rank} of {nprocs} could not be started: {error.strerror}{named}"
    limit = _limit(error.errno or 0)
    return OSError(error.errno, f"{text}; {limit}" if limit else text)


def _limit(errno_: int) -> str:
    """Return which limit an errno stands for, its present value, and how to raise it; "" if it stands for none."""
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

"""A template: a fresh interpreter that is cloned into the ranks of one call.

To clone is to fork, by libc's own function; the supervisor adopts the ranks: see `remote.adoption`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import importlib
import os
import pickle
import signal
import sys
from functools import partial

from spawnx import settings
from spawnx.ipc import pid_table as tables
from spawnx.ipc.ends import Ends
from spawnx.mp import boot
from spawnx.remote import adoption, startup
from spawnx.remote import preload as preloading
from spawnx.remote import rank as remote
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Place = tuple[int, str, tuple[int, ...], str]

# What every rank imports on its way to the main module and to its end.
OF_EVERY_RANK = ("pkgutil", "runpy", "spawnx.ipc.gate", "spawnx.ipc.report")


class _HasStartupCode(Exception):  # noqa: N818 - no error, but a reason to go another way
    """What ran in this interpreter before us is to run in each rank."""


def _check_startup(code: str) -> None:
    """See that start-up code is only here where the user wants it to run once for all ranks."""
    if code and settings.LAUNCHER.read() != "clone":
        raise _HasStartupCode(code)


def main(
    message: int,
    *,
    size: int,
    place_size: int,
    ranks: int,
    table: int,
    channel: int,
    parent: int,
    tracker: int,
    ends: tuple[int, int, int],
    mask: list[int],
    preload: tuple[str, ...],
    known: tuple[str, ...],
    start_method: str,
    keep: tuple[int, ...],
    supervisor: int = -1,
) -> Callable[[], None]:
    """Be a template. Returns in the clones only, with what each is to do next: with no frame of the template's left.

    Args:
        message: the fd of the message, and of the places that follow it.
        size: the length of the message in bytes.
        place_size: that of each place.
        ranks: how many clones to make.
        table: the fd of the table.
        channel: the fd of a connection to the supervisor, see `remote.adoption`.
        parent: the supervisor's pid.
        tracker: the fd of the supervisor's resource tracker.
        ends: the fds of `Ends`.
        mask: the signals that are blocked in the ranks; here all are.
        preload: the modules that are imported before.
        known: those of them that are the standard library's or vetted, see `remote.preload`.
        start_method: by which ranks are to end.
        keep: the fds that were handed over.
        supervisor: a pidfd of the supervisor; -1: that is our parent.
    """
    opened, names = startup.opened_beside(keep), list(sys.modules)  # before anything is opened, or read, here
    shared = tables.Table(table, ranks)
    os.close(table)
    try:
        with standard_library():
            preparation = boot.Preparation(os.pread(message, size, 0))
            for name in OF_EVERY_RANK:
                importlib.import_module(name)
        boot.use_path(preparation.path)
        with standard_library():
            from spawnx.remote.exit import FastExit  # it needs cffi, which may be found on that path only

        # By spawn, start-up code runs in each rank. By forkserver it runs once, as in multiprocessing's.
        startup_code = startup.find_unknown(opened, names) if start_method == "spawn" else ""
        _check_startup(startup_code)
        boot.use_resource_tracker(tracker)  # else a module that makes a semaphore starts another one
        preparation.prepare_clones()
        if preload:
            preloading.preload(preload, preparation.import_main, known)
        fast_exit = (
            None if start_method == "forkserver" else FastExit(preload, startup_code=bool(startup_code))
        )
        supervisor = pidfd_of_parent(parent) if supervisor < 0 else supervisor
        position, unadopted = _clone(shared, ranks, channel, supervisor)
    except (preloading.GivenUp, _HasStartupCode) as error:
        has_code = isinstance(error, _HasStartupCode)
        shared.write(tables.HAS_STARTUP_CODE if has_code else tables.GAVE_UP_PRELOAD)
        shared.explain(str(error))
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - told; the call goes on by other means
        shared.explain(f"{type(error).__name__}: {error}")
        os._exit(1)
    shared.close()
    if preload:
        preloading.renew()
    at = size + place_size * position
    place: Place = pickle.loads(os.pread(message, place_size, at))  # noqa: S301 - from our supervisor
    os.close(message)
    # Not signal.pthread_sigmask: it would make enums of all signals, 0.1 ms in each of a thousand ranks.
    _signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def be_rank() -> int:
        enter = partial(unadopted.pass_gate, ends[2], parent)
        return remote.run_rank(preparation, place, parent, enter, Ends(*ends))

    def run() -> None:
        if fast_exit is None:
            boot.run_as_forkservers(be_rank)
        else:
            fast_exit.start()
            fast_exit.leave(be_rank())

    return run


def pidfd_of_parent(pid: int) -> int:
    """A pidfd of the supervisor, which must be our parent: then its number is nobody else's."""
    pidfd = os.pidfd_open(pid) if os.getppid() == pid else -1
    if (parent := os.getppid()) != pid:
        # 0: the supervisor is in an outer pid namespace, where the pids that are seen here are other processes'. And
        # what ends as the first process of a namespace takes all others with it.
        raise ProcessLookupError(f"the supervisor is seen as {parent}, not as {pid}")
    return pidfd


def _clone(shared: tables.Table, ranks: int, channel: int, supervisor: int) -> tuple[int, adoption.Unadopted]:
    """Clone this process; see `adoption.fork_ranks`."""
    with standard_library():
        from spawnx.backends import native

    # Whatever is buffered would be written by each clone.
    boot.flush_streams()
    native.get_ready_to_fork()
    # A collection in a rank touches, and so copies, every page that has an object: 40 MB with torch, 2 without.
    gc.collect()
    gc.freeze()
    with boot.preserving_resource_tracker():
        return adoption.fork_ranks(native.NativeBackend(), shared, ranks, channel, supervisor)

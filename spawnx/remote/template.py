"""The template: a fresh interpreter, or a fork of the zygote, that is cloned into the ranks of one call.

A clone is a fork by libc's own function. The supervisor adopts the ranks: see `remote.adoption`.
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

# The modules that every rank imports before its main module and before its end.
OF_EVERY_RANK = ("pkgutil", "runpy", "spawnx.ipc.gate", "spawnx.ipc.report")


class _HasStartupCode(Exception):  # noqa: N818 - no error, but a reason to go another way
    """The start-up code of this interpreter must run in each rank."""


def _check_startup(code: str) -> None:
    """Raise if there is start-up code, unless the user wants it to run once for all ranks."""
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
    """Run the template. Returns only in the clones, with the function that each calls when no template frame is left.

    Args:
        message: the fd of the message, and of the places that follow it.
        size: the length of the message in bytes.
        place_size: the length of each place in bytes.
        ranks: the number of clones to make.
        table: the fd of the table.
        channel: the fd of a connection to the supervisor, see `remote.adoption`.
        parent: the supervisor's pid.
        tracker: the fd of the supervisor's resource tracker.
        ends: the fds of `Ends`.
        mask: the signals to block in the ranks; the template blocks all.
        preload: the modules to import before the clones are made.
        known: the preloaded modules that are the standard library's or vetted, see `remote.preload`.
        start_method: the start method; it determines how ranks end.
        keep: the fds that were handed over.
        supervisor: a pidfd of the supervisor; -1: the supervisor is our parent.
    """
    opened, names = startup.opened_beside(keep), list(sys.modules)  # before we open or import anything
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

        # With spawn, start-up code runs in each rank. With forkserver it runs once, as in multiprocessing's.
        startup_code = startup.find_unknown(opened, names) if start_method == "spawn" else ""
        _check_startup(startup_code)
        boot.use_resource_tracker(tracker)  # else a module that makes a semaphore starts another tracker
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
    except BaseException as error:  # noqa: BLE001 - noted in the table; the call goes on by exec
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
    """Open a pidfd of the supervisor, which must be our parent: then its pid can't be another process's.

    Raises:
        ProcessLookupError: the supervisor is not our parent.
    """
    pidfd = os.pidfd_open(pid) if os.getppid() == pid else -1
    if (parent := os.getppid()) != pid:
        # 0: the supervisor is in an outer pid namespace, where our pids mean other processes. And if the first process
        # of a pid namespace ends, the kernel kills all others in it.
        raise ProcessLookupError(f"the supervisor is seen as {parent}, not as {pid}")
    return pidfd


def _clone(shared: tables.Table, ranks: int, channel: int, supervisor: int) -> tuple[int, adoption.Unadopted]:
    """Clone this process; see `adoption.fork_ranks`."""
    with standard_library():
        from spawnx.backends import native

    # Else each clone would write the buffered text.
    boot.flush_streams()
    native.get_ready_to_fork()
    # A collection in a rank touches, and so copies, every page that has an object: 40 MB with torch, 2 without.
    gc.collect()
    gc.freeze()
    with boot.preserving_resource_tracker():
        return adoption.fork_ranks(native.NativeBackend(), shared, ranks, channel, supervisor)

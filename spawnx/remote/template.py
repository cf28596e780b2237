"""A template: a fresh interpreter that is cloned into the ranks of one call.

The clones are its siblings, children of the supervisor (csrc/clone.c). What it found out stands in a table in shared
memory, in which the supervisor reads as soon as the template has ended: there is no conversation that could break off.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import importlib
import mmap
import os
import pickle
import signal
import struct
import sys
import threading

from spawnx import mp_private, settings
from spawnx.remote import preload as preloading
from spawnx.remote import rank as remote
from spawnx.remote import startup
from spawnx.remote.ends import Ends
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Place = tuple[int, str, tuple[int, ...], str]

# How far a template has come.
BOOTING = 0
CLONING = 1
CLONED = 2
GAVE_UP_PRELOAD = 3
HAS_STARTUP_CODE = 4

# What every rank imports on its way to the main module and to its end.
OF_EVERY_RANK = ("pkgutil", "runpy", "spawnx.remote.gate", "spawnx.remote.report")

_HEAD = struct.Struct("iiQ")
_PID = struct.Struct("i")
_REASON = 1024


class Table:
    """What template and supervisor share: how far it has come, the errno of what failed, signals, pids, a reason.

    Args:
        file: the fd of memory of `size_of(ranks)` bytes; it stays the caller's.
        ranks: how many pids there are.
    """

    def __init__(self, file: int, ranks: int) -> None:
        self._ranks = ranks
        self.memory = mmap.mmap(file, size_of(ranks))

    @property
    def state(self) -> int:
        """`BOOTING`, `CLONING`, `CLONED`, `GAVE_UP_PRELOAD` or `HAS_STARTUP_CODE`."""
        state: int = _HEAD.unpack_from(self.memory)[0]
        return state

    @property
    def errno(self) -> int:
        """Why a clone could not be made; 0 if that is not what happened."""
        number: int = _HEAD.unpack_from(self.memory)[1]
        return number

    @property
    def pending(self) -> list[int]:
        """The signals that the template was sent and didn't take, as it blocks all of them."""
        return signals_of(_HEAD.unpack_from(self.memory)[2])

    @property
    def pids(self) -> list[int]:
        """The pids of the clones, up to the first that is missing."""
        end = self.pids_at + self._ranks * _PID.size
        pids: list[int] = [pid for (pid,) in _PID.iter_unpack(self.memory[self.pids_at : end])]
        return pids[: pids.index(0)] if 0 in pids else pids

    @property
    def pids_at(self) -> int:
        """Where the pids begin, in bytes."""
        return _HEAD.size

    @property
    def reason(self) -> str:
        """What the template said when it gave up; "" if it said nothing."""
        text: bytes = self.memory[size_of(self._ranks) - _REASON :]
        return text.rstrip(b"\0").decode(errors="replace")

    def write(self, state: int, errno: int = 0) -> None:
        """Say how far the template has come, and which signals it has been sent until now."""
        _HEAD.pack_into(self.memory, 0, state, errno, pending_signals())

    def explain(self, reason: str) -> None:
        """Say why it can't go on."""
        text = reason.encode(errors="replace")[:_REASON]
        start = size_of(self._ranks) - _REASON
        self.memory[start : start + len(text)] = text

    def close(self) -> None:
        """Release the memory."""
        self.memory.close()


def pending_signals() -> int:
    """The signals that wait to be taken in this process, as a mask: bit 0 is signal 1."""
    try:
        pending = _signal.sigpending()
    except OSError:  # a sandbox forbids to ask
        return 0
    mask: int = sum(1 << (signum - 1) for signum in pending)
    return mask


def signals_of(mask: int) -> list[int]:
    """The signals in a mask."""
    return [signum for signum in range(1, 65) if mask >> (signum - 1) & 1]


def size_of(ranks: int) -> int:
    """How many bytes a table for so many ranks takes."""
    return _HEAD.size + ranks * _PID.size + _REASON


class _HasStartupCode(Exception):  # noqa: N818 - no error, but a reason to go another way
    """What ran in this interpreter before us is to run in each rank."""


def _check_startup(code: str) -> None:
    """See that start-up code is only here where the user wants it to run once for all ranks."""
    if code and settings.LAUNCHER.read() != "clone":
        raise _HasStartupCode(code)


def main(
    order: int,
    *,
    size: int,
    place_size: int,
    ranks: int,
    table: int,
    guarded: bool,
    parent: int,
    tracker: int,
    ends: tuple[int, int, int],
    mask: list[int],
    preload: tuple[str, ...],
    known: tuple[str, ...],
    start_method: str,
    keep: tuple[int, ...],
) -> Callable[[], None]:
    """Be a template. Returns in the clones only, with what each is to do next: with no frame of the template's left.

    Args:
        order: the fd of the message, and of the places that follow it.
        size: the length of the message in bytes.
        place_size: that of each place.
        ranks: how many clones to make.
        table: the fd of the table.
        guarded: whether there is a gate to wait at.
        parent: the supervisor's pid.
        tracker: the fd of the supervisor's resource tracker.
        ends: the fds of `Ends`.
        mask: the signals that are blocked in the ranks; here all are.
        preload: the modules that are imported before.
        known: those of them that are the standard library's or vetted, see `remote.preload`.
        start_method: by which ranks are to end.
        keep: the fds that were handed over.
    """
    opened, names = startup.opened_beside(keep), list(sys.modules)  # before anything is opened, or read, here
    shared = Table(table, ranks)
    os.close(table)
    try:
        with standard_library():
            message = mp_private.Message(os.pread(order, size, 0))
            for name in OF_EVERY_RANK:
                importlib.import_module(name)
        mp_private.use_path(message.path)
        with standard_library():
            from spawnx.remote import leave as leaving  # it needs cffi, which may be found on that path only

        # By spawn, start-up code runs in each rank. By forkserver it runs once, as in multiprocessing's.
        startup_code = startup.find_unknown(opened, names) if start_method == "spawn" else ""
        _check_startup(startup_code)
        mp_private.use_resource_tracker(tracker)  # else a module that makes a semaphore starts another one
        message.prepare_clones()
        if preload:
            preloading.preload(preload, message.import_main, known)
        ending = (
            None if start_method == "forkserver" else leaving.Ending(preload, startup_code=bool(startup_code))
        )
        position = _clone(shared, ranks, parent, guarded=guarded)
    except (preloading.GivenUp, _HasStartupCode) as error:
        shared.write(HAS_STARTUP_CODE if isinstance(error, _HasStartupCode) else GAVE_UP_PRELOAD)
        shared.explain(str(error))
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - told; the call goes on by other means
        shared.explain(f"{type(error).__name__}: {error}")
        os._exit(1)
    if position == 0:
        os._exit(0)
    shared.close()
    if preload:
        preloading.renew()
    at = size + place_size * (position - 1)
    place: Place = pickle.loads(os.pread(order, place_size, at))  # noqa: S301 - from our supervisor
    os.close(order)
    # Not signal.pthread_sigmask: it would make enums of all signals, 0.1 ms in each of a thousand ranks.
    _signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def be_rank() -> int:
        return remote.be(message, place, parent, "native" if guarded else None, Ends(*ends))

    def run() -> None:
        if ending is None:
            mp_private.run_as_forkservers(be_rank)
        else:
            ending.begin()
            ending.leave(be_rank())

    return run


def _clone(table: Table, ranks: int, parent: int, *, guarded: bool) -> int:
    """Make the clones: 0 in the template, the position plus 1 in each of them."""
    with standard_library():
        from spawnx.backends import native

    if os.getppid() != parent:
        # 0: the supervisor is in an outer pid namespace, where the pids that are seen here are other processes'.
        raise ProcessLookupError(f"the supervisor is seen as {os.getppid()}, not as {parent}")
    # Whatever is buffered would be written by each clone.
    mp_private.flush_streams()
    # A collection in a rank touches, and so copies, every page that has an object: 40 MB with torch, 2 without.
    gc.collect()
    gc.freeze()
    sys.audit("os.fork")
    table.write(CLONING)
    signum = remote.SIGKILL if guarded else remote.SIGINT
    try:
        with mp_private.preserving_resource_tracker():
            position = native.clone_siblings(table.memory, table.pids_at, ranks, parent, signum)
    except OSError as error:
        # Nothing was cloned, and nothing will: the other way is open. Or a clone failed: then the call has.
        table.write(CLONING if table.pids else BOOTING, error.errno or 0)
        raise
    if position == 0:
        table.write(CLONED)
    else:
        # The kernel's number of the main thread, which Python reads once (threading.get_native_id).
        threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # noqa: SLF001
    return position

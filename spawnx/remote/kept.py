"""The kept template: a fresh interpreter that is cloned into the template of each call.

It runs nothing of the user's but the modules that it was told to import, and what a call asks for is done in its clone:
so it is as fresh at the thousandth call as at the first, and does not grow.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import importlib
import mmap
import os
import pickle
import struct
import sys
import threading
from functools import partial

from spawnx import mp_private
from spawnx.remote import preload as preloading
from spawnx.remote import stale, surroundings, template, wire
from spawnx.remote.rank import SIGKILL
from spawnx.remote.withdraw import withdraw
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Next = Callable[[], object]

_ANSWER = struct.Struct("i")


def main(
    file: int,
    *,
    channel: int,
    board: int,
    parent: int,
    tracker: int,
    path: list[object],
    argv: list[str],
    preload: tuple[str, ...],
) -> Callable[[], Next]:
    """Be the kept template. Returns in its clones only, with what each is to do next, with no frame of this left.

    Args:
        file: the fd of the memory in which these arguments came.
        channel: the fd of a SOCK_SEQPACKET socket, whose other end is the supervisor's.
        board: the fd of shared memory, in which the kernel writes the pid of the latest clone.
        parent: the supervisor's pid.
        tracker: the fd of its resource tracker.
        path: its `sys.path`, as sent.
        argv: its `sys.argv`: a module may look at it when it is imported.
        preload: the modules that are imported before.
    """
    os.close(file)
    with standard_library():
        for name in template.OF_EVERY_RANK:
            importlib.import_module(name)
    mp_private.use_path(path)
    sys.argv[:] = argv
    with standard_library():
        from spawnx.backends import native

    socket = _socket.socket(fileno=channel)
    socket.settimeout(None)  # whatever `sitecustomize` has set for all
    memory = mmap.mmap(board, mmap.PAGESIZE)
    os.close(board)
    set_by_imports = _get_ready(socket, parent, tracker, preload)
    served = 0
    while fds := _receive(socket):
        errno = 0
        try:
            with mp_private.preserving_resource_tracker():
                is_clone = native.clone_siblings(memory, 0, 1, parent, SIGKILL)
            if is_clone:
                socket.close()
                memory.close()
                threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # noqa: SLF001
                return partial(_be_template, fds, set_by_imports)
        except OSError as error:
            errno = error.errno or 0
        for fd in fds:
            os.close(fd)
        socket.send(_ANSWER.pack(errno))
        served += 1
        if served == 1:
            # It takes some time, which the first call need not wait for, and one that has no second never sees.
            native.collapse()
    os._exit(0)


def _get_ready(
    socket: _socket.socket, parent: int, tracker: int, preload: tuple[str, ...]
) -> dict[bytes, bytes]:
    """Import, let go of what is the supervisor's, and say so; or say why not, and end.

    Returns:
        What the imports have set in the environment.
    """
    before = dict(os.environb)
    try:
        if os.getppid() != parent:
            # It would write pids that are others' there.
            raise OSError("the supervisor is in another pid namespace")  # noqa: TRY301
        mp_private.use_resource_tracker(tracker)  # else a module that makes a semaphore starts another one
        preloading.preload(preload, lambda: None, tuple(filter(preloading.is_vetted, preload)))
        mp_private.flush_streams()
        withdraw()
    except BaseException as error:  # noqa: BLE001 - told; the call goes on by other means
        word = wire.GAVE_UP if isinstance(error, preloading.GivenUp) else wire.FAILED
        socket.send(word + _pending() + str(error).encode(errors="replace")[: wire.MOST_TEXT])
        os._exit(0)
    gc.collect()
    gc.freeze()
    socket.send(wire.READY + _pending())
    return {name: value for name, value in os.environb.items() if before.get(name) != value}


def _pending() -> bytes:
    return template.pending_signals().to_bytes(wire.MASK, "little")


def _receive(socket: _socket.socket) -> list[int]:
    """The fds of the next errand, the first of which tells of it; none if the supervisor is gone."""
    fds: list[int] = []
    word = wire.MORE
    while word == wire.MORE:
        room = _socket.CMSG_SPACE(wire.MAX_SENT * _ANSWER.size)
        word, ancillary, _, _ = socket.recvmsg(1, room, _socket.MSG_CMSG_CLOEXEC)
        fds += [fd for _, _, data in ancillary for (fd,) in _ANSWER.iter_unpack(data)]
    return fds if word else []


def _be_template(fds: list[int], set_by_imports: dict[bytes, bytes]) -> Next:
    """Be the template of one call: have what the supervisor has now, and go on as a fresh interpreter would."""
    errand = pickle.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))  # noqa: S301 - from our supervisor
    os.close(fds[0])
    arguments, streams = errand["arguments"], errand["streams"]
    numbers = [fd for fd, opened in enumerate(streams) if opened] + errand["keep"]
    table = fds[1 + numbers.index(arguments["table"])]
    try:
        _place(fds[1:], numbers)
        table = arguments["table"]
        surroundings.assume_streams(streams, numbers)
        again = stale.explained()
        surroundings.assume(errand["surroundings"], set_by_imports)
        for renew in again:
            renew()
    except Exception as error:  # noqa: BLE001 - told; the call goes on by other means
        template.Table(table, arguments["ranks"]).explain(f"{type(error).__name__}: {error}")
        os._exit(1)
    return template.main(errand["order"], **arguments)


def _place(fds: list[int], numbers: list[int]) -> None:
    """Have fds under other numbers, inheritable, as an exec would leave them."""
    above = max(numbers) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)

"""The zygote: a fresh interpreter that is forked into the template of each call.

It runs no user code but the imports of its preload, and the work of a call is done in its fork. So it is as fresh at
the thousandth call as at the first, and does not grow.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import importlib
import os
import pickle
import signal
import struct
import sys
from functools import partial

from spawnx import vetted
from spawnx.backends.python import wait_readable
from spawnx.ipc import inherited, protocol
from spawnx.ipc import pid_table as table
from spawnx.mp import boot
from spawnx.remote import adoption, stale, template
from spawnx.remote import preload as preloading
from spawnx.remote.daemonize import daemonize
from spawnx.remote.rank import SIGKILL, arm_or_leave
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Next = Callable[[], object]

_INT = struct.Struct("i")


def main(
    file: int,
    *,
    channel: int,
    parent: int,
    tracker: int,
    path: list[object],
    argv: list[str],
    preload: tuple[str, ...],
) -> Callable[[], Next]:
    """Run the zygote. Returns only in its forks, with the function that each calls when no zygote frame is left.

    Args:
        file: the fd of the memory in which these arguments came.
        channel: the fd of a SOCK_SEQPACKET socket, whose other end is the supervisor's.
        parent: the supervisor's pid.
        tracker: the fd of the supervisor's resource tracker.
        path: the supervisor's `sys.path`, from `mp.interpreter.path_to_send`.
        argv: the supervisor's `sys.argv`: a module may read it when it is imported.
        preload: the modules to import before the first request.
    """
    os.close(file)
    with standard_library():
        for name in template.OF_EVERY_RANK:
            importlib.import_module(name)
    boot.use_path(path)
    sys.argv[:] = argv
    with standard_library():
        from spawnx.backends import native  # it needs cffi, which may be found on that path only

    socket = _socket.socket(fileno=channel)
    socket.settimeout(None)  # `sitecustomize` may have set a default timeout
    supervisor, set_by_imports = _get_ready(socket, parent, tracker, preload)
    templates = _Templates()
    served = 0
    while templates.wait_for(socket, supervisor) and (fds := _receive(socket)):
        if templates.fork(socket):
            return partial(_be_template, fds, set_by_imports, supervisor, ignored=templates.ignored)
        for fd in fds:
            os.close(fd)
        served += 1
        if served == 1:
            # After the first call, which need not wait for it. A program with a single call never waits for it.
            native.collapse()
    os._exit(0)


class _Templates:
    """The templates of calls, which are children of this process.

    Attributes:
        ignored: whether SIGCHLD was ignored, as it must be in the templates.
    """

    def __init__(self) -> None:
        self.ignored = adoption.keep_zombies()
        self._pids: dict[int, int] = {}

    def wait_for(self, socket: _socket.socket, supervisor: int) -> bool:
        """Wait for a request, and reap meanwhile; return whether the supervisor still lives."""
        while True:
            wait_readable([socket.fileno(), supervisor, *self._pids], None)
            self._reap()
            if wait_readable([supervisor], 0):
                return False
            if wait_readable([socket.fileno()], 0):
                return True

    def fork(self, socket: _socket.socket) -> bool:
        """Fork a template, and hand its pidfd over to the supervisor; return whether this process is the template."""
        with standard_library():
            from spawnx.backends import native

        zygote = os.getpid()
        try:
            with boot.preserving_resource_tracker():
                pid = os.fork()
            if pid == 0:
                # First of all: if the zygote dies, no process knows of its template. And the template needs the zygote
                # until its end: the supervisor is no ancestor of an orphan, and would not adopt its ranks.
                arm_or_leave(native.NativeBackend(), SIGKILL, zygote)
                socket.close()
                for pidfd in self._pids:
                    os.close(pidfd)
                return True
            pidfd = os.pidfd_open(pid)  # it is not reaped yet, so the pid is its own
        except OSError as error:
            socket.send(_INT.pack(error.errno or 0))
            return False
        self._pids[pidfd] = pid
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INT.pack(pidfd))]
        socket.sendmsg([_INT.pack(0)], rights)
        return False

    def _reap(self) -> None:
        for pidfd, pid in list(self._pids.items()):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                os.close(pidfd)
                del self._pids[pidfd]


def _get_ready(
    socket: _socket.socket, parent: int, tracker: int, preload: tuple[str, ...]
) -> tuple[int, dict[bytes, bytes]]:
    """Import the preload, detach from the supervisor, and send `READY`; or send the reason why not, and end.

    Returns:
        A pidfd of the supervisor, and what the imports have set in the environment.
    """
    before = dict(os.environb)
    try:
        with standard_library():
            from spawnx.backends import native
        supervisor = template.pidfd_of_parent(parent)
        boot.use_resource_tracker(tracker)  # else a module that makes a semaphore starts another tracker
        preloading.preload(preload, lambda: None, tuple(filter(vetted.is_vetted, preload)))
        boot.flush_streams()
        native.get_ready_to_fork()
        daemonize()
    except BaseException as error:  # noqa: BLE001 - sent to the supervisor; the call goes on without this one
        word = protocol.GAVE_UP if isinstance(error, preloading.GivenUp) else protocol.FAILED
        socket.send(word + _pending() + str(error).encode(errors="replace")[: protocol.MOST_TEXT])
        os._exit(0)
    gc.collect()
    gc.freeze()
    socket.send(protocol.READY + _pending())
    return supervisor, {name: value for name, value in os.environb.items() if before.get(name) != value}


def _pending() -> bytes:
    return table.pending_signals().to_bytes(protocol.MASK, "little")


def _receive(socket: _socket.socket) -> list[int]:
    """The fds of the next request; the first is the file of the request. Empty if the supervisor is gone."""
    fds: list[int] = []
    word = protocol.MORE
    while word == protocol.MORE:
        room = _socket.CMSG_SPACE(protocol.MAX_SENT * _INT.size)
        word, ancillary, _, _ = socket.recvmsg(1, room, _socket.MSG_CMSG_CLOEXEC)
        fds += [fd for _, _, data in ancillary for (fd,) in _INT.iter_unpack(data)]
    return fds if word else []


def _be_template(
    fds: list[int], set_by_imports: dict[bytes, bytes], supervisor: int, *, ignored: bool
) -> Next:
    """Become the template of one call: apply the supervisor's attributes, then go on as a fresh interpreter would."""
    request = pickle.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))  # noqa: S301 - from our supervisor
    os.close(fds[0])
    arguments, streams = request["arguments"], request["streams"]
    numbers = [fd for fd, opened in enumerate(streams) if opened] + request["keep"]
    pids = fds[1 + numbers.index(arguments["table"])]
    try:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        kept = _place(fds[1:], numbers, supervisor)
        pids = arguments["table"]
        inherited.apply_streams(streams, numbers)
        again = stale.explained()
        inherited.apply(request["inherited"], set_by_imports)
        for renew in again:
            renew()
    except Exception as error:  # noqa: BLE001 - noted in the table; the call goes on by exec
        table.Table(pids, arguments["ranks"]).explain(f"{type(error).__name__}: {error}")
        os._exit(1)
    return template.main(request["message"], supervisor=kept, **arguments)


def _place(fds: list[int], numbers: list[int], supervisor: int) -> int:
    """Move fds to `numbers`, inheritable, as an exec would leave them; return the new fd of `supervisor`."""
    above = max(numbers) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in (*fds, supervisor)]
    for fd in (*fds, supervisor):
        os.close(fd)
    kept = moved.pop()
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    return kept

"""Ranks cloned from a kept template: it has imported what is slow to import before the first call, once for all.

Each call has a template of its own, as by `clone`; here it is a clone of the kept one, not a fresh interpreter. See
`remote.kept`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import resource
import signal
import sys
import threading
from functools import partial

from spawnx import affinity, mp_private
from spawnx.backends.contract import FORBIDDEN, Program
from spawnx.backends.python import end_unheld, wait_readable
from spawnx.helper import Helper, told
from spawnx.launchers.clone import CloneLauncher
from spawnx.launchers.template import PERMANENT, CantServe, PreloadGivenUp
from spawnx.launchers.thread import inherited
from spawnx.payload import to_memory
from spawnx.remote import preload, surroundings, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers.template import Errand, Template
    from spawnx.launchers.thread import Job

# What is read when an interpreter starts, or when a module is imported that takes long: the beginnings of names.
_READ_EARLY = (
    b"PYTHON", b"LD_", b"GLIBC_", b"MALLOC_", b"LANG", b"LC_", b"TZ",
    b"OMP_", b"GOMP_", b"KMP_", b"MKL_", b"MKLDNN_", b"OPENBLAS_", b"GOTO_", b"BLIS_", b"NPY_", b"NUMPY_", b"NUMEXPR_",
    b"TORCH", b"PYTORCH_", b"ATEN_", b"DNNL_", b"ONEDNN_", b"CUDA_", b"NCCL_", b"GLOO_", b"HIP_", b"ROCR_",
)  # fmt: skip
# What of a process its children have and can't change, or not back (proc_pid_status(5)).
_STATUS = (b"Uid", b"Gid", b"Groups", b"SigIgn")


class ForkserverLauncher(CloneLauncher):
    """See `launchers.Launcher`. Linux, with pidfds and the C core.

    Attributes:
        name: "forkserver"; "exec" if no template could serve.
    """

    name = "forkserver"

    def _serve(self, template: Template, backend: Backend, modules: tuple[str, ...]) -> None:
        # The standard library's are quick to import, and differ from caller to caller, and the main module is the
        # user's: these are imported by the template of the call.
        slow = tuple(name for name in modules if not preload.is_of_stdlib(name) and name != "__main__")
        template.serve(lambda errand, job: _clone_kept(errand, job, backend, slow))


def _clone_kept(errand: Errand, job: Job, backend: Backend, modules: tuple[str, ...]) -> Helper | None:
    """Clone the kept template, or another one if that is gone or is no longer right; see `KeptTemplate.clone`.

    Raises:
        PreloadGivenUp: what it imported can't be cloned.
        CantServe: there is none, for another reason.
        OSError: it could not be cloned.
    """
    global _kept  # noqa: PLW0603 - one per process
    with _lock:
        like = _like(errand, modules)
        for _ in range(2):
            if job.cancelled:
                raise CantServe("the call was cancelled")
            if _kept is not None and _kept.like != like:
                _kept.close()
                _kept = None
            _kept = _kept or KeptTemplate(like, job, backend, modules, errand)
            try:
                return _kept.clone(errand)
            except BaseException as error:
                # Whatever it was, an errand may be half-way to it, and would be the next call's.
                _kept.close()
                _kept = None
                if not isinstance(error, ConnectionError):
                    raise
                # It has died: another one will do.
        raise CantServe("the kept template dies when it is asked to clone itself")


def stop() -> None:
    """End the kept template, if there is one. The next call makes another."""
    global _kept
    with _lock:
        kept, _kept = _kept, None
        if kept is not None:
            kept.close()


def _like(errand: Errand, modules: tuple[str, ...]) -> tuple[object, ...]:
    """What a kept template must have been started with to serve an errand.

    Raises:
        CantServe: it can't be told; there is no /proc.
    """
    argv = mp_private.interpreter_command("spawnx.remote.kept", "main")
    try:
        found = [modules, argv[: argv.index("-c")], *_unchangeable()]
    except OSError as error:
        raise CantServe(f"what a template would have to be like can't be told: {error}") from error
    if modules:  # libraries count the processors when they are loaded
        found.append(sorted(errand.affinity or ()))
    if not all(map(preload.is_vetted, modules)):  # which file a name stands for
        found.append(sys.path[:])
    return tuple(found)


def _unchangeable() -> list[object]:
    """What is read when an interpreter or a library starts, and what only a parent gives."""
    found: list[object] = [inherited(), os.getpgrp(), os.getsid(0), _open_streams()]
    found.append([resource.getrlimit(limit)[1] for limit in surroundings.LIMITS])
    found.append(resource.getrlimit(resource.RLIMIT_STACK))  # by libc, for the stacks of threads
    found.append(sorted((name, os.environb[name]) for name in os.environb if name.startswith(_READ_EARLY)))
    with open("/proc/self/status", "rb") as status:
        found.append([line for line in status if line.startswith(_STATUS)])
    for name in ("cgroup", "oom_score_adj", "attr/current"):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "rb") as file:
            found.append((name, file.read()))
    found.append(os.readlink("/proc/self/root"))
    return found


class KeptTemplate:
    """The kept template, as the supervisor sees it: a child of it, which ends with it.

    Args:
        like: what it was started with; see `_like`.
        job: of the launching thread, in which it is started; it ends if that is cancelled before it is ready.
        backend: by which it is started.
        modules: what it imports.
        errand: for which it is started: on whose processors, and with whose resource tracker.

    Raises:
        PreloadGivenUp: what it imported can't be cloned.
        CantServe: it could not be started, or it has ended.
    """

    def __init__(
        self, like: tuple[object, ...], job: Job, backend: Backend, modules: tuple[str, ...], errand: Errand
    ) -> None:
        import socket

        self.like = like
        self._backend = backend
        affinity.assume(errand.affinity)
        try:
            with contextlib.ExitStack() as opened:
                board = to_memory("spawnx-board", memoryview(bytes(mmap.PAGESIZE)))
                opened.callback(os.close, board)
                self._board = mmap.mmap(board, mmap.PAGESIZE)
                self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                opened.enter_context(theirs)
                self._helper = Helper.launch(backend, _program(theirs.fileno(), board, modules, errand))
        except OSError as error:
            raise CantServe(f"no template could be started: {error}") from error
        # Not its own method: it would never be collected.
        self._end = mp_private.close_late(self, partial(_end, self._channel, self._helper))
        self._wait_ready(job)

    def _wait_ready(self, job: Job) -> None:
        job.on_cancel = self._helper.kill
        if job.cancelled:
            self._helper.kill()
        try:
            word = self._hear(1 + wire.MOST_TEXT)
        except CantServe:
            self.close()
            raise
        finally:
            job.on_cancel = None
        if word == wire.READY:
            return
        code, reason = self.close(), word[1:].decode(errors="replace")
        if word.startswith(wire.GAVE_UP):
            raise PreloadGivenUp(reason)
        raise CantServe(reason or f"the kept template ended {told(code)}")

    def _hear(self, most: int) -> bytes:
        """What it says next; b"" if it has died.

        Not by the end of the channel alone: a process that another thread has forked just then may have the other one.
        """
        import socket

        wait_readable([self._channel.fileno(), self._helper.pidfd], None)
        try:
            return self._channel.recv(most, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionError):
            return b""
        except OSError as error:
            raise _unheard(error) from None

    def clone(self, errand: Errand) -> Helper | None:
        """Have it cloned into the template of a call; None if that has ended already, and somebody else has reaped it.

        Raises:
            ConnectionError: it has died.
            CantServe: the system never clones.
            OSError: it could not be cloned.
        """
        number = self._ask(errand)
        pid = int.from_bytes(self._board[:4], "little")
        self._board[:4] = bytes(4)
        if number is None:
            if pid:
                end_unheld(pid)  # it was made, and nobody could say so
            raise ConnectionResetError
        if number in PERMANENT:
            raise CantServe(os.strerror(number), for_good=True)
        if number:
            raise OSError(number, os.strerror(number))
        try:
            return Helper(self._backend, pid, self._backend.open_pidfd(pid))
        except ChildProcessError:
            return None

    def _ask(self, errand: Errand) -> int | None:
        """Send it an errand; the errno that it answers, or None if it has died."""
        streams = _open_streams()
        what = {
            "arguments": errand.arguments,
            "keep": errand.keep,
            "streams": streams,
            "surroundings": surroundings.present(errand.affinity),
        }
        file = to_memory("spawnx-errand", memoryview(pickle.dumps(what)))
        try:
            fds = [file, *(fd for fd in (0, 1, 2) if streams[fd]), *errand.keep]
            _send(self._channel, fds)
            answer = self._hear(4)
        except ConnectionError:
            answer = b""
        except OSError as error:
            raise _unheard(error) from None
        finally:
            os.close(file)
        return int.from_bytes(answer, "little") if answer else None

    def close(self) -> int:
        """Let it end, and reap it; its exit code."""
        self._board.close()  # it has an fd of its own
        code: int = self._end()
        return code

    def forget(self) -> None:
        """In a forked child: close what is open here, too."""
        self._board.close()
        self._channel.close()
        self._helper.close()


def _program(channel: int, board: int, modules: tuple[str, ...], errand: Errand) -> Program:
    tracker: int = errand.arguments["tracker"]  # type: ignore[assignment]
    argv = mp_private.interpreter_command(
        "spawnx.remote.kept",
        "main",
        channel=channel,
        board=board,
        parent=os.getpid(),
        tracker=tracker,
        preload=modules,
    )
    # What main() returns, and what that returns, is called when none of their frames is left.
    argv[argv.index("-c") + 1] += "()()"
    # All signals are blocked: Ctrl-C is not for it.
    return Program(
        argv, keep=[channel, board, tracker], death_signal=signal.SIGKILL, mask=signal.valid_signals()
    )


def _unheard(error: OSError) -> OSError | CantServe:
    """What is raised when the channel can't be used: a reason to go another way, where a sandbox forbids it."""
    return CantServe(str(error), for_good=True) if error.errno in FORBIDDEN else error


def _end(channel: socket.socket, helper: Helper) -> int:
    channel.close()
    return helper.end()


def _open_streams() -> list[bool]:
    return [_is_open(fd) for fd in (0, 1, 2)]


def _is_open(fd: int) -> bool:
    """Whether a child would have an fd after an exec."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _send(channel: socket.socket, fds: Sequence[int]) -> None:
    """Send fds, in as many messages as it takes."""
    import socket

    for start in range(0, len(fds), wire.MAX_SENT):
        last = start + wire.MAX_SENT >= len(fds)
        socket.send_fds(channel, [wire.COMPLETE if last else wire.MORE], fds[start : start + wire.MAX_SENT])


def _forget() -> None:
    """In a forked child: the kept template is the parent's; its end must not wait for ours."""
    global _kept, _lock
    if _kept is not None:
        _kept.forget()
    _kept, _lock = None, threading.Lock()


_kept: KeptTemplate | None = None
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

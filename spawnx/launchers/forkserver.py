"""Ranks cloned from a kept template: it has imported what is slow to import before the first call, once for all.

Each call has a template of its own, as by `clone`; here it is a clone of the kept one, not a fresh interpreter. See
`remote.kept`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import sys
import threading
from functools import partial

from spawnx import mp_private
from spawnx.backends.contract import FORBIDDEN, Program
from spawnx.backends.python import end_unheld, wait_readable
from spawnx.helper import Helper, connection, told
from spawnx.launchers import likeness
from spawnx.launchers.clone import CloneLauncher, Slower, launch
from spawnx.launchers.message import command_line
from spawnx.launchers.template import PERMANENT, CantServe, PreloadGivenUp
from spawnx.payload import to_memory
from spawnx.remote import preload, surroundings, wire
from spawnx.remote.template import signals_of
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from spawnx.backends.contract import Backend
    from spawnx.launchers.template import Errand, Template
    from spawnx.launchers.thread import Job


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
        try:
            like = likeness.of(errand, modules)
        except OSError as error:
            raise CantServe(f"what a template would have to be like can't be told: {error}") from error
        for _ in range(2):
            if job.cancelled:
                raise CantServe("the call was cancelled")
            if _kept is not None and set(modules) < set(_kept.modules):
                # This call's ranks must not find what that one has imported: it serves the next one that does.
                return launch(errand, backend)
            if _kept is not None and (why := _why_another(_kept, like, job)):
                _close(why)
            served_before = _kept is not None
            _kept = _kept or KeptTemplate(like, job, backend, modules, errand)
            try:
                helper = _kept.clone(errand)
            except BaseException as error:
                # Whatever it was, an errand may be half-way to it, and would be the next call's.
                _close("it has died" if isinstance(error, ConnectionError) else "")
                if not isinstance(error, ConnectionError):
                    raise
            else:
                if served_before:
                    _slower.forget()
                return helper
        raise CantServe("the kept template dies when it is asked to clone itself")


def _why_another(kept: KeptTemplate, like: dict[str, object], job: Job) -> str:
    """Why another template is to be kept; "" if that one will do: its thread then lasts until the job's ranks end."""
    if differences := likeness.changed(kept.like, like):
        return f"what has changed since it was started: {', '.join(differences)}"
    return "" if job.claim(kept.life) else "it has died"


def _close(why: str) -> None:
    """End the kept template, and say why."""
    global _kept
    kept, _kept = _kept, None
    if kept is not None:
        kept.close()
        if why:
            _slower.say("another template is kept for the start method forkserver: %s", why)


def stop() -> None:
    """End the kept template, if there is one. The next call makes another."""
    global _kept
    with _lock:
        kept, _kept = _kept, None
        if kept is not None:
            kept.close()


class KeptTemplate:
    """The kept template, as the supervisor sees it: a child of it, which ends with it.

    Args:
        like: what it was started with; see `likeness`.
        job: of the launching thread, in which it is started; it ends if that is cancelled before it is ready.
        backend: by which it is started.
        modules: what it imports.
        errand: for which it is started: on whose processors, and with whose resource tracker.

    Raises:
        PreloadGivenUp: what it imported can't be cloned.
        CantServe: it could not be started, or it has ended.
    """

    def __init__(
        self, like: dict[str, object], job: Job, backend: Backend, modules: tuple[str, ...], errand: Errand
    ) -> None:
        self.like = like
        self.modules = modules
        # Ranks of later calls are this thread's children, too, as the kernel has it: siblings of what it creates here.
        self.life = job.life
        self._backend = backend
        try:
            with contextlib.ExitStack() as opened:
                board = to_memory("spawnx-board", memoryview(bytes(mmap.PAGESIZE)))
                opened.callback(os.close, board)
                self._board = mmap.mmap(board, mmap.PAGESIZE)
                self._channel, theirs = connection()
                opened.callback(theirs.close)  # enter_context imports inspect (CPython 3.15)
                file = to_memory("spawnx-order", memoryview(b""))
                opened.callback(os.close, file)
                pid, pidfd = backend.launch(_program(theirs.fileno(), board, file, modules, errand))
                job.outlive([pid])
                job.lasts = True
                self._helper = Helper(backend, pid, pidfd)
        except OSError as error:
            raise CantServe(f"no template could be started: {error}") from error
        # Not its own method: it would never be collected.
        self._end = mp_private.close_late(self, partial(_end, self._channel, self._helper))
        self._wait_ready(job, errand)

    def _wait_ready(self, job: Job, errand: Errand) -> None:
        job.on_cancel = self._helper.kill
        if job.cancelled:
            self._helper.kill()
        try:
            word = self._hear(1 + wire.MASK + wire.MOST_TEXT)
        except CantServe:
            self.close()
            raise
        finally:
            job.on_cancel = None
        errand.pending.update(signals_of(int.from_bytes(word[1 : 1 + wire.MASK], "little")))
        if word.startswith(wire.READY):
            return
        code, reason = self.close(), word[1 + wire.MASK :].decode(errors="replace")
        if word.startswith(wire.GAVE_UP):
            raise PreloadGivenUp(reason)
        raise CantServe(reason or f"the kept template ended {told(code)}")

    def _hear(self, most: int) -> bytes:
        """What it says next; b"" if it has died.

        Not by the end of the channel alone: a process that another thread has forked just then may have the other one.
        """
        with standard_library():
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
        streams = surroundings.open_streams()
        what = {
            "order": errand.order,
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


def _program(channel: int, board: int, file: int, modules: tuple[str, ...], errand: Errand) -> Program:
    tracker: int = errand.arguments["tracker"]  # type: ignore[assignment]
    arguments: dict[str, object] = {
        "channel": channel,
        "board": board,
        "parent": os.getpid(),
        "tracker": tracker,
        "path": mp_private.path_to_send(),
        "argv": list(map(str, sys.argv)),
        "preload": modules,
    }
    argv = command_line("spawnx.remote.kept", "main", file, arguments)
    # What main() returns, and what that returns, is called when none of their frames is left.
    argv[argv.index("-c") + 1] += "()()"
    # All signals are blocked: Ctrl-C is not for it.
    return Program(
        argv, keep=[channel, board, file, tracker], death_signal=signal.SIGKILL, mask=signal.valid_signals()
    )


def _unheard(error: OSError) -> OSError | CantServe:
    """What is raised when the channel can't be used: a reason to go another way, where a sandbox forbids it."""
    return CantServe(str(error), for_good=True) if error.errno in FORBIDDEN else error


def _end(channel: socket.socket, helper: Helper) -> int:
    channel.close()
    return helper.end()


def _send(channel: socket.socket, fds: Sequence[int]) -> None:
    """Send fds, in as many messages as it takes."""
    with standard_library():
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
_slower = Slower()
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

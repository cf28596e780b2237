"""The supervisor's side of the zygote: its start, its requests and its end. `remote.zygote` is the zygote itself."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import sys
import threading
from functools import partial

from spawnx.backends.contract import FORBIDDEN, Program
from spawnx.backends.python import wait_readable
from spawnx.guard.child import Child, connection, describe_exit
from spawnx.ipc import inherited, protocol
from spawnx.ipc.pid_table import signals_of
from spawnx.launchers.message import command_line
from spawnx.launchers.template import BOTH_WAYS, PERMANENT, CantServe, PreloadGivenUp
from spawnx.memory import to_memory
from spawnx.mp import interpreter
from spawnx.mp import process as mp_process
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from spawnx.launchers.template import Template, TemplateRequest
    from spawnx.launchers.threads import Job


# Seconds that a zygote may take to answer after the call was cancelled. A zygote that takes longer is ended.
_ANSWERS_WITHIN = 1.0


class Zygote:
    """The handle of the zygote, a child of the supervisor that ends with the supervisor.

    Args:
        like: the surroundings that it is started with; see `likeness`.
        job: the job of the launching thread that starts it. A job that is cancelled kills it if it is not ready yet.
        template: the template of the call that starts it.
        modules: the modules that it imports.
        request: the request of that template. The zygote uses its resource tracker, and adds to its `pending`.

    Raises:
        PreloadGivenUp: the zygote can't be cloned after its imports.
        CantServe: it could not be started, or it has ended.
    """

    def __init__(
        self,
        like: dict[str, object],
        job: Job,
        template: Template,
        modules: tuple[str, ...],
        request: TemplateRequest,
    ) -> None:
        self.like = like
        self.modules = modules
        self._backend = template.backend
        self._claims, self._claims_lock = 1, threading.Lock()
        try:
            with contextlib.ExitStack() as opened:
                self._channel, theirs = connection()
                opened.callback(theirs.close)  # enter_context imports inspect (CPython 3.15)
                file = to_memory("spawnx-message", memoryview(b""))
                opened.callback(os.close, file)
                self._child = Child.launch(self._backend, _program(theirs.fileno(), file, modules, request))
        except OSError as error:
            raise CantServe(f"the zygote could not be started: {error}") from error
        template.guard.hold_child(self._child.pidfd)
        # Not a method of this object: the finalizer would hold the object, which would then never be collected.
        self._end = mp_process.close_late(self, partial(_end, self._channel, self._child))
        self._wait_ready(job, request)

    def _wait_ready(self, job: Job, request: TemplateRequest) -> None:
        job.on_cancel = self._child.kill
        if job.cancelled:
            self._child.kill()
        try:
            word, _ = self._hear(1 + protocol.MASK + protocol.MOST_TEXT)
        except CantServe:
            self.close()
            raise
        finally:
            job.on_cancel = None
        request.pending.update(signals_of(int.from_bytes(word[1 : 1 + protocol.MASK], "little")))
        if word.startswith(protocol.READY):
            return
        code, reason = self.close(), word[1 + protocol.MASK :].decode(errors="replace")
        if word.startswith(protocol.GAVE_UP):
            raise PreloadGivenUp(reason)
        raise CantServe(reason or f"the zygote ended {describe_exit(code)}")

    def _hear(self, most: int, cancelled: int = -1) -> tuple[bytes, list[int]]:
        """Receive its next message, and the fds that come with it; b"" if it has died.

        Its pidfd is polled too: a process that another thread has just forked may keep its end of the channel open.

        Args:
            most: the most bytes of a message.
            cancelled: an fd that becomes readable when the call is cancelled. The wait then ends after
                `_ANSWERS_WITHIN`, as the zygote may be stopped.
        """
        with standard_library():
            import socket

        says = [self._channel.fileno(), self._child.pidfd]
        wait_readable([*says, cancelled] if cancelled >= 0 else says, None)
        if cancelled >= 0 and not wait_readable(says, _ANSWERS_WITHIN):
            raise CantServe("the call was cancelled, and the zygote doesn't answer")
        try:
            word, fds, _, _ = socket.recv_fds(self._channel, most, 1, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionError):
            return b"", []
        except OSError as error:
            raise _unheard(error) from None
        return word, fds

    def clone(self, request: TemplateRequest, job: Job) -> Child:
        """Clone it into the template of a call.

        Raises:
            ConnectionError: it has died.
            CantServe: the system can never clone, or the job was cancelled and the zygote doesn't answer.
            OSError: it could not be cloned.
        """
        number, pidfds = self._ask(request, job)
        if number in PERMANENT:
            raise CantServe(os.strerror(number), for_good=True)
        if number:
            raise OSError(number, os.strerror(number))
        if not pidfds:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Child(self._backend, 0, pidfds[0])

    def claim(self) -> Callable[[], None]:
        """Keep the zygote alive until the returned function is called: as long as a template that is its child works.

        The kernel gives the ranks of a template to its nearest ancestor that is a subreaper. If the template were an
        orphan, the supervisor would be no ancestor.
        """
        with self._claims_lock:
            self._claims += 1
        return self.retire

    def retire(self) -> None:
        """Give up one claim. The zygote ends with the last claim."""
        with self._claims_lock:
            self._claims -= 1
            last = self._claims == 0
        if last:
            self.close()

    def _ask(self, request: TemplateRequest, job: Job) -> tuple[int, list[int]]:
        """Send a request. Returns the errno of the answer (0: none), and a pidfd of the template that was forked.

        Raises:
            ConnectionError: the zygote has died.
        """
        streams = inherited.open_streams()
        what = {
            "message": request.message,
            "arguments": request.arguments,
            "keep": request.keep,
            "streams": streams,
            "inherited": inherited.capture(request.affinity),
        }
        file = to_memory("spawnx-request", memoryview(pickle.dumps(what)))
        try:
            fds = [file, *(fd for fd in (0, 1, 2) if streams[fd]), *request.keep]
            _send(self._channel, fds)
            answer, pidfds = self._hear_unless_cancelled(4, job)
        except ConnectionError:
            raise
        except OSError as error:
            raise _unheard(error) from None
        finally:
            os.close(file)
        if not answer:
            raise ConnectionResetError
        return int.from_bytes(answer, "little"), pidfds

    def _hear_unless_cancelled(self, most: int, job: Job) -> tuple[bytes, list[int]]:
        try:
            ours, theirs = connection()
        except OSError:  # no fd is free: then the call can't be cancelled while it waits
            return self._hear(most)
        with ours, theirs:
            # A method of the socket object, not its fd's number: the socket may be closed, and the number reused.
            job.on_cancel = partial(theirs.shutdown, BOTH_WAYS)
            try:
                if job.cancelled:
                    theirs.shutdown(BOTH_WAYS)
                return self._hear(most, ours.fileno())
            finally:
                job.on_cancel = None

    def close(self) -> int:
        """End the zygote and reap it. Returns its exit code."""
        code: int = self._end()
        return code

    def forget(self) -> None:
        """In a forked child, close the inherited fds of the zygote."""
        self._channel.close()
        self._child.close()


def _program(channel: int, file: int, modules: tuple[str, ...], request: TemplateRequest) -> Program:
    tracker: int = request.arguments["tracker"]  # type: ignore[assignment]
    arguments: dict[str, object] = {
        "channel": channel,
        "parent": os.getpid(),
        "tracker": tracker,
        "path": interpreter.path_to_send(),
        "argv": list(map(str, sys.argv)),
        "preload": modules,
    }
    argv = command_line("spawnx.remote.zygote", "main", file, arguments)
    # main() returns a function in each template, and that returns another one in each rank. Each is called after the
    # one before has returned, when no frame of that is left.
    argv[argv.index("-c") + 1] += "()()"
    # All signals are blocked: Ctrl-C must not end the zygote. It has no death signal: the kernel would send it at the
    # end of the launching thread. Instead the zygote polls a pidfd of this process.
    return Program(argv, keep=[channel, file, tracker], death_signal=0, mask=signal.valid_signals())


def _unheard(error: OSError) -> OSError | CantServe:
    """The exception for a channel that can't be used: `CantServe` if a sandbox forbids it, else the error itself."""
    return CantServe(str(error), for_good=True) if error.errno in FORBIDDEN else error


def _end(channel: socket.socket, child: Child) -> int:
    channel.close()
    return child.end()


def _send(channel: socket.socket, fds: Sequence[int]) -> None:
    """Send fds, in as many messages as needed."""
    with standard_library():
        import socket

    for start in range(0, len(fds), protocol.MAX_SENT):
        last = start + protocol.MAX_SENT >= len(fds)
        socket.send_fds(
            channel, [protocol.COMPLETE if last else protocol.MORE], fds[start : start + protocol.MAX_SENT]
        )

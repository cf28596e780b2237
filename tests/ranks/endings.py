"""Ways in which a rank ends. Most are given to ranks of `tests.ranks.waits`; those that take an index are ranks."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import util
from typing import Any

from tests.ranks.gates import Gate, stay


def pass_by() -> None:
    """End well."""


def raise_value_error(text: str) -> None:
    """Raise what a user's code would."""
    raise ValueError(text)


def raise_connection_reset() -> None:
    """Raise what a rank gets whose peer has died."""
    raise ConnectionResetError("Connection reset by peer")


def raise_chained(text: str) -> None:
    """Raise with a cause."""
    try:
        raise KeyError("cause")
    except KeyError as cause:
        raise ValueError(text) from cause


class UnpicklableError(Exception):
    """An exception that can't travel: only its traceback can."""

    def __reduce__(self) -> Any:
        """Refuse."""
        raise TypeError("not to be pickled")


def raise_unpicklable(text: str) -> None:
    """Raise an exception that can't be pickled."""
    raise UnpicklableError(text)


class SilentError(Exception):
    """An exception that can't say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


def raise_silent(text: str) -> None:
    """Raise an exception whose `str` raises."""
    raise SilentError(text)


def recurse(text: str) -> None:
    """Raise RecursionError."""
    recurse(text)


class OwnBaseError(BaseException):
    """What `except Exception` doesn't catch, and nobody expects."""


def raise_base_exception(name: str) -> None:
    """Raise a BaseException that is no Exception."""
    raise {"GeneratorExit": GeneratorExit, "OwnBaseError": OwnBaseError}[name]("base")


def raise_keyboard_interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def exit_with(code: Any) -> None:
    """Leave by `sys.exit`."""
    sys.exit(code)


def exit_without_arguments() -> None:
    """Leave by a bare `sys.exit()`."""
    sys.exit()


def exit_at_once(code: int) -> None:
    """Leave without any finalizer."""
    os._exit(code)


def die_by(signum: int) -> None:
    """Die by a signal, without a core file."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if signum != signal.SIGKILL:
        signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def send_self(signum: int) -> None:
    """Get a signal, whatever its handler."""
    os.kill(os.getpid(), signum)
    stay()


def raise_but_exit_well(text: str) -> None:
    """Raise, and end with exit code 0 in a finalizer."""
    util.Finalize(None, os._exit, args=(0,), exitpriority=100)
    raise ValueError(text)


def raise_but_stay(text: str) -> None:
    """Raise, and hang in a finalizer."""
    util.Finalize(None, stay, exitpriority=100)
    raise ValueError(text)


def raise_but_stay_at_exit(text: str) -> None:
    """Raise, and hang for a minute in a handler of `atexit`, also where the start method doesn't run those."""
    if multiprocessing.current_process().name.startswith("SpawnProcess"):
        atexit.register(threading.Event().wait, 60)
    else:
        util.Finalize(None, threading.Event().wait, args=(60,), exitpriority=100)
    raise ValueError(text)


def raise_more_than_files_may_have(text: str) -> None:
    """Raise on what is as good as a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    raise ValueError(text * 100_000)


class KillsWhenToldError(Exception):
    """An exception that nobody lives to tell."""

    def __str__(self) -> str:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def raise_what_kills_when_told() -> None:
    """Raise, and die while that is reported."""
    raise KillsWhenToldError


def report_and_exit(path: str, text: str, code: int) -> None:
    """Report as the reference's ranks do, and leave."""
    with open(path, "wb") as file:
        pickle.dump(text, file)
    sys.exit(code)


def raise_in_grandchild(text: str) -> None:
    """Raise in a process forked by this rank, and leave this rank with exit code 3."""
    pid = os.fork()
    if not pid:
        raise ValueError(text)
    os.waitpid(pid, 0)
    sys.exit(3)


def crash_in_grandchild_and_do(rank: int, how: Callable[..., None], *args: Any) -> None:
    """Crash in a process forked by this rank; then end this rank in the way given."""
    pid = os.fork()
    if not pid:
        send_self(signal.SIGSEGV)
    os.waitpid(pid, 0)
    how(*args)


def enable_faulthandler_and_do(rank: int, path: str, how: Callable[..., None], *args: Any) -> None:
    """Have faulthandler write into a file of this rank's own, and end in the way given."""
    import faulthandler

    with open(path, "w", encoding="utf-8") as file:
        faulthandler.enable(file)
        how(*args)


def close_all_and_open(rank: int, path: str) -> None:
    """Close every file, as daemons do, open one by all the numbers there were, and leave."""
    os.closerange(3, 64)
    fds = [os.open(path, os.O_RDWR) for _ in range(20)]
    util.Finalize(None, os._exit, args=(3,), exitpriority=100)
    del fds


def close_all_open_and_crash(rank: int, folder: str) -> None:
    """Close every file that there may be, open others, and crash."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in range(20):
        fd = os.open(os.path.join(folder, str(number)), os.O_RDWR | os.O_CREAT)
        os.write(fd, b"precious")
    send_self(signal.SIGSEGV)


def crash_in_grandchild_without_stderr(rank: int, path: str) -> None:
    """Crash in a process forked by this rank, which has no stderr: the number is that of a file of its own."""
    os.close(2)
    pid = os.fork()
    if not pid:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.write(fd, b"precious")
        os._exit(3) if fd != 2 else send_self(signal.SIGSEGV)
    _, status = os.waitpid(pid, 0)
    os._exit(0 if os.WIFSIGNALED(status) else 3)


def leave_a_daemon_and_read_stderr(rank: int) -> None:
    """Have a pipe for stderr, fork a process that closes its own end of it and stays; then read to the end of it."""
    import select

    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    pid = os.fork()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)
    if not pid:
        os.close(reader)
        signal.pause()
    ended, _, _ = select.select([reader], [], [], 10)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    sys.exit(0 if ended and os.read(reader, 1) == b"" else 3)


def empty_folder_and_raise(folder: str, text: str) -> None:
    """Do as a cleaner of temporary directories does, and raise."""
    import shutil

    for name in os.listdir(folder):
        shutil.rmtree(os.path.join(folder, name))
    raise ValueError(text)


def give_up_rights_and_raise(root: str, text: str) -> None:
    """Be nobody, in another root, and raise. What is imported to tell of that is imported before."""
    import json
    import tokenize
    import traceback

    import spawnx.ipc.notices

    del json, tokenize, traceback
    assert spawnx.ipc.notices
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    raise ValueError(text)


def write_over_board(rank: int, data: bytes, size: int) -> None:
    """Write into the lines of all ranks, cut the scoreboard to a size, and leave."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "spawnx-scoreboard" in os.readlink(f"/proc/self/fd/{fd}"):
                os.pwrite(int(fd), data, 0)
                os.truncate(int(fd), size)
                os._exit(7)
    os._exit(3)


def notify_of_another(rank: int, other: int, errno: int, gate: Gate) -> None:
    """As rank 0, write a notice that names another rank; all then wait."""
    from spawnx.ipc import notices
    from spawnx.remote import rank as remote

    if rank == 0:
        notices.tell(remote._notices, other, errno)
    gate.pass_through()


def leave_instead_of_report(rank: int, folder: str, kind: str) -> None:
    """Leave something else where a report is to be, and exit with 7."""
    (found,) = os.listdir(folder)
    path = os.path.join(folder, found, f"{rank}.pickle")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link":
        target = os.path.join(folder, found, "7.pickle")
        with open(target, "wb") as file:
            pickle.dump("Traceback of another's", file)
        os.symlink(target, path)
    else:
        with open(path, "wb") as file:
            file.write(EVIL_PICKLES[kind])
    os._exit(7)


# What a pickle may do: call, take memory for its memo (32 GB), be no text, be torn.
EVIL_PICKLES = {
    "call": b"cos\n_exit\n(I0\ntR.",
    "memo": b"\x80\x04X\1\0\0\0ar\xff\xff\xff\x7f0.",
    "number": pickle.dumps(7),
    "torn": pickle.dumps("text")[:-3],
    "length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
}


def start_a_child() -> None:
    """Start a process from this rank."""
    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join()
    sys.exit(child.exitcode)


class WaitsWhenToldError(Exception):
    """An exception that waits at a gate when it is asked for its text, for the first time."""

    def __init__(self, gate: Gate) -> None:
        """Keep the gate."""
        self.gate: Gate | None = gate

    def __str__(self) -> str:
        """Wait."""
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.pass_through()
        return "told"


def raise_what_waits_when_told(rank: int, gate: Gate) -> None:
    """Raise; arrive, and wait to be let on, while that is reported."""
    raise WaitsWhenToldError(gate)


def raise_and_finish(rank: int, which: int, gate: Gate, queue: Any) -> None:
    """As rank `which`, raise when let on, with a finalizer that takes a while; as another one, arrive and stay."""
    if rank != which:
        gate.arrive()
        stay()
    gate.opened.acquire()
    util.Finalize(None, queue.put, args=("finished",), exitpriority=10)
    util.Finalize(None, threading.Event().wait, args=(0.1,), exitpriority=20)
    raise ValueError("raised")


def register_at_exit(rank: int, how: Callable[..., None], *args: Any) -> None:
    """Return; end in the way given in a finalizer."""
    util.Finalize(None, how, args=args, exitpriority=100)


def compute_for_ever() -> None:
    """Be busy in C, deaf to all handlers."""
    import hashlib

    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


def kill_self(rank: int) -> None:
    """Die by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted_with_finalizer(rank: int, queue: Any, how: Callable[..., None], *args: Any) -> None:
    """Be interrupted, with a finalizer that tells and text that waits in a buffer."""
    util.Finalize(None, queue.put, args=("finalized",), exitpriority=100)
    how(*args)


def fail_in_thread(rank: int, how: Callable[..., None], *args: Any) -> None:
    """End a thread in the way given, and this rank well."""
    thread = threading.Thread(target=how, args=args)
    thread.start()
    thread.join()


def leave_traces(rank: int, write_end: Any, how: Callable[..., None], *args: Any) -> None:
    """Register each kind of handler that may run at a rank's end; each writes its name."""
    file = os.dup(write_end.fileno())
    atexit.register(os.write, file, b"atexit\n")
    util.Finalize(None, os.write, args=(file, b"finalizer with priority\n"), exitpriority=10)
    util.Finalize(None, os.write, args=(file, b"finalizer of last priority\n"), exitpriority=-10)
    os.write(file, b"rank\n")
    how(*args)


def print_and_do(rank: int, how: Callable[..., None], *args: Any) -> None:
    """Print, into a buffer, and end in the way given."""
    print("printed")  # noqa: T201
    how(*args)


def exit_7(rank: int) -> None:
    """Leave by exit code 7."""
    sys.exit(7)


def exit_on_its_own_time(rank: int) -> None:
    """End well, each rank a little later than the one before."""
    threading.Event().wait(rank * 0.003)


def read_then_exit_by_rank(rank: int, fd: int) -> None:
    """Wait for a byte, then leave by the rank as exit code."""
    os.read(fd, 1)
    sys.exit(rank)


def crash() -> None:
    """Read where no memory is."""
    import ctypes

    ctypes.string_at(1)  # of address 0 PyPy makes an empty string

"""What ranks run in the tests: importable by name, and free of imports that a rank would have to pay for.

Functions named after what a rank does take its index first. Those under "ways to end" are given to them.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import util
from multiprocessing.connection import wait
from typing import Any

from tests.pypy import open_pidfd


class Gate:
    """Where ranks say that they are there, and wait to be let on. A rank that is killed meanwhile harms nobody."""

    def __init__(self, context: Any) -> None:
        """Make the gate for ranks of one start method, by its `multiprocessing` context."""
        self.arrived = context.Semaphore(0)
        self.opened = context.Semaphore(0)

    def arrive(self) -> None:
        """As a rank, say that this rank is there."""
        self.arrived.release()

    def pass_through(self) -> None:
        """As a rank, say that this rank is there, and wait to be let on."""
        self.arrived.release()
        # Not for ever: Python would miss a signal that comes just before the system call.
        while not self.opened.acquire(timeout=0.1):
            pass

    def wait_for(self, count: int = 1) -> None:
        """As the supervisor, wait until so many ranks are there."""
        for _ in range(count):
            if not self.arrived.acquire(timeout=60):
                raise TimeoutError("a rank has not arrived")

    def let(self, count: int = 1) -> None:
        """As the supervisor, let so many ranks on."""
        for _ in range(count):
            self.opened.release()


def stay() -> None:
    """Wait for a signal that ends this rank; also for one that came just before, so not in one system call."""
    while True:
        threading.Event().wait(0.1)


# Ways to end


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
    import traceback

    import spawnx.ipc.notices

    del json, traceback
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


# What ranks do


def rest(rank: int, seconds: float) -> None:
    """Do nothing for a while."""
    time.sleep(seconds)


def nothing(rank: int) -> None:
    """End well at once."""


def interrupt_parent_and_read(rank: int, fd: int) -> None:
    """As rank 0, send the supervisor SIGUSR1, and once more each second; end when a byte can be read.

    Python misses a signal that comes just before a system call.
    """
    while rank == 0:
        os.kill(os.getppid(), signal.SIGUSR1)
        if wait([fd], timeout=1):
            break
    os.read(fd, 1)


def do(rank: int, how: Callable[..., None], *args: Any) -> None:
    """End in the way given."""
    how(*args)


def one_does(rank: int, which: int, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given; as another one, end well."""
    if rank == which:
        how(*args)


def one_does_others_wait(rank: int, which: int, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given; as another one, stay."""
    if rank == which:
        how(*args)
    stay()


def two_fail_others_stay(rank: int, gate: Gate, text: str) -> None:
    """As ranks 0 and 1, raise when both are let on; as another one, arrive and stay."""
    if rank < 2:
        gate.opened.acquire()
        raise ValueError(text)
    gate.arrive()
    stay()


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


def wait_at_own_then_do_own(rank: int, gates: list[Gate], hows: list[Any]) -> None:
    """Arrive at the gate of this rank, wait to be let on, end in the way of this rank."""
    gates[rank].pass_through()
    how, *args = hows[rank]
    how(*args)


def register_at_exit(rank: int, how: Callable[..., None], *args: Any) -> None:
    """Return; end in the way given in a finalizer."""
    util.Finalize(None, how, args=args, exitpriority=100)


def compute_for_ever() -> None:
    """Be busy in C, deaf to all handlers."""
    import hashlib

    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


def one_ends_one_computes_others_stay(rank: int, gate: Gate) -> None:
    """As rank 0, end well; as rank 1, arrive and compute; as another one, arrive and stay."""
    if rank > 0:
        gate.arrive()
        (compute_for_ever if rank == 1 else stay)()


def one_does_others_stay(rank: int, which: int, gate: Gate, how: Callable[..., None], *args: Any) -> None:
    """As rank `which`, end in the way given when let on; as another one, arrive and stay."""
    if rank == which:
        gate.opened.acquire()
        how(*args)
    gate.arrive()
    stay()


def one_does_others_ignore_sigterm(
    rank: int, which: int, gate: Gate, how: Callable[..., None], *args: Any
) -> None:
    """As rank `which`, end in the way given when let on; as another one, ignore SIGTERM, arrive and stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    one_does_others_stay(rank, which, gate, how, *args)


@contextlib.contextmanager
def until_it_ends(pid: int) -> Iterator[None]:
    """Do something, then wait for the end of a process that is no child; it lives when this begins."""
    pidfd = open_pidfd(pid)
    yield
    wait([pidfd])


def first_raises_then_others_end(rank: int, gate: Gate, queue: Any) -> None:
    """As rank 0, send the pid and raise; as another one, end well once rank 0 is dead."""
    if rank == 0:
        queue.put(os.getpid())
        gate.opened.acquire()
        raise ValueError("first")
    with until_it_ends(queue.get()):
        gate.arrive()


def wait_at(rank: int, gate: Gate) -> None:
    """Arrive, wait to be let on, end well."""
    gate.pass_through()


def wait_at_own(rank: int, gates: list[Gate]) -> None:
    """Arrive at the gate of this rank, wait to be let on, end well."""
    gates[rank].pass_through()


def wait_at_own_then_do(rank: int, gates: list[Gate], how: Callable[..., None], *args: Any) -> None:
    """Arrive at the gate of this rank, wait to be let on, end in the way given."""
    gates[rank].pass_through()
    how(*args)


def wait_at_then_put(rank: int, gate: Gate, queue: Any) -> None:
    """Arrive, wait to be let on, and leave proof of work."""
    gate.pass_through()
    queue.put(rank)


def put_rank(rank: int, queue: Any) -> None:
    """Say which rank this is."""
    queue.put(rank)


def put_args(rank: int, queue: Any, *args: Any) -> None:
    """Say what this rank was given."""
    queue.put((rank, args))


def put_length(rank: int, queue: Any, data: bytes) -> None:
    """Say how much this rank was given."""
    queue.put((rank, len(data), data[:1], data[-1:]))


def put_identity(rank: int, queue: Any) -> None:
    """Say what this rank knows of itself."""
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    queue.put(
        {
            "rank": rank,
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "name": process.name,
            "daemon": process.daemon,
            "parent's pid": parent and parent.pid,
            "parent's name": parent and parent.name,
            "parent is alive": parent and parent.is_alive(),
            "children": multiprocessing.active_children(),
        }
    )


def describe() -> dict[str, Any]:
    """What a process is in, as far as its start can have made a difference."""
    process = multiprocessing.current_process()
    return {
        "argv": sys.argv,
        "authkey": bytes(process.authkey),
        "cwd": os.getcwd(),
        "finalizers": len(util._finalizer_registry),
        "handlers": [str(signal.getsignal(signum)) for signum in sorted(signal.valid_signals())],
        "hooks": [sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__],
        "main": [multiprocessing.get_start_method(allow_none=True), sys.modules["__main__"].__name__],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        if hasattr(signal, "pthread_sigmask")
        else [],
        "path": sys.path,
        "stdin": os.path.samestat(os.fstat(sys.stdin.fileno()), os.stat(os.devnull)),
        "streams": [sys.stdout.fileno(), sys.stderr.fileno()],
        "threads": [threading.current_thread().name, threading.current_thread() is threading.main_thread()],
        "type": [process.name[:4], isinstance(process, multiprocessing.process.BaseProcess)],
    }


def put_description(rank: int, queue: Any) -> None:
    """Say what this rank is in."""
    queue.put(describe())


def put_death_signal(rank: int, queue: Any) -> None:
    """Say which signal the kernel sends when the parent ends."""
    import ctypes

    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    queue.put(number.value)


def touch(path: str) -> None:
    """Make a file."""
    with open(path, "w", encoding="utf-8"):
        pass


def arrive_and_stay_deaf(rank: int, gate: Gate) -> None:
    """Say that this rank is there; stay, and take no notice of SIGINT and SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gate.arrive()
    stay()


class Registered:
    """An argument for which a test registers a reducer, as libraries do that share something."""


def rebuild_registered() -> Registered:
    """Make one again."""
    return Registered()


def take_argument(rank: int, _argument: Any) -> None:
    """Take an argument."""


def put_argument(rank: int, queue: Any, argument: Any) -> None:
    """Say which rank this is, and what it was given."""
    queue.put((rank, argument))


def put_pid(rank: int, queue: Any) -> None:
    """Say which process this is."""
    queue.put(os.getpid())


def put_whether_made_here(rank: int, queue: Any) -> None:
    """Say whether this module was loaded in this process, not in one that it is a clone of."""
    import gc

    queue.put(any(one is sys.modules[__name__] for one in gc.get_objects()))


def put_whether_loaded(rank: int, queue: Any, name: str) -> None:
    """Say whether a module is loaded."""
    queue.put(name in sys.modules)


def put_where(rank: int, queue: Any, name: str) -> None:
    """Say in which folder a module was found."""
    module = importlib.import_module(name)
    queue.put(os.path.basename(os.path.dirname(module.__file__ or "")))


def put_random(rank: int, queue: Any) -> None:
    """Draw by the global generator."""
    import random

    queue.put(random.random())  # noqa: S311 - whether they differ is the question


def put_inodes(rank: int, queue: Any, ends: list[Any]) -> None:
    """Say which files, by their numbers, the ends of pipes are here."""
    queue.put([os.fstat(end.fileno()).st_ino for end in ends])


def put_nested(rank: int, queue: Any) -> None:
    """Be a supervisor in turn, and say by what its ranks were launched, and how they ended."""
    import spawnx

    context = spawnx.start_processes(nothing, (), 2, join=False, start_method="forkserver")
    assert context is not None
    context.join_all()
    queue.put([context.launcher, [process.exitcode for process in context.processes]])


def put_hash(rank: int, queue: Any) -> None:
    """Say what a text hashes to."""
    queue.put(hash("the seed"))


def kill_self(rank: int) -> None:
    """Die by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def put_thread_numbers(rank: int, queue: Any) -> None:
    """Say whether libc and Python know this thread by the kernel's number of it."""
    import ctypes

    libc = ctypes.CDLL(None)
    attributes, mutex = (ctypes.c_int * 16)(), (ctypes.c_int * 16)()  # more than any libc needs
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_settype(attributes, 2)  # PTHREAD_MUTEX_ERRORCHECK: it has an owner
    libc.pthread_mutex_init(mutex, attributes)
    before = os.getpid() in mutex
    libc.pthread_mutex_lock(mutex)
    # In the third word in glibc, in the second in musl.
    in_libc = not before and os.getpid() in mutex
    libc.pthread_mutex_unlock(mutex)
    queue.put((in_libc, threading.main_thread().native_id == os.getpid()))


def put_fds(rank: int, queue: Any) -> None:
    """Say what is open."""
    kinds = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the folder that is listed
        if not kind.startswith("/proc"):
            kinds.append(os.path.basename(kind.partition(":")[0]))
    queue.put(sorted(kinds))


def put_what_works(rank: int, queue: Any) -> None:
    """Do what processes do, and say what came of it."""
    import asyncio
    import subprocess
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    works = []
    with ThreadPoolExecutor(2) as threads:
        works += threads.map(str, ["thread"])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        works += pool.map(str, ["pool"])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        works += processes.map(str, ["process pool"])
    works.append(
        subprocess.run(["echo", "subprocess"], capture_output=True, text=True, check=True).stdout.strip()
    )

    async def task() -> str:
        await asyncio.sleep(0)
        return "task"

    works.append(asyncio.run(task()))
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    works += ["forked"] * (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7)
    queue.put(sorted(works))


def put_random_draws(rank: int, queue: Any) -> None:
    """Draw by everything that the standard library draws by; say whether it was imported before."""
    already = "ssl" in sys.modules and "uuid" in sys.modules
    import random
    import secrets
    import ssl
    import tempfile
    import uuid

    name = next(tempfile._get_candidate_names())
    queue.put(
        (
            already,
            random.random(),  # noqa: S311 - whether they differ is the question
            secrets.token_hex(8),
            ssl.RAND_bytes(8),
            uuid.uuid4().hex,
            name,
        )
    )


def put_environment(rank: int, queue: Any, name: str) -> None:
    """Say what a variable of the environment is in this rank."""
    queue.put((rank, os.environ.get(name)))


def put_daemon_error(rank: int, queue: Any) -> None:
    """Say what a daemon is told that starts a process."""
    child = multiprocessing.Process(target=os.getpid)
    try:
        child.start()
    except AssertionError as error:
        queue.put(str(error))


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


def print_unfinished(rank: int) -> None:
    """Print without a newline, into buffers, one of them on the same file as that of standard output."""
    sys.stdout.write("printed, ")
    sys.stdout.flush()
    sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115 - open until the rank ends
    sys.stderr.write("warned, ")


def print_rank(rank: int) -> None:
    """Print a line."""
    print(f"from rank {rank}")  # noqa: T201


def print_loaded(rank: int, name: str) -> None:
    """Say whether a module is loaded."""
    print(name in sys.modules)  # noqa: T201


def wait_then_write(rank: int, gate: Gate, line: bytes) -> None:
    """Arrive, wait to be let on, and write a line."""
    gate.pass_through()
    os.write(1, line)


def write_when_terminated(rank: int, gate: Gate) -> None:
    """Stay, and write a line when SIGTERM comes."""

    def handle(_signum: int, _frame: object) -> None:
        os.write(1, b"SIGTERM\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, handle)
    gate.arrive()
    stay()


def be_supervisor(rank: int, package: str, start_method: str, how: Callable[..., None], *args: Any) -> None:
    """Start ranks of which rank 1 ends in the way given."""
    mp = importlib.import_module(package)
    mp.start_processes(one_does, (1, how, *args), 2, start_method=start_method)


def wait_until_asleep(pid: int) -> None:
    """Wait until a process sleeps in the kernel, three times seen in a row; where the system can't tell, don't."""
    seen = 0
    while sys.platform == "linux" and seen < 3:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
        seen = seen + 1 if state == b"S" else 0
        threading.Event().wait(0.01)


def send_when_asleep(pid: int, signum: int) -> None:
    """Send a signal to a process that sleeps: Python misses one that comes just before a system call."""
    wait_until_asleep(pid)
    os.kill(pid, signum)


def use_lock_and_event(rank: int, lock: Any, event: Any, counter: Any, gate: Gate) -> None:
    """Count under the lock once the event is set."""
    gate.arrive()
    event.wait()
    with lock:
        counter.value += 1


def release(rank: int, semaphore: Any) -> None:
    """Release it once."""
    semaphore.release()


def acquire_lock(rank: int, _other: object, lock: Any) -> None:
    """Show that the lock is one."""
    with lock:
        pass


def hold_twice(rank: int, lock: Any) -> None:
    """Show that the lock may be held twice."""
    with lock, lock:
        pass


def meet(rank: int, barrier: Any) -> None:
    """Wait until all ranks are there."""
    barrier.wait(60)


def expect(rank: int, first: str, second: str) -> None:
    """Check two letters."""
    assert (first, second) == ("a", "b")


def expect_same(rank: int, first: object, second: object) -> None:
    """Check that two arguments are one."""
    assert first is second


def return_text(rank: int) -> str:
    """Return something."""
    return "ignored"


def send_args(rank: int, sender: Any, *args: Any) -> None:
    """Send what this rank was given."""
    sender.send((rank, args))


def append_and_put(rank: int, queue: Any, items: list[int]) -> None:
    """Change a list."""
    items.append(rank)
    queue.put((rank, items))


def put_doubled(rank: int, tensor: Any, queue: Any, gate: Gate) -> None:
    """Put twice the tensor, and stay until it was taken."""
    queue.put(tensor * 2)
    gate.pass_through()


def send_back(rank: int, connections: list[tuple[Any, Any]]) -> None:
    """Receive at the pipe of this rank, and send back."""
    receiver, sender = connections[rank]
    sender.send((rank, receiver.recv()))


def append_to(rank: int, names: Any, table: Any) -> None:
    """Write into a manager's list and dict."""
    names.append(rank)
    table[rank] = rank * rank


def write_shared_memory(rank: int, memory: Any) -> None:
    """Write into the byte of this rank."""
    memory.buf[rank] = rank + 1
    memory.close()


def write_shared_array(rank: int, array: Any) -> None:
    """Write into the item of this rank."""
    array[rank] = rank + 1


def add_to_tensor(rank: int, tensor: Any) -> None:
    """Add to the item of this rank, in memory that all share."""
    tensor[rank] += rank + 1


def elastic_wrap(rank: int, args: Any, hows: Any, queues: Any, event: Any, gate: Gate) -> None:
    """Put a result and wait until it was taken, as torch elastic's ranks do, or fail."""
    gate.arrive()
    if hows[rank]:
        how, *rest = hows[rank]
        how(*rest)
    queues[rank].put(args[rank])
    event.wait()


def put_over_feeder(rank: int, queue: Any) -> None:
    """Put more than a pipe holds into a Queue: its thread must have sent all before the rank ends."""
    queue.put((rank, b"x" * 1_000_000))


class Worker:
    """An object whose bound methods are given as `fn`."""

    def __init__(self, base: int) -> None:
        """Keep what tells this object from another one."""
        self.base = base

    def put(self, rank: int, queue: Any) -> None:
        """Say which rank of which object this is."""
        queue.put(self.base + rank)

    def wrap(self, rank: int, function: Callable[..., Any], args: Any, kwargs: Any, queue: Any) -> None:
        """Call the user's function as Lightning's launcher does."""
        result = function(*args, **kwargs)
        if rank == 0:
            queue.put(result)

    def __call__(self, rank: int, queue: Any) -> None:
        """Be `fn` itself."""
        self.put(rank, queue)


class WaitsForByte:
    """An argument whose unpickling waits for a byte at a FIFO."""

    def __init__(self, path: str) -> None:
        """Name the FIFO."""
        self.path = path

    def __reduce__(self) -> Any:
        """Wait on the other side."""
        return _read_a_byte, (self.path,)


def _read_a_byte(path: str) -> str:
    file = os.open(path, os.O_RDONLY)
    os.read(file, 1)
    os.close(file)
    return path


class BreaksOnArrival:
    """An argument whose unpickling raises."""

    def __reduce__(self) -> Any:
        """Raise on the other side."""
        return raise_value_error, ("broken on arrival",)


class RefusesToPickle:
    """An argument that can't be pickled."""

    def __reduce__(self) -> Any:
        """Raise on this side."""
        raise TypeError("refuses to be pickled")


class OwnPicklingError(Exception):
    """An exception whose arguments aren't a text."""


class RefusesInItsOwnWay:
    """An argument that can't be pickled, and says so in its own way."""

    def __reduce__(self) -> Any:
        """Raise on this side."""
        raise OwnPicklingError(7, "seven")


class CountsPickles:
    """An argument that counts how often it is pickled."""

    pickles = 0

    def __reduce__(self) -> Any:
        """Count."""
        type(self).pickles += 1
        return CountsPickles, ()


class Index:
    """A number by `__index__` alone, as numpy's are."""

    def __init__(self, value: int) -> None:
        """Keep the number."""
        self.value = value

    def __index__(self) -> int:
        """Be the number."""
        return self.value


def end_one_after_the_other(rank: int, first: int, queue: Any, how: Any, then: Any) -> None:
    """As rank `first`, end in one way; as the other one, end in another way once that one is dead."""
    if rank == first:
        queue.put(os.getpid())
    else:
        with contextlib.suppress(ProcessLookupError), until_it_ends(queue.get()):
            pass  # a forkserver reaps its ranks at once
        how = then
    function, *args = how
    function(*args)


def accept(rank: int, _argument: object) -> None:
    """Take an argument and end well."""


def put_number_of_fds(rank: int, queue: Any) -> None:
    """Say how many fds this rank has."""
    queue.put((rank, len(os.listdir("/proc/self/fd"))))


def put_signal_mask(rank: int, queue: Any) -> None:
    """Say which signals are blocked here."""
    queue.put(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))


def print_and_do(rank: int, how: Callable[..., None], *args: Any) -> None:
    """Print, into a buffer, and end in the way given."""
    print("printed")  # noqa: T201
    how(*args)


def stay_as_rank(rank: int) -> None:
    """Wait for a signal that ends this rank."""
    stay()


def exit_7(rank: int) -> None:
    """Leave by exit code 7."""
    sys.exit(7)


def put_mask(rank: int, queue: Any) -> None:
    """Say which signals are blocked in this rank."""
    queue.put(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def exit_on_its_own_time(rank: int) -> None:
    """End well, each rank a little later than the one before."""
    threading.Event().wait(rank * 0.003)


def read_then_exit_by_rank(rank: int, fd: int) -> None:
    """Wait for a byte, then leave by the rank as exit code."""
    os.read(fd, 1)
    sys.exit(rank)


def put_fd_limit(rank: int, queue: Any) -> None:
    """Say what the soft limit on fds is in this rank."""
    import resource

    queue.put(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def put_affinity(rank: int, queue: Any) -> None:
    """Say on which CPUs this rank may run."""
    queue.put(os.sched_getaffinity(0))


def check_length(rank: int, data: bytes, expected: int) -> None:
    """Fail if the data is not as long as it was."""
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes instead of {expected}")


def reduce_until_one_fails(
    rank: int, ranks: int, path: str, closes_first: bool, how: Callable[..., None], *args: Any
) -> None:
    """Be a rank of a real process group over gloo: sum until rank 1 ends in the way given, and wait for it then."""
    torch, dist = importlib.import_module("torch"), importlib.import_module("torch.distributed")
    if rank == 0:
        lock_until_reported(f"{path}.0")
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=ranks)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    for step in range(4):
        if rank == 1 and step == 3:
            if closes_first:
                shut_all_sockets()
                wait_for_unlock(
                    f"{path}.0"
                )  # the supervisor has patience for a second from the first report on
            how(*args)
        model(torch.ones(1, 2)).sum().backward()


def lock_until_reported(path: str) -> None:
    """Lock a file until this process has reported how it failed: finalizers run after that."""
    import fcntl
    from multiprocessing import util

    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    util.Finalize(None, os.close, args=(lock,), exitpriority=10)


def wait_for_unlock(path: str) -> None:
    """Wait until the process that has locked a file unlocks it, or is gone."""
    import fcntl

    fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)


def shut_all_sockets() -> None:
    """Let all peers know that this rank is gone, as the kernel does for one that dies, a moment before it is dead."""
    import socket

    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as one:
            one.getpeername()  # not one that listens
            one.shutdown(socket.SHUT_RDWR)


def crash() -> None:
    """Read where no memory is."""
    import ctypes

    ctypes.string_at(1)  # of address 0 PyPy makes an empty string


def put_names_of_main(rank: int, queue: Any) -> None:
    """Say which names the main module has, but those that every module has."""
    queue.put(sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")))

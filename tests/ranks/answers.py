"""Ranks that say what they are, and what they have."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import util
from typing import Any

from tests.ranks.waits import nothing


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


def put_number_of_fds(rank: int, queue: Any) -> None:
    """Say how many fds this rank has."""
    queue.put((rank, len(os.listdir("/proc/self/fd"))))


def put_signal_mask(rank: int, queue: Any) -> None:
    """Say which signals are blocked here."""
    queue.put(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))


def put_mask(rank: int, queue: Any) -> None:
    """Say which signals are blocked in this rank."""
    queue.put(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def put_fd_limit(rank: int, queue: Any) -> None:
    """Say what the soft limit on fds is in this rank."""
    import resource

    queue.put(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def put_affinity(rank: int, queue: Any) -> None:
    """Say on which CPUs this rank may run."""
    queue.put(os.sched_getaffinity(0))


def put_names_of_main(rank: int, queue: Any) -> None:
    """Say which names the main module has, but those that every module has."""
    queue.put(sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")))

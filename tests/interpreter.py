"""What ranks say of the interpreter in which they find themselves, down to what the kernel knows of it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import locale
import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from tests import ranks

# What the kernel tells of a process and its start can have changed: signals, rights, CPUs, threads.
_STATUS = (
    "Umask",
    "Threads",
    "Sig",
    "Shd",
    "Cap",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed_list",
    "Groups",
    "Uid",
)
_PR_GET_DUMPABLE = 3


# What PyPy's has not.
_OF_COLLECTOR = ("get_threshold", "get_debug")


def flags() -> dict[str, Any]:
    """`sys.flags` by their names; not all of them are items."""
    names = [
        name for name in dir(sys.flags) if not name.startswith(("_", "n_")) and name not in ("count", "index")
    ]
    return {name: getattr(sys.flags, name) for name in names}


def describe() -> dict[str, Any]:
    """All that `ranks.describe` tells, and what command line, environment and kernel have to do with it."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    known = libc.getenv(b"KNOWN_TO_LIBC")
    return {
        **ranks.describe(),
        "collector": [gc.isenabled(), *(getattr(gc, name)() for name in _OF_COLLECTOR if hasattr(gc, name))],
        "encodings": [sys.getfilesystemencoding(), *_how(sys.stdin), *_how(sys.stdout), *_how(sys.stderr)],
        "environment": dict(os.environ),
        "environment of libc": known and known.decode(),
        "executable": [sys.executable, sys.prefix, sys.base_prefix],
        "faulthandler": faulthandler.is_enabled(),
        "flags": flags(),
        "kernel": _of_kernel(libc),
        "locale": locale.setlocale(locale.LC_ALL),
        "numbers": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "options": {name: str(value) for name, value in sys._xoptions.items()},
        "stdin's text": sys.stdin.read(),
        "tracemalloc": _traced_frames(),
        "tracing": [sys.gettrace() is None, sys.getprofile() is None],
        "warnings": [sys.warnoptions, [str(one) for one in warnings.filters]],
    }


def _traced_frames() -> int:
    try:
        import tracemalloc
    except ImportError:  # PyPy has none
        return 0
    return tracemalloc.get_traceback_limit() if tracemalloc.is_tracing() else 0


def without_faulthandler(description: dict[str, Any]) -> dict[str, Any]:
    """A description without what is so in ranks of ours alone: faulthandler writes their stacks for the supervisor.

    And without pidfds they have one more thread, the lifeline; glibc handles two signals in what has threads.
    """
    fatal = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGURG")
    ours = sum(1 << (getattr(signal, name) - 1) for name in fatal)
    status = dict(description["kernel"]["status"])
    if not hasattr(os, "pidfd_open"):
        del status["Threads:"]
        ours |= 1 << 31 | 1 << 32
    status["SigCgt:"] = int(status["SigCgt:"][0], 16) & ~ours
    return {**description, "faulthandler": None, "kernel": {**description["kernel"], "status": status}}


def _how(stream: Any) -> list[str]:
    return [
        stream.encoding,
        stream.errors,
        str(stream.line_buffering),
        str(getattr(stream, "write_through", "")),
    ]


def _of_kernel(libc: Any) -> dict[str, Any]:
    import resource

    with open("/proc/self/status", encoding="utf-8") as file:
        status = [line.split() for line in file if line.startswith(_STATUS) and not line.startswith("SigQ")]
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "dumpable": libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in names},
        "nice": [os.nice(0), call("sched_getscheduler", 0)],
        "session": [os.getsid(0) == os.getsid(os.getppid()), os.getpgrp() == os.getpgid(os.getppid())],
        "status": {name: rest for name, *rest in status},
        "timers": [signal.getitimer(number) for number in (0, 1, 2)],
    }


# What threads hand on to their children, by the calls that tell it: of <asm/unistd.h>, for x86_64 and others.
_NUMBERS = {
    "get_mempolicy": (239, 236),
    "ioprio_get": (252, 31),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "sched_getattr": (315, 275),
    "sched_getscheduler": (145, 120),
    "sched_setscheduler": (144, 119),
}
# PR_GET_TIMERSLACK, PR_GET_SECUREBITS, PR_GET_THP_DISABLE, PR_GET_MDWE, PR_GET_MEMORY_MERGE, PR_GET_NO_NEW_PRIVS,
# PR_MCE_KILL_GET
_ASKED = (30, 27, 42, 66, 68, 39, 34)
_PR_GET_SPECULATION_CTRL = 52


def call(name: str, *arguments: Any) -> int:
    """Make a system call."""
    number = _NUMBERS[name][os.uname().machine != "x86_64"]
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))


def schedule_as_batch() -> None:
    """As `os.sched_setscheduler`, which musl refuses: what POSIX says of it is not what Linux does."""
    if call("sched_setscheduler", 0, os.SCHED_BATCH, ctypes.byref(ctypes.c_int(0))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def inherited() -> dict[str, Any]:
    """What this thread has, and its children have from it."""
    libc = ctypes.CDLL(None)
    mode, nodes, attr = ctypes.c_int(), (ctypes.c_ulong * 16)(), (ctypes.c_uint * 14)(56)
    call("get_mempolicy", ctypes.byref(mode), nodes, 1024, None, 0)
    call("sched_getattr", 0, attr, 56, 0)
    files = {}
    for name in ("coredump_filter", "oom_score_adj", "attr/current", "loginuid", "sessionid", "cgroup"):
        with contextlib.suppress(OSError), open(f"/proc/thread-self/{name}", encoding="utf-8") as file:
            files[name] = file.read()
    namespaces = {
        name: os.readlink(f"/proc/thread-self/ns/{name}") for name in os.listdir("/proc/thread-self/ns")
    }
    return {
        "files": files,
        "I/O priority": call("ioprio_get", 1, 0),
        "memory policy": [mode.value, list(nodes)],
        "namespaces": namespaces,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "personality": call("personality", ctypes.c_ulong(0xFFFFFFFF)),
        "prctl": {number: libc.prctl(number, 0, 0, 0, 0) for number in _ASKED},
        "scheduling": list(attr),
        "session keyring": call("keyctl", 0, -3, 0),
        "speculation": [libc.prctl(_PR_GET_SPECULATION_CTRL, which, 0, 0, 0) for which in range(3)],
        "status": _status(),
    }


def _status() -> dict[str, str]:
    beginnings = (
        "Uid",
        "Gid",
        "Groups",
        "Cap",
        "NoNewPrivs",
        "Seccomp",
        "Speculation",
        "THP",
        "Mems_allowed_list",
    )
    with open("/proc/thread-self/status", encoding="utf-8") as file:
        lines = [line.partition(":") for line in file if line.startswith(beginnings)]
    return {name: value.strip() for name, _, value in lines}


def put_inherited(rank: int, queue: Any) -> None:
    """Say what this rank has from the thread that has created it."""
    queue.put(inherited())


def put_description(rank: int, queue: Any) -> None:
    """Say what this rank is in."""
    queue.put(describe())


def put_main(rank: int, queue: Any, thing: Any) -> None:
    """Say what the main module is here, and what a thing of it is, which came as an argument."""
    main = sys.modules["__main__"]
    queue.put(
        {
            "name": main.__name__,
            "file": getattr(main, "__file__", None) and os.path.basename(main.__file__ or ""),
            "is __mp_main__": main is sys.modules.get("__mp_main__"),
            "seen at its import": getattr(main, "SEEN", None),
            "class": None if thing is None else [type(thing).__module__, type(thing) is main.Thing],  # type: ignore[attr-defined]
            "argv": sys.argv[1:],
        }
    )


def put_executable(rank: int, queue: Any) -> None:
    """Say by which interpreter this rank runs, and what was said to it."""
    queue.put((rank, os.environ.get("STARTED_BY"), os.path.basename(sys.executable)))


def put_value(rank: int, queue: Any, module: str) -> None:
    """Say what a module has, and whether it was there before anybody here has asked for it."""
    before = module in sys.modules
    queue.put((before, importlib.import_module(module).VALUE))


def put_input(rank: int, queue: Any) -> None:
    """Say what can be read."""
    queue.put((rank, sys.stdin.read()))


def put_family(rank: int, queue: Any) -> None:
    """Say how this rank is called, and how a process that it starts is."""
    process = multiprocessing.current_process()
    child = multiprocessing.get_context("spawn").Process(target=ranks.nothing)
    queue.put((rank, process.name, process._identity, child.name, child._identity))  # type: ignore[attr-defined]


def make_shared_memory(rank: int, queue: Any) -> None:
    """Make memory, write into it, and leave it to the supervisor."""
    memory = SharedMemory(create=True, size=8)
    memory.buf[0] = rank + 1
    memory.close()
    queue.put((rank, memory.name))


def make_semaphore_and_die(rank: int, queue: Any) -> None:
    """Make a semaphore, whose name only this rank knows, and die without removing it."""
    semaphore = multiprocessing.get_context("spawn").Semaphore(1)
    queue.put((rank, semaphore._semlock.name))  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)


def put_files(rank: int, queue: Any, _handed_over: Any) -> None:
    """Say what is open beside the standard streams, by the kernel's names: each pipe and socket has its own.

    But for the library's own file that some builds of libffi keep open, wherever ctypes is imported, as here.
    """
    names = set()
    for fd in os.listdir("/proc/self/fd"):
        if int(fd) > 2:
            with contextlib.suppress(FileNotFoundError):  # the folder that is listed
                names.add(os.readlink(f"/proc/self/fd/{fd}"))
    queue.put(sorted(name for name in names if not os.path.basename(name).startswith("libffi.so")))


def segfault(rank: int) -> None:
    """Die as a broken extension does, without a core file."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(1)  # of address 0 PyPy makes an empty string


def put_whether_frozen(rank: int, queue: Any) -> None:
    """Say whether most of what is here is out of the collector's sight."""
    queue.put(gc.get_freeze_count() > len(gc.get_objects()))


def give_up_rights_and_stay(rank: int, gate: ranks.Gate, queue: Any) -> None:
    """Be nobody, say which death signal is left, and stay."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ranks.put_death_signal(rank, queue)
    gate.arrive()
    ranks.stay()


def lock_and_die(rank: int, queue: Any, memory: SharedMemory) -> None:
    """Lock the mutex in that memory, say what came of it, and end without unlocking it."""
    mutex = ctypes.c_char.from_buffer(memory.buf)
    queue.put(ctypes.CDLL(None).pthread_mutex_lock(ctypes.byref(mutex)))
    os._exit(0)

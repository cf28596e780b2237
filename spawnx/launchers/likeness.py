"""What a zygote must have been started with to serve a call: what a clone of it can't take on afterwards.

That is what fork(2) gives a child from the thread that creates it (the kernel's list: see csrc/inherited.c, and what
/proc has of a thread), and what is read when an interpreter or a slow module starts. The rest is in
`ipc.inherited`.

Not on it, as no system call tells: rules of landlock(7) that were added when the process had no_new_privs already.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from spawnx import vetted
from spawnx.ipc import inherited
from spawnx.mp import interpreter
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.launchers.template import TemplateRequest

# What is read when an interpreter or the C library starts: the beginnings of names.
_READ_AT_START = (b"PYTHON", b"LD_", b"GLIBC_", b"MALLOC_", b"LANG", b"LC_", b"TZ", b"BROWSER")
# And when a module that takes long to import is imported.
_READ_EARLY = (*_READ_AT_START, *vetted.READ_AT_IMPORT)
# Of the thread's status (proc_pid_status(5)). The rest is of a moment, or taken on.
_STATUS = (
    b"Uid", b"Gid", b"Groups", b"SigIgn", b"Cap", b"NoNewPrivs", b"Seccomp", b"Speculation", b"THP_enabled",
    b"untag_mask", b"Mems_allowed_list",
)  # fmt: skip
# Files of the thread's folder in /proc, where there are such.
_FILES = (
    "attr/apparmor/current", "attr/apparmor/exec", "attr/current", "attr/exec", "attr/fscreate", "attr/keycreate",
    "attr/smack/current", "attr/sockcreate", "cgroup", "coredump_filter", "loginuid", "oom_score_adj", "sessionid",
)  # fmt: skip
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")


def of(request: TemplateRequest, modules: tuple[str, ...]) -> dict[str, object]:
    """What a zygote that imports some modules must have been started with, by names for people.

    To be called in the launching thread, which has what the caller's has.

    Raises:
        OSError: it can't be told; there is no /proc.
    """
    found: dict[str, object] = {
        "the modules to import": modules,
        "the interpreter": interpreter.executable(),
        "its options": interpreter.options(),
        "the process group": os.getpgrp(),
        "the session": os.getsid(0),
        "the standard streams that are open": inherited.open_streams(),
        "the hard limits": [resource.getrlimit(limit)[1] for limit in inherited.LIMITS],
        "the limit of stacks": resource.getrlimit(
            resource.RLIMIT_STACK
        ),  # read by libc, for the stacks of threads
        **{
            f"{os.fsdecode(name)} in the environment": os.environb[name]
            for name in os.environb
            if _is_early(name)
        },
        **_inherited(),
    }
    if modules:  # libraries count the processors when they are loaded
        found["the processors"] = sorted(request.affinity or ())
    if not all(map(vetted.is_vetted, modules)):  # which file a name stands for
        found["sys.path"] = sys.path[:]
    return found


def changed(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """What is not as it was, by its names."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _is_early(name: bytes) -> bool:
    return name.startswith(_READ_EARLY)


def _inherited() -> dict[str, object]:
    with standard_library():
        from spawnx.backends import native

    found: dict[str, object] = dict(native.inherited())
    with open("/proc/thread-self/status", "rb") as status:  # Linux 3.17
        lines = [line.partition(b":") for line in status if line.startswith(_STATUS)]
    found |= {name.decode(): value for name, _, value in lines}
    for name in _FILES:
        with contextlib.suppress(OSError), open(f"/proc/thread-self/{name}", "rb") as file:
            found[name] = file.read()
    for name in _NAMESPACES:
        with contextlib.suppress(FileNotFoundError):
            found[f"the namespace {name}"] = os.readlink(f"/proc/thread-self/ns/{name}")
    found["the root folder"] = os.readlink("/proc/thread-self/root")
    return found

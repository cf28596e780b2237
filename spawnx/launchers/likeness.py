"""The surroundings that a zygote must have been started with to serve a call: its clones can't change them later.

They are the attributes that fork(2) copies from the creating thread, and all that an interpreter or a slow module reads
at its start. The kernel's list is in csrc/inherited.c and in the thread's files in /proc. `ipc.inherited` has the
attributes that a clone can change.

Landlock(7) rules are missing if they were added when the process already had no_new_privs: no system call returns them.
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

# Prefixes of the variables that an interpreter or the C library reads at its start.
_READ_AT_START = (b"PYTHON", b"LD_", b"GLIBC_", b"MALLOC_", b"LANG", b"LC_", b"TZ", b"BROWSER")
# Those, and prefixes of the variables that a slow module reads at its import.
_READ_EARLY = (*_READ_AT_START, *vetted.READ_AT_IMPORT)
# Fields of the thread's status (proc_pid_status(5)). The others change from moment to moment, or a clone sets them.
_STATUS = (
    b"Uid", b"Gid", b"Groups", b"SigIgn", b"Cap", b"NoNewPrivs", b"Seccomp", b"Speculation", b"THP_enabled",
    b"untag_mask", b"Mems_allowed_list",
)  # fmt: skip
# Files of the thread's folder in /proc; a kernel may lack some.
_FILES = (
    "attr/apparmor/current", "attr/apparmor/exec", "attr/current", "attr/exec", "attr/fscreate", "attr/keycreate",
    "attr/smack/current", "attr/sockcreate", "cgroup", "coredump_filter", "loginuid", "oom_score_adj", "sessionid",
)  # fmt: skip
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")


def of(request: TemplateRequest, modules: tuple[str, ...]) -> dict[str, object]:
    """Return the surroundings that a zygote with these modules must have been started with, by readable names.

    Call it in the launching thread, which has all attributes of the caller's thread.

    Raises:
        OSError: an attribute can't be read, for example because there is no /proc.
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
    if not all(map(vetted.is_vetted, modules)):  # it decides which file is imported under a name
        found["sys.path"] = sys.path[:]
    return found


def changed(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """Return the names of the surroundings that have changed."""
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

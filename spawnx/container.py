"""What a container lacks or limits, and what that costs: for `python -m spawnx`. See docs/containers.md."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile

from spawnx import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What is missing, what that costs, what to do.
    Lack = tuple[str, str, str]

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at, never written
_MIB = 1 << 20
_ST_NOEXEC = 8  # <sys/statvfs.h>; PyPy's `os` lacks it
# In MiB. Docker's default is 64; programs that share tensors need about this much.
_ENOUGH_SHARED = 1024
# The most processes and threads that a call has besides its ranks.
_BESIDE_RANKS = 5


def lacks(ranks: int, cpus: int) -> list[Lack]:
    """Return what this system lacks.

    Args:
        ranks: the number of ranks of the coming call.
        cpus: the number of threads in a rank that computes in parallel.
    """
    if sys.platform != "linux":
        return []
    found = [_proc(), _shared_memory(), _processes(ranks, cpus), _init(), _temporary(), _bytecode()]
    return [lack for lack in found if lack]


def _proc() -> Lack | None:
    if os.path.isdir("/proc/self"):
        return None
    cost = "ranks are not cloned; a timeout waits 2 s for stacks; the container's limits can't be read"
    return "no /proc", cost, "mount it"


def _shared_memory() -> Lack | None:
    try:
        about = os.statvfs(_SHARED_MEMORY)
    except OSError:
        about = None
    if about is None or not os.access(_SHARED_MEMORY, os.W_OK):
        cost = "multiprocessing can't make locks and queues, nor torch shared tensors; spawnx needs none"
        return f"no writable {_SHARED_MEMORY}", cost, "mount a tmpfs there"
    size, free = (blocks * about.f_frsize // _MIB for blocks in (about.f_blocks, about.f_bavail))
    if size >= _ENOUGH_SHARED:
        return None
    cost = "when shared tensors, DataLoader workers or NCCL fill it, they raise or die by SIGBUS; spawnx needs none"
    return f"{size} MiB {_SHARED_MEMORY}", f"{free} MiB are free: {cost}", "docker run --shm-size=8g"


def _processes(ranks: int, cpus: int) -> Lack | None:
    room = cgroup.room_for_processes()
    if room is None or room[0] >= ranks + _BESIDE_RANKS + ranks * cpus:
        return None
    takes = f"{ranks} {'rank' if ranks == 1 else 'ranks'} and up to {_BESIDE_RANKS} more for spawnx"
    threads = f"{cpus} threads in each rank that computes in parallel"
    cost = f"room for {room[0]} more processes and threads, but a call takes {takes}, and {threads}"
    return f"pids.max of {room[1]}", cost, "docker run --pids-limit"


def _init() -> Lack | None:
    if os.getpid() != 1:
        return None
    cost = "as pid 1, this process ends by SIGTERM only if it handles that, and gets the zombies of orphans"
    return "no init", cost, "docker run --init"


def _temporary() -> Lack | None:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        cost = f"ranks report in {_SHARED_MEMORY}; multiprocessing's forkserver and managers fail"
        return "no temporary folder", cost, "mount a tmpfs on /tmp"
    if not os.statvfs(folder).f_flag & _ST_NOEXEC:
        return None
    cost = "what torch.compile and the like build there can't be loaded; spawnx runs nothing there"
    return f"noexec {folder}", cost, "set TORCHINDUCTOR_CACHE_DIR"


def _bytecode() -> Lack | None:
    if os.path.exists(importlib.util.cache_from_source(__file__)):
        return None
    cost = "each interpreter that is started compiles spawnx again (30 ms), and whatever else has none"
    return "no bytecode", cost, "python -m compileall when the image is built"

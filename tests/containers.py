"""Containers: what they lack or limit, each made on its own around a command, by bubblewrap or `unshare`."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import ranks

# Everything as it is outside, but for what is changed after it.
_BWRAP = ["bwrap", "--die-with-parent", "--bind", "/", "/", "--dev-bind", "/dev", "/dev"]
_READ_ONLY = ["bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
_PID_1 = ["--unshare-pid", "--as-pid-1", "--proc", "/proc"]
# A mount namespace, for root, and for who isn't.
_MOUNTS = (
    ["unshare", "--mount"] if hasattr(os, "getuid") and os.getuid() == 0 else ["unshare", "-Ur", "--mount"]
)
# Docker's default.
SHARED = 64 << 20
# How long what ends by itself may take.
SETTLE_S = 5.0
# For the supervisor, two ranks, and what a call has besides.
PROCESSES = 16


def _then(script: str) -> list[str]:
    """Do something in a mount namespace, and go on as the command."""
    return [*_MOUNTS, "sh", "-ec", f'{script}; exec "$@"', "sh"]


# By name: the command in front of the command.
_PREFIXES: dict[str, list[str]] = {
    "plain": [],
    "no /proc": [*_BWRAP, "--tmpfs", "/proc"],
    "small /dev/shm": [*_BWRAP, "--size", str(SHARED), "--tmpfs", "/dev/shm"],  # noqa: S108
    "read-only /dev/shm": [*_BWRAP, "--tmpfs", "/dev/shm", "--remount-ro", "/dev/shm"],  # noqa: S108
    "pid 1": [*_BWRAP, *_PID_1],
    "read-only root": [*_READ_ONLY, "--unshare-pid"],
    "noexec /tmp": _then('mount -t tmpfs -o noexec,nosuid,nodev tmpfs "$TMPDIR"'),
    "user namespace": ["unshare", "--user", "--map-root-user"],
    "unmapped user": ["unshare", "--user"],
    "all namespaces": [*_BWRAP, "--unshare-all", "--proc", "/proc"],
    "pids.max": [],
    # What `docker run --read-only` and Kubernetes' restricted pods have.
    "restricted": [
        *_READ_ONLY, "--size", str(SHARED), "--tmpfs", "/dev/shm",  # noqa: S108
        "--unshare-all", "--as-pid-1", "--cap-drop", "ALL",
    ],
}  # fmt: skip
ALL = list(_PREFIXES)
# In which the supervisor is pid 1.
AS_PID_1 = ["pid 1", "restricted"]


@contextlib.contextmanager
def container(name: str) -> Iterator[Callable[[list[str]], list[str]]]:
    """Make one; gives what turns a command into one that runs in it.

    Raises:
        OSError: it can't be made here; the text says why.
    """
    if why := _why_not(name):
        raise OSError(why)
    with _group(PROCESSES) if name == "pids.max" else contextlib.nullcontext([]) as entered:
        yield lambda command: [*entered, *_PREFIXES[name], *command]


@functools.cache
def _why_not(name: str) -> str:
    """Why it can't be made; "" if it can."""
    prefix = _PREFIXES[name]
    if prefix and shutil.which(prefix[0]) is None:
        return f"needs {prefix[0]}, which is not installed"
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    return f"{prefix[0]} can't make it here: {done.stderr.strip()}" if done.returncode else ""


@contextlib.contextmanager
def _group(most: int) -> Iterator[list[str]]:
    """A control group in which there may be so many processes; gives what enters it."""
    group = _pids_folder() / f"spawnx-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "pids.max").write_text(str(most))
        yield ["sh", "-ec", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        until = time.monotonic() + SETTLE_S
        while (group / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.01)  # a zygote ends just after its supervisor
        group.rmdir()


def _pids_folder() -> Path:
    """The folder of our own group, v1 or v2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        place = "/sys/fs/cgroup/pids" if "pids" in controllers.split(",") else "/sys/fs/cgroup"
        folder = Path(place + path)
        if (folder / "pids.max").exists() or place.endswith("pids"):
            return folder
    raise FileNotFoundError("no control group here limits processes")


def be_there(rank: int) -> None:
    """As a rank, say that it is there, and stay."""
    os.write(1, b"ready\n")
    ranks.stay()


def be_deaf(rank: int) -> None:
    """Likewise, and ignore what asks to end."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    be_there(rank)


def fill_shared_memory(rank: int) -> None:
    """As rank 1, write more than there is into shared memory; its name is gone, so that nothing is left."""
    if rank == 1:
        with open("/dev/shm/spawnx-test", "w+b") as file:  # noqa: S108
            os.unlink(file.name)
            os.truncate(file.fileno(), 2 * SHARED)
            with mmap.mmap(file.fileno(), 2 * SHARED) as memory:
                for at in range(0, len(memory), mmap.PAGESIZE):
                    memory[at] = 1


def leave_an_orphan(rank: int, supervisor: int, number: int) -> None:
    """As a rank, leave a process of a process, which writes its pid into the supervisor's pipe and exits with 7."""
    answers = os.open(f"/proc/{supervisor}/fd/{number}", os.O_WRONLY)
    left, leaves = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(leaves)
            os.read(left, 1)  # until its parent and the rank have ended
            os.write(answers, b"%d\n" % os.getpid())
            os._exit(7)
        os._exit(0)
    os.wait()

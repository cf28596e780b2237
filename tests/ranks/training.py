"""A rank of a real training over gloo."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any


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

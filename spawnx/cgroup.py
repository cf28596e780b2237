"""The control groups of this process: the limits of a container, and the counters of their effects."""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACE = "/sys/fs/cgroup"


def files(controller: str, v1: str, v2: str) -> list[str]:
    """Return the paths where a file of this process's group may be, for cgroup v1, v2 or both; likely ones first.

    Args:
        controller: the file's controller, by its v1 name.
        v1: the file's name in cgroup v1.
        v2: its name in cgroup v2.
    """
    return [os.path.join(folder, name) for folder, name in _folders(controller, v1, v2)]


def _folders(controller: str, v1: str, v2: str) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                mounts, name = [f"{_PLACE}/{controller}"], v1
            elif number == "0":
                mounts, name = [_PLACE, f"{_PLACE}/unified"], v2
            else:
                continue
            for mount in mounts:
                yield mount + path.rstrip("/"), name
                # The path may be the host's, while a container has its own group mounted at `mount`.
                yield mount, name


def room_for_processes() -> tuple[int, int] | None:
    """Return how many more processes and threads may be created, and the limit (`pids.max`); None without a limit.

    The limits of all parent groups count as well.
    """
    rooms = []
    for path in files("pids", "pids.max", "pids.max"):
        folder = os.path.dirname(path)
        while folder.startswith(_PLACE):
            with contextlib.suppress(OSError, ValueError):
                most = _read(folder, "pids.max")
                rooms.append((max(0, most - _read(folder, "pids.current")), most))
            folder = os.path.dirname(folder)
    return min(rooms, default=None)


def _read(folder: str, name: str) -> int:
    """The number in a file.

    Raises:
        OSError, ValueError: the file does not exist, or contains "max".
    """
    with open(os.path.join(folder, name), encoding="ascii") as file:
        return int(file.read())

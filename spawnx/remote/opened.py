"""Which files the imports of a template have opened, and which module's import each."""

from __future__ import annotations

import contextlib
import os

# Drivers keep state for the process that has opened one of these, and no clone may share it.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/dxg", "/dev/accel")
_MOST_NAMED = 8


class Opened:
    """What was opened since this was made."""

    def __init__(self) -> None:
        self._before = _files().keys()
        self._modules: dict[tuple[str, str], str] = {}

    def device_after(self, module: str) -> str:
        """Look at what is open when a module was imported; the file of a device among it, or "".

        What was a driver's once is no longer looked for at the end: a later import may have closed it, but the driver
        still knows this process.
        """
        new = self._new()
        for fd_and_file in new:
            self._modules.setdefault(fd_and_file, module)
        found = [*(file for _, file in new), *_mapped_devices()]
        return next((file for file in found if file.startswith(_DEVICES)), "")

    def left(self) -> list[str]:
        """What is still open, in words."""
        new = [(self._modules.get(opened, "a module"), opened[1]) for opened in self._new()]
        return [f"the import of {module} left {file} open" for module, file in new[:_MOST_NAMED]]

    def _new(self) -> list[tuple[str, str]]:
        new = [(fd, file) for fd, file in _files().items() if fd not in self._before]
        return [(fd, file) for fd, file in new if not is_code_that_runs(int(fd))]


def is_code_that_runs(fd: int) -> bool:
    """Whether an fd can only read a library that runs here: libffi may keep its own, to map its code once more.

    Where it was built with static trampolines, it does so when it is loaded: by ctypes, which numpy imports.
    Clones have no state in common by it: it is mapped by offsets, and each maps for itself.
    """
    try:
        if os.get_inheritable(fd) or _flags(fd) & os.O_ACCMODE != os.O_RDONLY:
            return False
        file = os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:  # that by which the folder was listed
        return False
    with open("/proc/self/maps", "rb") as maps:
        return any(line.rstrip(b"\n").endswith(b" " + file) and b" r-xp " in line for line in maps)


def _flags(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
        return int(next(line for line in lines if line.startswith(b"flags:")).split()[1], 8)


def _files() -> dict[str, str]:
    """The fds of this process, and what each refers to."""
    files = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder that was listed
            files[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return files


def _mapped_devices() -> list[str]:
    """The devices in this process's memory: a mapping outlives its fd."""
    with open("/proc/self/maps", "rb") as maps:
        lines = [line for line in maps if b" /dev/" in line]
    files = [os.fsdecode(line.split(None, 5)[5]).strip() for line in lines]
    return [file for file in files if file.startswith(_DEVICES)]

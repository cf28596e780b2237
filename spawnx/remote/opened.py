"""Find the files that the imports of a template have opened, and the module whose import opened each."""

from __future__ import annotations

import contextlib
import os

# Drivers keep state for the process that has opened one of these, and no clone may share it.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/dxg", "/dev/accel")
_MOST_NAMED = 8


class Opened:
    """The files that were opened since this object was made."""

    def __init__(self) -> None:
        self._before = _files().keys()
        self._modules: dict[tuple[str, str], str] = {}

    def device_after(self, module: str) -> str:
        """Note the files that are open after the import of a module; return the first device among them, or "".

        To be called after each import, not once at the end. A later import may close the device, but the driver keeps
        its state for this process.
        """
        new = self._new()
        for fd_and_file in new:
            self._modules.setdefault(fd_and_file, module)
        found = [*(file for _, file in new), *_mapped_devices()]
        return next((file for file in found if file.startswith(_DEVICES)), "")

    def left(self) -> list[str]:
        """Return texts that describe the files that are still open."""
        new = [(self._modules.get(opened, "a module"), opened[1]) for opened in self._new()]
        return [f"the import of {module} left {file} open" for module, file in new[:_MOST_NAMED]]

    def _new(self) -> list[tuple[str, str]]:
        new = [(fd, file) for fd, file in _files().items() if fd not in self._before]
        return [(fd, file) for fd, file in new if not is_code_that_runs(int(fd))]


def is_code_that_runs(fd: int) -> bool:
    """Return whether an fd is read-only, and of a library loaded here: libffi may keep one to map its code again.

    libffi does so when it is loaded, if it was built with static trampolines: by ctypes, which numpy imports. Clones
    share no state by this fd: it is mapped by offsets, and each clone maps for itself.
    """
    try:
        if os.get_inheritable(fd) or _flags(fd) & os.O_ACCMODE != os.O_RDONLY:
            return False
        file = os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:  # the fd that listed the folder
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
        with contextlib.suppress(FileNotFoundError):  # the fd that listed the folder
            files[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return files


def _mapped_devices() -> list[str]:
    """The devices in this process's memory: a mapping outlives its fd."""
    with open("/proc/self/maps", "rb") as maps:
        lines = [line for line in maps if b" /dev/" in line]
    files = [os.fsdecode(line.split(None, 5)[5]).strip() for line in lines]
    return [file for file in files if file.startswith(_DEVICES)]

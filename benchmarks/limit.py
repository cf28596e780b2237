"""The floor of join: limit.c, compiled at run time, or the same loops in Python if there is no C compiler."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("limit.c")
_COMPILER = shlex.split(os.environ.get("CC", "cc"))


def kind() -> str:
    """Describe the floor that is used on this machine."""
    return "limit.c" if shutil.which(_COMPILER[0]) else "os.waitpid, as there is no C compiler"


@functools.cache
def load() -> Any:
    """Return the compiled loops; None without a C compiler. Called before anything is timed."""
    if not shutil.which(_COMPILER[0]):
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "limit.so")
        subprocess.run([*_COMPILER, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
        return ctypes.CDLL(str(library))


class Limit:
    """Waits for children in a bare loop."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Take the children's pids."""
        self._pids = pids
        self._array = (ctypes.c_int * len(pids))(*pids)
        self._left = len(pids)
        self._loops = load() or _Loops

    def wait_any(self) -> None:
        """Wait for one more child, any of them, and check that it ended well."""
        assert self._loops.limit_wait_any() > 0
        self._left -= 1

    def wait_all(self) -> None:
        """Wait for all remaining children, and check that they ended well."""
        assert self._loops.limit_wait_all(self._array, len(self._array)) == self._left

    def end_all(self) -> None:
        """Wait until one child has ended, send SIGTERM to all, and wait for them."""
        assert self._loops.limit_end_all(self._array, len(self._array)) == self._left


class _Loops:
    """The loops of limit.c in Python."""

    @staticmethod
    def limit_wait_any() -> int:
        pid, status = os.wait()
        return pid if status == 0 else -1

    @staticmethod
    def limit_wait_all(pids: Iterable[int], _n: int) -> int:
        reaped = 0
        for pid in pids:
            with suppress(ChildProcessError):
                if os.waitpid(pid, 0)[1] != 0:
                    return -1
                reaped += 1
        return reaped

    @staticmethod
    def limit_end_all(pids: ctypes.Array[ctypes.c_int], _n: int) -> int:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        return sum(os.waitpid(pid, 0)[0] == pid for pid in pids)

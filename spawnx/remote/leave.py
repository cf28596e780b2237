"""The end of a clone: that of a fresh interpreter where anything could tell, and at once where nothing can.

To finalize an interpreter is to take apart every module, and so to copy every page that a clone shared until then: 4
of a light rank's 6 ms, and nearly all of a torch rank's 300. What a program can see of it is that objects which live
until the end are finalized: buffers are flushed, `__del__` is called. So those that the rank has made are looked at.
What the template had made before is the standard library's, or a vetted one's, and needs no end of its own; where it
has imported anything else, all is as ever.

Forked ranks always end at once, as multiprocessing has it, whatever they have made.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from _io import _IOBase  # not io.IOBase: an abstract class asks itself at length what it is
from importlib.machinery import EXTENSION_SUFFIXES
from types import FunctionType, ModuleType

from spawnx import mp_private
from spawnx.backends import native
from spawnx.remote import preload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

# Extension modules of the standard library whose objects write when they are deallocated, and have no `__del__`.
_WRITES_LATE = {"_dbm", "_gdbm", "_sqlite3"}
# Libraries that are there to look on, and may write at the end what they saw.
_ONLOOKERS = ("LD_PRELOAD", "LD_AUDIT")
_OURS = {"spawnx", "_cffi_backend"}


class Ending:
    """How a clone is to end; made in its template, before it is cloned.

    Args:
        imported: the modules that the template was told to import.
    """

    def __init__(self, imported: Iterable[str]) -> None:
        self._may_be_short = (
            not any(name in os.environ for name in _ONLOOKERS)
            and all(map(preload.is_known, imported))
            and not any(map(_has_unknown_end, list(sys.modules.values())))
        )
        self._loaded = native.loaded()
        self._witness: list[object] = []

    def begin(self) -> None:
        """In a clone: from now on, what is made is its own."""
        # Found by the collector at the end, unless somebody has frozen what is the rank's.
        self._witness = []

    def leave(self, code: int) -> NoReturn:
        """End this process, whose `Process` has been bootstrapped; `code` is what `sys.exit` would be given."""
        mp_private.run_exit_functions("spawn")
        if self._may_be_short and -(2**31) <= code < 2**31:
            gc.collect()
            if not self._has_finalizers(gc.get_objects()):
                # What can't be flushed is to be told as ever: by an exception here, by exit code 120 there.
                mp_private.flush_streams()
                native.leave(code)
        sys.exit(code)

    def _has_finalizers(self, made: list[object]) -> bool:
        """Whether anything that this process has made, and that lives, would be told that the interpreter ends.

        Args:
            made: what the collector tracks: not what it was told to freeze before the clone.
        """
        try:
            extensions = [one for one in made if issubclass(type(one), ModuleType) and _is_extension(one)]
            return (
                not any(one is self._witness for one in made)
                # Libraries that no module has brought: by ctypes, and by modules that need others.
                or native.loaded() > self._loaded + len(extensions)
                or any(map(_has_unknown_end, extensions))
                or any(map(_is_told, made))
                or not preload.may_end()
            )
        except Exception:  # noqa: BLE001 - objects that can't even be looked at: let the interpreter deal with them
            return True


def _is_extension(module: object) -> bool:
    return preload.spec_of(module)[1].endswith(tuple(EXTENSION_SUFFIXES))


def _has_unknown_end(module: object) -> bool:
    """Whether a module is an extension that may have something to do at the end."""
    name, origin = preload.spec_of(module)
    if name in _WRITES_LATE:
        return True
    if not _is_extension(module):
        return False
    return not (preload.is_of_library(origin) or name.partition(".")[0] in {*preload.VETTED, *_OURS})


def _is_told(one: object) -> bool:
    """Whether an object has something to do when it is finalized."""
    kind = type(one)
    if issubclass(kind, _IOBase):
        return not one.closed and not any(one is part for part in _standard_streams())  # type: ignore[attr-defined]
    if issubclass(kind, weakref.ref):
        callback = getattr(one, "__callback__", None)
        # Those in C are abstract base classes'.
        return not (callback is None or isinstance(callback, type(len)) or _is_of_stdlib(callback))
    return hasattr(kind, "__del__")


def _is_of_stdlib(function: object) -> bool:
    return type(function) is FunctionType and preload.is_of_stdlib(function.__module__ or "")


def _standard_streams() -> list[object]:
    """The standard streams with what is beneath them: flushed, or only read."""
    streams: list[object] = [sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__]
    for name in ("buffer", "raw"):
        streams += [getattr(stream, name, None) for stream in streams]
    return streams

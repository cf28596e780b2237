"""The end of a clone: that of a fresh interpreter where anything could tell, and at once where nothing can.

To finalize an interpreter is to take apart every module, and so to copy every page that a clone shared until then: 4
of a light rank's 6 ms, and nearly all of a torch rank's 300. What a program can see of it is that objects which live
until the end are finalized: buffers are flushed, `__del__` is called. So those that the rank has made are looked at;
what the template had made before needs no end of its own, once the functions of `atexit` have run.

Forked ranks always end at once, as multiprocessing has it, whatever they have made.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from _io import _IOBase  # not io.IOBase: an abstract class asks itself at length what it is
from importlib.machinery import EXTENSION_SUFFIXES

from spawnx import mp_private
from spawnx.backends import native
from spawnx.remote import preload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

# Extension modules of the standard library whose objects write when they are deallocated, and have no `__del__`.
_WRITES_LATE = {"_dbm", "_gdbm"}


def may_be_short(modules: Iterable[object]) -> bool:
    """Whether processes that have loaded these modules may end without being finalized, as far as these go.

    Not where libraries may have finalizers of their own in C: only vetted ones are known.
    """
    return "LD_PRELOAD" not in os.environ and not any(map(_has_unknown_end, modules))


def leave(code: int, *, may_be_short: bool) -> NoReturn:
    """End this process, whose `Process` has been bootstrapped, with an exit code.

    Args:
        code: what `sys.exit` would be given.
        may_be_short: whether what was loaded before the clone allows a short end.
    """
    mp_private.run_exit_functions("spawn")
    if may_be_short and -(2**31) <= code < 2**31:
        gc.collect()
        if not _has_finalizers(gc.get_objects()) and preload.may_end():
            # What can't be flushed is to be told as ever: by an exception here, by exit code 120 there.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            native.leave(code)
    sys.exit(code)


def _has_unknown_end(module: object) -> bool:
    """Whether a module is an extension that may have something to do at the end."""
    spec = getattr(module, "__spec__", None)
    origin, name = getattr(spec, "origin", None), str(getattr(spec, "name", ""))
    if name in _WRITES_LATE:
        return True
    if not isinstance(origin, str) or not origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return False
    return not (preload.is_of_library(origin) or name.partition(".")[0] in {*preload.VETTED, *_OURS})


_OURS = {"spawnx", "_cffi_backend"}


def _has_finalizers(made: list[object]) -> bool:
    """Whether anything that this process has made, and that lives, would be told that the interpreter ends.

    Args:
        made: what the collector tracks: not what it was told to freeze before the clone.
    """
    kinds = set(map(type, made))
    told = {kind for kind in kinds if hasattr(kind, "__del__") or issubclass(kind, weakref.ref)}
    return (
        any(kind.__module__ == "ctypes" and kind.__name__ == "CDLL" for kind in kinds)
        or not all(issubclass(kind, (_IOBase, weakref.ref)) for kind in told)
        or any(_is_told(one) for one in made if type(one) in told)
        or any(_has_unknown_end(one) for one in made if isinstance(one, type(sys)))
    )


def _is_told(one: object) -> bool:
    """Whether a stream, or a weak reference, has something to do at the end."""
    if isinstance(one, _IOBase):
        return not one.closed and not any(one is part for part in _standard_streams())
    callback = getattr(one, "__callback__", None)
    if callback is None or isinstance(callback, type(len)):  # in C: abstract base classes have them
        return False
    module = str(getattr(callback, "__module__", None))
    return module.partition(".")[0] not in sys.stdlib_module_names


def _standard_streams() -> list[object]:
    """The standard streams with what is beneath them: flushed, or only read."""
    streams: list[object] = [sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__]
    for name in ("buffer", "raw"):
        streams += [getattr(stream, name, None) for stream in streams]
    return streams

"""The end of a clone: that of any interpreter, but for what the template shares with all its clones.

To finalize an interpreter is to take every module apart, and so to copy every page that a clone shared until then: 6 of
a light rank's 9 ms, and nearly all of a torch rank's 250. What a program can see of it is that objects are destroyed:
buffers are written, `__del__` is called. The rank's own objects are destroyed as ever. The template's are spared: they
are the standard library's or a vetted one's, and nothing outside can see their end. There are three ends:

* The *long* end is CPython's own.
* The *cut* end is CPython's own as well, up to the point where the rank's modules are gone and the template's are next:
  CPython clears modules in the reverse order of their import. There the first object of the template's to be destroyed
  looks whether anything lives that must be destroyed, too. If so, CPython goes on; if not, the process ends.
* The *short* end comes before all that, if the rank has made nothing whose destruction can be seen.

Forked ranks end as multiprocessing has it: at once, whatever they have made.
"""

from __future__ import annotations

import _thread
import faulthandler
import gc
import os
import sys
import types
import weakref
from io import StringIO, TextIOWrapper

from spawnx import vetted
from spawnx.backends import native
from spawnx.mp import boot
from spawnx.remote import preload, quiet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

# Libraries that are there to look on, and may write at the end what they saw.
_ONLOOKERS = ("LD_PRELOAD", "LD_AUDIT")
# Modules by which Python code loads libraries in C; others bring those that they are linked with.
_LOADERS = {"_ctypes", "cffi"}
# The last module that a template imports: the first of its modules that CPython clears.
_LAST = "spawnx.remote.last"
# Visits to objects that the collector doesn't track, after which the interpreter is left to deal with them.
_BUDGET = 5_000_000


class FastExit:
    """How a clone is to end; made in its template, as the last thing before it is cloned.

    Args:
        imported: the modules that the template was told to import.
        startup_code: whether code that isn't known has run in it before.
    """

    def __init__(self, imported: Iterable[str], *, startup_code: bool) -> None:
        self._is_known = (
            not startup_code
            and not any(name in os.environ for name in _ONLOOKERS)
            and all(map(preload.is_known, imported))
            and not any(map(quiet.is_unknown_extension, list(sys.modules.values())))
        )
        self._witness = _Witness()
        if not self._is_known:
            return
        vetted.note_constructors()
        kinds = [kind for kind in quiet.types_of_interpreter() if kind is not _Witness]
        self._survey = native.Survey(kinds, quiet.EACH, _BUDGET)
        # Weak: a stream that is replaced may be flushed by being destroyed.
        streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
        self._streams = [weakref.ref(stream) for stream in streams.values() if stream is not None]
        self._last = types.ModuleType(_LAST)
        # What CPython would destroy on its way. The module is in its own list: nothing frees it before it is cleared.
        self._spared: list[object] = [*sys.modules.values(), sys.path_importer_cache, self._last]
        self._last.spared = self._spared  # type: ignore[attr-defined]
        sys.modules[_LAST] = self._last
        _load_unwinder()
        self._loaded = native.loaded()
        native.begin_exit()

    def start(self) -> None:
        """In a clone: from now on, what is made is its own."""
        # Found by the collector at the end, unless somebody has frozen what is the rank's.
        self._witness = _Witness()

    def leave(self, code: int) -> NoReturn:
        """End this process, whose `Process` has been bootstrapped; `code` is what `sys.exit` would be given."""
        boot.run_exit_functions("spawn")
        if self._is_known and -(2**31) <= code < 2**31 and self._may_be_cut():
            if self._is_quiet() and self._are_flushed():
                native.leave(code)
            # By its name it is cleared before the list.
            self._last._end = _AtLast(self, code)  # type: ignore[attr-defined]  # noqa: SLF001
        else:
            self._spare_nothing()
        sys.exit(code)

    def cut(self, code: int) -> None:
        """In the middle of the finalization: end here, unless something is left that must be destroyed."""
        gc.collect()
        if vetted.may_end() and self._is_quiet() and self._are_flushed():
            native.leave(code)
        # As if nothing had been spared: what nobody refers to is collected first, the rest is cleared then.
        self._unfreeze()
        self._spared.clear()
        gc.collect()

    def _spare_nothing(self) -> None:
        """Leave all to CPython, which collects nothing that is frozen."""
        if self._is_known:
            sys.modules.pop(_LAST, None)
            vars(self._last).clear()
            self._spared.clear()
        # What is quiet needs no destruction; to collect all that the template has made takes its time, and copies it.
        if not (self._is_known and self._is_quiet()):
            self._unfreeze()

    def _unfreeze(self) -> None:
        """Give back to the collector what the template has frozen, unless the rank has frozen what is its own."""
        if any(one is self._witness for one in gc.get_objects()):
            gc.unfreeze()

    def _may_be_cut(self) -> bool:
        """Whether nothing but Python's objects may have something to do at the end."""
        if _thread._count() or len(sys._current_frames()) > 1 or not vetted.may_end():  # noqa: SLF001
            return False
        extensions = [module for module in self._own_modules() if preload.is_extension(module)]
        if any(map(quiet.is_unknown_extension, extensions)) or self._may_have_libraries(len(extensions)):
            return False
        # What can't be flushed is to be seen as ever: by exit code 120.
        return all(map(_is_flushed, _streams_in_use()))

    def _may_have_libraries(self, extensions: int) -> bool:
        """Whether Python code may have loaded a library in C: it has the means, and there are more than modules."""
        return not _LOADERS.isdisjoint(sys.modules) and native.loaded() > self._loaded + extensions

    def _own_modules(self) -> list[object]:
        """What this process has imported; not what it has put in the place of a module of the template's."""
        own: list[object] = []
        for name, module in reversed(sys.modules.items()):
            if name == _LAST:
                break
            own.append(module)
        return own

    def _is_quiet(self) -> bool:
        """Whether nothing outside can see that what this process has made, and that lives, is destroyed."""
        try:
            # Not what was frozen before the clone.
            suspects = self._survey.suspects(gc.get_objects())
            others = [one for one in suspects if type(one) not in (_Witness, _AtLast)]
            return any(one is self._witness for one in suspects) and not any(map(quiet.is_noisy, others))
        except Exception:  # noqa: BLE001 - what can't even be looked at: let the interpreter deal with it
            return False

    def _are_flushed(self) -> bool:
        """Flush the standard streams, those that the template had and those that are used now; whether all could be."""
        return all(map(_is_flushed, [*_streams_in_use(), *(reference() for reference in self._streams)]))


class _Witness:
    """An object of the rank's own, by which it is seen that the collector lists these."""


class _AtLast:
    """What is destroyed when CPython has cleared the modules of a rank, and comes to those of its template."""

    def __init__(self, fast_exit: FastExit, code: int) -> None:
        self._fast_exit = fast_exit
        self._code = code

    def __del__(self) -> None:
        self._fast_exit.cut(self._code)


def _load_unwinder() -> None:
    """Load the library by which faulthandler unwinds C stacks (CPython 3.14): here, and not in each rank."""
    if not faulthandler.is_enabled():
        faulthandler.enable(2)
        faulthandler.disable()


def _streams_in_use() -> list[object]:
    return [getattr(sys, name, None) for name in ("stdout", "stderr")]


def _is_flushed(stream: object) -> bool:
    """Flush a stream; whether that could be, and was not a matter of user code, which is asked once, by CPython."""
    if stream is None:
        return True
    if type(stream) not in (TextIOWrapper, StringIO):
        return False
    try:
        if not stream.closed:  # type: ignore[attr-defined]
            stream.flush()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - CPython meets it again, and says so
        return False
    return True

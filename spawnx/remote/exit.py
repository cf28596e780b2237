"""End a clone like any interpreter, except for the objects that the template shares with all its clones.

Finalization takes every module apart, so a clone copies every page that it shared until then. That takes 6 of a light
rank's 9 ms, and nearly all of a torch rank's 250. A program sees only that objects are destroyed: buffers are written,
`__del__` is called. The rank's own objects are destroyed as ever. The template's objects are spared: they belong to the
standard library or a vetted one, and nothing outside can see their destruction. There are three ends:

* The *long* end is CPython's own.
* The *cut* end is CPython's own as well, until the rank's modules are gone and the template's are next. (CPython clears
  modules in the reverse order of their import.) The first template object that is destroyed then looks for live objects
  that must be destroyed, too. If there are any, CPython goes on; if not, the process ends.
* The *short* end comes before all that, if the rank has made nothing whose destruction can be seen.

Forked ranks end as in multiprocessing: at once, whatever they have made.
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

# Variables that load libraries for observation, which may write their results at exit.
_ONLOOKERS = ("LD_PRELOAD", "LD_AUDIT")
# Modules with which Python code loads C libraries. Other extension modules only bring those that they are linked with.
_LOADERS = {"_ctypes", "cffi"}
# The last module that a template imports: the first of its modules that CPython clears.
_LAST = "spawnx.remote.last"
# The most visits to objects that the collector doesn't track. Beyond that, CPython finalizes the interpreter.
_BUDGET = 5_000_000


class FastExit:
    """The end of a clone. Made in the template, as the last step before it is cloned.

    Args:
        imported: the modules of the template's preload.
        startup_code: whether unknown start-up code has run in the template.
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
        # Weak references: a replaced stream may be flushed by its destruction.
        streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
        self._streams = [weakref.ref(stream) for stream in streams.values() if stream is not None]
        self._last = types.ModuleType(_LAST)
        # Objects that CPython would destroy on its way. The list contains the module: nothing frees that before CPython
        # clears it.
        self._spared: list[object] = [*sys.modules.values(), sys.path_importer_cache, self._last]
        self._last.spared = self._spared  # type: ignore[attr-defined]
        sys.modules[_LAST] = self._last
        _load_unwinder()
        self._loaded = native.loaded()
        native.begin_exit()

    def start(self) -> None:
        """Note in a clone that objects made from now on are its own."""
        # At the end the collector lists this one, unless user code has frozen the rank's objects.
        self._witness = _Witness()

    def leave(self, code: int) -> NoReturn:
        """End this process after its `Process` was bootstrapped; `code` is the argument for `sys.exit`."""
        boot.run_exit_functions("spawn")
        if self._is_known and -(2**31) <= code < 2**31 and self._may_be_cut():
            if self._is_quiet() and self._are_flushed():
                native.leave(code)
            # CPython clears names that begin with an underscore first: this one before the list.
            self._last._end = _AtLast(self, code)  # type: ignore[attr-defined]  # noqa: SLF001
        else:
            self._spare_nothing()
        sys.exit(code)

    def cut(self, code: int) -> None:
        """End the process in the middle of finalization, unless an object is left that must be destroyed."""
        gc.collect()
        if vetted.may_end() and self._is_quiet() and self._are_flushed():
            native.leave(code)
        # Go on as if nothing had been spared: unreferenced objects are collected first, then CPython clears the rest.
        self._unfreeze()
        self._spared.clear()
        gc.collect()

    def _spare_nothing(self) -> None:
        """Leave everything to CPython. Frozen objects are given back to it, unless all are quiet."""
        if self._is_known:
            sys.modules.pop(_LAST, None)
            vars(self._last).clear()
            self._spared.clear()
        # Quiet objects need no destruction. A collection of the template's objects takes time, and copies their pages.
        if not (self._is_known and self._is_quiet()):
            self._unfreeze()

    def _unfreeze(self) -> None:
        """Give the objects that the template has frozen back to the collector, unless the rank has frozen its own."""
        if any(one is self._witness for one in gc.get_objects()):
            gc.unfreeze()

    def _may_be_cut(self) -> bool:
        """Whether only Python objects may have work to do at the end."""
        if _thread._count() or len(sys._current_frames()) > 1 or not vetted.may_end():  # noqa: SLF001
            return False
        extensions = [module for module in self._own_modules() if preload.is_extension(module)]
        if any(map(quiet.is_unknown_extension, extensions)) or self._may_have_libraries(len(extensions)):
            return False
        # A stream that can't be flushed must give exit status 120, as in CPython.
        return all(map(_is_flushed, _streams_in_use()))

    def _may_have_libraries(self, extensions: int) -> bool:
        """Whether Python code may have loaded a C library: it can, and there are more new libraries than modules."""
        return not _LOADERS.isdisjoint(sys.modules) and native.loaded() > self._loaded + extensions

    def _own_modules(self) -> list[object]:
        """The modules that this process has imported, without those that it put in place of a template's module."""
        own: list[object] = []
        for name, module in reversed(sys.modules.items()):
            if name == _LAST:
                break
            own.append(module)
        return own

    def _is_quiet(self) -> bool:
        """Whether nothing outside can see the destruction of the live objects that this process has made."""
        try:
            # Objects that were frozen before the clone are not listed.
            suspects = self._survey.suspects(gc.get_objects())
            others = [one for one in suspects if type(one) not in (_Witness, _AtLast)]
            return any(one is self._witness for one in suspects) and not any(map(quiet.is_noisy, others))
        except Exception:  # noqa: BLE001 - an object can't be examined: leave it to the interpreter
            return False

    def _are_flushed(self) -> bool:
        """Flush the standard streams, those of the template and the current ones; return whether all could be."""
        return all(map(_is_flushed, [*_streams_in_use(), *(reference() for reference in self._streams)]))


class _Witness:
    """An object of the rank's own. If the collector lists it, it lists the rank's objects."""


class _AtLast:
    """An object that CPython destroys after the modules of a rank, when it comes to those of its template."""

    def __init__(self, fast_exit: FastExit, code: int) -> None:
        self._fast_exit = fast_exit
        self._code = code

    def __del__(self) -> None:
        self._fast_exit.cut(self._code)


def _load_unwinder() -> None:
    """Load the library with which faulthandler unwinds C stacks (CPython 3.14): once, not in each rank."""
    if not faulthandler.is_enabled():
        faulthandler.enable(2)
        faulthandler.disable()


def _streams_in_use() -> list[object]:
    return [getattr(sys, name, None) for name in ("stdout", "stderr")]


def _is_flushed(stream: object) -> bool:
    """Flush a stream; return whether that worked. False for a user's stream: only CPython flushes it, once."""
    if stream is None:
        return True
    if type(stream) not in (TextIOWrapper, StringIO):
        return False
    try:
        if not stream.closed:  # type: ignore[attr-defined]
            stream.flush()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - CPython gets the same error, and prints it
        return False
    return True

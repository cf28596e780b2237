"""Pickling for ranks that don't exist yet."""

from __future__ import annotations

import copyreg
import multiprocessing.context
import os
import sys
from multiprocessing import reduction

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class NeedsChild(Exception):  # noqa: N818 - no error, but a reason to go another way
    """An object can be pickled only for a child that exists: handles on Windows are duplicated into the child."""


class Collector:
    """A stand-in for the Popen of a rank: reducers ask it to hand over fds, and it collects them.

    It numbers the fds as the Popen of the start method does. So the pickle is right for every rank whose Popen later
    hands over the same fds in the same order, after those in `before`.
    """

    def __init__(self, start_method: str, before: Sequence[int] = ()) -> None:
        popen = _popen_class(start_method)
        self.DupFd = getattr(popen, "DupFd", None)
        self._number = popen.duplicate_for_child
        self.numbers: list[int] = []
        self._fds = list(before)  # duplicate_for_child of both POSIX Popens appends to `_fds`
        self._before = len(before)
        self._duplicates: list[int] = []

    @property
    def fds(self) -> list[int]:
        """The fds that were handed over, in order; `numbers` has the number of each in the rank."""
        return self._fds[self._before :]

    def duplicate_for_child(self, fd: int) -> int:
        """Hand over an fd, as `popen_spawn_posix.Popen` does; return its number in the rank.

        A repeated fd is duplicated: exec refuses repeated fds, and each reader closes its own.
        """
        if sys.platform == "win32":
            raise NeedsChild
        if fd in self._fds:
            fd = os.dup(fd)
            self._duplicates.append(fd)
        self.numbers.append(self._number(self, fd))
        return self.numbers[-1]

    def dump(self, pickler: reduction.ForkingPickler, obj: object) -> None:
        """Pickle `obj` as if for a new child, and collect the fds that are handed over."""
        outer = multiprocessing.context.get_spawning_popen()
        multiprocessing.context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            pickler.dump(obj)
        finally:
            multiprocessing.context.set_spawning_popen(outer)

    def close(self) -> None:
        """Close the duplicates. To be called when every rank has its own."""
        while self._duplicates:
            os.close(self._duplicates.pop())


def _popen_class(start_method: str) -> Any:
    if sys.platform == "win32":
        with standard_library():
            from multiprocessing import popen_spawn_win32

        return popen_spawn_win32.Popen
    if start_method == "forkserver":
        with standard_library():
            from multiprocessing import popen_forkserver

        return popen_forkserver.Popen
    with standard_library():
        from multiprocessing import popen_spawn_posix

    return popen_spawn_posix.Popen


def hand_over(fds: list[int]) -> list[int]:
    """Hand fds over to the rank that is being pickled; return their numbers in the rank."""
    popen: Any = multiprocessing.context.get_spawning_popen()
    return [popen.duplicate_for_child(fd) for fd in fds]


class WatchedReducers:
    """The reducers of a `ForkingPickler`. What a registered one returns is passed to `seen`.

    A mapping for `pickle.Pickler.dispatch_table`. Reducers registered with `ForkingPickler.register` share something
    between processes; those of copyreg copy.
    """

    def __init__(self, seen: Callable[[tuple[Any, ...]], None]) -> None:
        self._shared: dict[type, Callable[[Any], Any]] = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
        self._copied: dict[type, Callable[[Any], Any]] = copyreg.dispatch_table
        self._seen = seen

    def __getitem__(self, cls: type) -> Callable[[Any], Any]:
        reducer = self._shared.get(cls)
        if reducer is None:
            return self._copied[cls]

        def reduce_and_look(obj: object) -> object:
            reduced = reducer(obj)
            if isinstance(reduced, tuple):
                self._seen(reduced)
            return reduced

        return reduce_and_look

"""Pickle `(fn, args)` once for all ranks, where one pickle may serve all.

It may not where a reducer counts its readers: each pickle of a CUDA tensor, or of a CPU tensor under torch's
`file_system` strategy, stands for one reader that will give its reference back. And it can't on Windows where
handles are involved: they are duplicated into a child that must exist.
"""

from __future__ import annotations

import io
import os
import sys
from multiprocessing import reduction

from spawnx import vetted
from spawnx.memory import to_memory
from spawnx.mp import pickling
from spawnx.remote.rank import Call, PickledCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# Below, a payload travels in the message to the rank, which then fits into a pipe (64 KiB on Linux), so that the
# supervisor never waits for a rank to boot and read. Above, in memory that all ranks map.
_INLINE_BYTES = 32 * 1024


class Payload:
    """One pickle of `(fn, args)`, with the fds that locks, queues, pipes and tensors hand over.

    When a rank is pickled that holds it, it arrives there as a `PickledCall`.
    """

    def __init__(self, data: memoryview, collector: pickling.Collector, *, shareable: bool) -> None:
        self.shareable = shareable
        self._collector = collector
        self._size = len(data)
        self._inline: bytes | None = None
        self._file = -1
        if self._size <= _INLINE_BYTES or not hasattr(os, "memfd_create"):
            self._inline = bytes(data)
        else:
            self._file = to_memory("spawnx-payload", data)

    def __reduce__(self) -> tuple[type[PickledCall], tuple[object, int]]:
        numbers = pickling.hand_over(self._collector.fds)
        if numbers != self._collector.numbers:
            raise RuntimeError("fds were handed over to this rank before those of its payload")
        data = self._inline if self._inline is not None else reduction.DupFd(self._file)
        return PickledCall, (data, self._size)

    def close(self) -> None:
        """Release what is held for ranks that are still to be started."""
        self._collector.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Payloads:
    """The payloads of one call.

    Args:
        fn, args: what is pickled.
        start_method: whose Popen numbers the fds that are handed over.
        asked: the start method as the caller knows it.
        before: the fds that are handed over to each rank before those of its payload.

    Raises (when made):
        Exception: what pickling raised, its type unchanged, its text naming what can't be pickled and what to do.
    """

    def __init__(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        start_method: str,
        *,
        asked: str = "",
        before: Sequence[int] = (),
    ) -> None:
        self._what = (fn, args, start_method, asked or start_method, before)
        try:
            self._first: Payload | None = _pickled(*self._what)
        except pickling.NeedsChild:
            self._first = None
        self._unused = self._first
        self._made = [self._first] if self._first else []

    @property
    def shareable(self) -> bool:
        """Whether all ranks get the same payload."""
        return self._first is not None and self._first.shareable

    def for_rank(self) -> Payload | Call:
        """What the next rank gets."""
        if self._first is None:
            return Call(*self._what[:2])
        if self._first.shareable:
            return self._first
        payload, self._unused = self._unused or _pickled(*self._what), None
        self._made.append(payload)
        return payload

    def close(self) -> None:
        """Release what is held for ranks that are still to be started."""
        for payload in self._made:
            payload.close()


def _pickled(
    fn: Callable[..., object],
    args: tuple[object, ...],
    start_method: str,
    asked: str,
    before: Sequence[int],
) -> Payload:
    collector = pickling.Collector(start_method, before)
    try:
        data, shareable = _dump((fn, args), collector)
        return Payload(data, collector, shareable=shareable)
    except pickling.NeedsChild:
        raise
    except Exception as error:
        collector.close()
        _explain(error, fn, args, asked)
        raise


def _dump(obj: object, collector: pickling.Collector) -> tuple[memoryview, bool]:
    """Pickle `obj` as multiprocessing would for a new child; tell whether several may read the result."""
    readers_counted = False

    def look(reduced: tuple[Any, ...]) -> None:
        nonlocal readers_counted
        readers_counted = readers_counted or not _may_be_shared(reduced[0])

    buffer = io.BytesIO()
    pickler = reduction.ForkingPickler(buffer)
    pickler.dispatch_table = pickling.WatchedReducers(look)  # type: ignore[assignment]  # any mapping will do
    collector.dump(pickler, obj)
    return buffer.getbuffer(), not readers_counted


def _may_be_shared(rebuild: object) -> bool:
    module, name = str(getattr(rebuild, "__module__", None)), str(getattr(rebuild, "__name__", None))
    library = vetted.rebuilding(module)
    if library is not None:
        return name in library
    return module == "builtins" or module.partition(".")[0] == "multiprocessing"


def _explain(
    error: Exception, fn: Callable[..., object], args: tuple[object, ...], start_method: str
) -> None:
    """Say in the error's own text what could not be pickled, and what to do. Its type stays what callers catch."""
    what = _culprit(fn, args, start_method)
    if what == "fn":
        name = getattr(fn, "__qualname__", None) or repr(fn)
        what = f"fn ({name})"
        cure = "define it at the top level of a module that can be imported"
    else:
        cure = "send something from which each rank can make its own"
    if hasattr(os, "fork"):
        cure = f"either {cure}, or use start_processes(..., start_method='fork')"
    text = f"{what} can't be sent to the ranks, as start_method={start_method!r} pickles it: {cure}"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}\n{text}",)
    elif sys.version_info >= (
        3,
        11,
    ):  # an exception of the user's own making, whose args have their own meaning
        error.add_note(text)


def _culprit(fn: Callable[..., object], args: tuple[object, ...], start_method: str) -> str:
    """Which of them fails when it is pickled alone, such as "fn" or "args[2]"."""
    for name, obj in [("fn", fn), *((f"args[{i}]", arg) for i, arg in enumerate(args))]:
        collector = pickling.Collector(start_method)
        try:
            _dump(obj, collector)
        except Exception:  # noqa: BLE001 - whatever it is, this is the one
            return name
        finally:
            collector.close()
    return "fn or one of args"

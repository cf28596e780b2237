"""Pickle `(fn, args)` once for all ranks, if one pickle may serve all.

It may not if a reducer counts its readers. Each pickle of a CUDA tensor, or of a CPU tensor under torch's `file_system`
strategy, stands for one reader, which will release its reference. On Windows it can't if handles are involved: they are
duplicated into the child, which must already exist.
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

# A payload up to this size is part of the rank's message, which then fits into a pipe (64 KiB on Linux). So the
# supervisor never waits until a rank boots and reads. A larger payload is in memory that all ranks map.
_INLINE_BYTES = 32 * 1024


class Payload:
    """One pickle of `(fn, args)`, with the fds that locks, queues, pipes and tensors hand over.

    It is pickled with the rank that holds it, and is unpickled as a `PickledCall`.
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
        """Close the fds that are kept for ranks. Call it after the last rank has been started."""
        self._collector.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Payloads:
    """The payloads of one call.

    Args:
        fn, args: the function and the arguments to pickle.
        start_method: the start method whose Popen numbers the fds that are handed over.
        asked: the start method of the call, for error texts.
        before: the fds that each rank gets before those of its payload.

    Raises (when made):
        Exception: the exception of the pickling, its type unchanged. Its text names the object that can't be pickled,
            and what to do.
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
        """Whether one payload serves all ranks."""
        return self._first is not None and self._first.shareable

    def for_rank(self) -> Payload | Call:
        """Return the payload of the next rank."""
        if self._first is None:
            return Call(*self._what[:2])
        if self._first.shareable:
            return self._first
        payload, self._unused = self._unused or _pickled(*self._what), None
        self._made.append(payload)
        return payload

    def close(self) -> None:
        """Close the fds of all payloads. Call it after the last rank has been started."""
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
    """Pickle `obj` as multiprocessing does for a child. Returns the pickle, and whether several ranks may read it."""
    readers_counted = False

    def look(reduced: tuple[Any, ...]) -> None:
        nonlocal readers_counted
        readers_counted = readers_counted or not _may_be_shared(reduced[0])

    buffer = io.BytesIO()
    pickler = reduction.ForkingPickler(buffer)
    pickler.dispatch_table = pickling.WatchedReducers(look)  # type: ignore[assignment]  # any mapping works
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
    """Add to the error's text which object can't be pickled, and what to do. Its type stays, as callers catch it."""
    what = _culprit(fn, args, start_method)
    if what == "fn":
        name = getattr(fn, "__qualname__", None) or repr(fn)
        what = f"fn ({name})"
        cure = "define it at the top level of a module that can be imported"
    else:
        cure = "send data from which each rank can build its own object"
    if hasattr(os, "fork"):
        cure = f"either {cure}, or use start_processes(..., start_method='fork')"
    text = f"{what} can't be sent to the ranks, as start_method={start_method!r} pickles it: {cure}"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}\n{text}",)
    elif sys.version_info >= (
        3,
        11,
    ):  # the user's own exception class: its args have their own meaning
        error.add_note(text)


def _culprit(fn: Callable[..., object], args: tuple[object, ...], start_method: str) -> str:
    """The one that can't be pickled alone, such as "fn" or "args[2]"."""
    for name, obj in [("fn", fn), *((f"args[{i}]", arg) for i, arg in enumerate(args))]:
        collector = pickling.Collector(start_method)
        try:
            _dump(obj, collector)
        except Exception:  # noqa: BLE001 - any exception shows that this object fails
            return name
        finally:
            collector.close()
    return "fn or one of args"

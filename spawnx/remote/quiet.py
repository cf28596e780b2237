"""Which objects are quiet: nothing outside of the process can see that they are destroyed.

An interpreter that ends destroys its objects. Most of them only give memory back, which the kernel does better. Some
write what they have buffered, call `__del__`, run a `finally`, call a callback. The question is asked of types, by the
C slots that destroy their objects, and is answered with yes only where the code in those slots is known: the standard
library's (read in CPython 3.10 to 3.14), and that of the vetted libraries. What is unknown is not quiet.
"""

from __future__ import annotations

import io
import sys
import types
import weakref

from spawnx import vetted
from spawnx.backends import native
from spawnx.remote import preload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Ours, and what cffi brings: CDataGCP, which calls a destructor of the user's, is the exception among its types.
_OURS = {"spawnx", "_cffi_backend"}
# Of the standard library, those whose objects write or end something when they are destroyed, without tp_finalize.
_NOISY_MODULES = {
    "_dbm", "_gdbm", "_interpchannels", "_interpqueues", "_interpreters", "_sqlite3", "_tkinter",
    "_xxinterpchannels", "_xxsubinterpreters", "dbm", "sqlite3",
}  # fmt: skip
# A function of ctypes may be what C calls at the exit; a proxy doesn't say whether it has a callback.
_NOISY_TYPES = {
    ("_cffi_backend", "__CDataGCP"), ("_ctypes", "CFuncPtr"), ("_ctypes", "PyCFuncPtr"),
    ("weakref", "CallableProxyType"), ("weakref", "ProxyType"), ("builtins", "weakproxy"),
    ("builtins", "weakcallableproxy"),
}  # fmt: skip

# Callbacks in C: of abstract base classes, and of thread-local data (before CPython 3.13, and since).
_QUIET_CALLBACKS = {
    ("_destroy", weakref.ref),
    ("_localdummy_destroyed", weakref.ref),
    ("clear_locals", tuple),
}

# The attributes of a class as `type` has them: a metaclass may answer otherwise.
_base = type.__dict__["__base__"].__get__
_module = type.__dict__["__module__"].__get__
_name = type.__dict__["__name__"].__get__


class _OfPython:
    """Destroyed as all objects are whose class was made by Python code: by the bases' code, after `__del__`."""


((_, _DEALLOC_OF_PYTHON),) = native.slots([_OfPython])


def types_of_interpreter() -> list[type]:
    """The types whose objects are quiet; without those of vetted libraries, of which there are thousands.

    Not a set, for which classes would be compared: a metaclass may raise, or warn, as one of `typing` does (3.14).
    """
    kinds = _all_types()
    slots = dict(zip(map(id, kinds), native.slots(kinds), strict=True))
    return [
        kind
        for kind in kinds
        if not vetted.is_vetted(_module_of(kind)) and _judge(kind, lambda kind: slots[id(kind)])
    ]


def _all_types() -> list[type]:
    seen: set[int] = set()
    kinds: list[type] = []
    todo: list[type] = [object]
    while todo:
        kind = todo.pop()
        if id(kind) not in seen:
            seen.add(id(kind))
            kinds.append(kind)
            todo += type.__subclasses__(kind)
    return kinds


def _module_of(kind: type) -> str:
    name: object = _module(kind)  # a class may have anything for it
    return name if isinstance(name, str) else ""


def is_quiet(kind: type) -> bool:
    """Whether every object of a type is quiet."""
    return _judge(kind, lambda kind: native.slots([kind])[0])


def _judge(kind: type, slots: Callable[[type], tuple[bool, int]]) -> bool:
    finalized, dealloc = slots(kind)
    if finalized or id(kind) in _EACH:
        return False
    base = kind
    while dealloc == _DEALLOC_OF_PYTHON:
        base = _base(base)
        dealloc = slots(base)[1]
    # A module that Python code has made, of a class of its own, has no C code of an extension's behind it.
    return (base is types.ModuleType and base is not kind) or (id(base) not in _EACH and _is_plain(base))


def _is_plain(kind: type) -> bool:
    """Whether a type is of a library that is known, and none of its noisy ones."""
    module, name = _module_of(kind), _name(kind)
    root = module.partition(".")[0]
    if root in _NOISY_MODULES or (module, name) in _NOISY_TYPES or vetted.is_noisy(module, name):
        return False
    if root in sys.stdlib_module_names or root in _OURS or vetted.is_vetted(root):
        return True
    return (module, name) == ("Token", "MISSING")  # of contextvars


def is_noisy(one: object) -> bool:
    """Whether the end of an object may be seen outside. Types that are not in `EACH` have one answer for all objects.

    Raises:
        Exception: it can't even be looked at.
    """
    kind = type(one)
    look = _EACH.get(id(kind))
    if look is not None:
        return look(one)
    if issubclass(kind, type) and _gives_finalizer(one):  # type: ignore[arg-type]
        return True
    return not is_quiet(kind)


def _gives_finalizer(kind: type) -> bool:
    """Whether objects that the template has made may have been given a class with a finalizer."""
    return native.slots([kind])[0][0] and not preload.is_of_known_library(_module_of(kind))


def _may_write(stream: io.BufferedWriter | io.TextIOWrapper) -> bool:
    return not stream.closed and stream.writable()


def _may_warn(file: io.FileIO) -> bool:
    """Whether it is left open: nothing is lost, but there may be a ResourceWarning."""
    return not file.closed and file.closefd


def _is_suspended(generator: types.GeneratorType[object, object, object]) -> bool:
    return generator.gi_frame is not None


def _is_awaited(coroutine: types.CoroutineType[object, object, object]) -> bool:
    return coroutine.cr_frame is not None


def _is_iterated(generator: types.AsyncGeneratorType[object, object]) -> bool:
    return generator.ag_frame is not None


def _has_callback(reference: weakref.ref[object]) -> bool:
    callback: Any = reference.__callback__
    if callback is None:
        return False
    if type(callback) is types.BuiltinFunctionType:
        return (callback.__name__, type(callback.__self__)) not in _QUIET_CALLBACKS
    return not (type(callback) is types.FunctionType and preload.is_of_stdlib(callback.__module__ or ""))


def is_unknown_extension(module: object) -> bool:
    """Whether a module is in C, and neither the standard library's, nor vetted, nor ours."""
    name, origin = preload.spec_of(module)
    if not preload.is_extension(module):
        return False
    return not (preload.is_of_library(origin) or vetted.is_vetted(name) or name.partition(".")[0] in _OURS)


def _has_destructor(capsule: object) -> bool:
    """Whether a capsule may have one: it shows its name alone, as in `<capsule object "datetime.CAPI" at ...>`."""
    name = repr(capsule).partition('"')[2].partition('"')[0].partition(".")[0]
    return not (name == "cffi" or name in sys.stdlib_module_names or vetted.is_vetted(name))


def _never(_: object) -> bool:
    return False


# The types of which each object must be looked at, by their ids: a class need not be hashable.
_LOOKS: list[tuple[type, Callable[..., bool]]] = [
    (io.BytesIO, _never),
    (io.StringIO, _never),
    (io.FileIO, _may_warn),
    (io.BufferedReader, _never),
    *((kind, _may_write) for kind in (io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair)),
    (io.TextIOWrapper, _may_write),
    (types.GeneratorType, _is_suspended),
    (types.CoroutineType, _is_awaited),
    (types.AsyncGeneratorType, _is_iterated),
    (types.ModuleType, is_unknown_extension),
    *((kind, _has_callback) for kind in (weakref.ref, weakref.KeyedRef, weakref.WeakMethod)),
    *((kind, _has_destructor) for kind in type.__subclasses__(object) if _name(kind) == "PyCapsule"),
]
EACH = [kind for kind, _ in _LOOKS]
_EACH = {id(kind): look for kind, look in _LOOKS}

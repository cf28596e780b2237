"""Find out which objects are quiet: nothing outside of the process can see their destruction.

An interpreter that ends destroys its objects. Most of them only free memory, which the kernel does better. Some write
their buffer, call `__del__`, run a `finally`, or call a callback. Types are judged, by the C slots that destroy their
objects. A type is quiet only if the code in its slots is known: it is the standard library's or a vetted library's. The
standard library's was read in CPython 3.10 to 3.14. An unknown type is not quiet.
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

# spawnx and cffi. Of cffi's types, only CDataGCP is noisy: it calls a destructor of the user's.
_OURS = {"spawnx", "_cffi_backend"}
# Standard modules whose objects write or end something when they are destroyed, without tp_finalize.
_NOISY_MODULES = {
    "_dbm", "_gdbm", "_interpchannels", "_interpqueues", "_interpreters", "_sqlite3", "_tkinter",
    "_xxinterpchannels", "_xxsubinterpreters", "dbm", "sqlite3",
}  # fmt: skip
# C may call a ctypes function at exit. A proxy doesn't show whether it has a callback.
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

# Attributes of a class are read by `type`'s own descriptors: a metaclass may override them.
_base = type.__dict__["__base__"].__get__
_module = type.__dict__["__module__"].__get__
_name = type.__dict__["__name__"].__get__


class _OfPython:
    """A class made by Python code: all such classes destroy objects by `__del__`, then by the code of their bases."""


((_, _DEALLOC_OF_PYTHON),) = native.slots([_OfPython])


def types_of_interpreter() -> list[type]:
    """Return the types whose objects are quiet, without those of vetted libraries, which are thousands.

    Not a set: that would compare classes, and a metaclass may raise, or warn, as one of `typing` does (3.14).
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
    name: object = _module(kind)  # `__module__` may be any object
    return name if isinstance(name, str) else ""


def is_quiet(kind: type) -> bool:
    """Return whether every object of a type is quiet."""
    return _judge(kind, lambda kind: native.slots([kind])[0])


def _judge(kind: type, slots: Callable[[type], tuple[bool, int]]) -> bool:
    finalized, dealloc = slots(kind)
    if finalized or id(kind) in _EACH:
        return False
    base = kind
    while dealloc == _DEALLOC_OF_PYTHON:
        base = _base(base)
        dealloc = slots(base)[1]
    # A module whose class was made by Python code has no C code of an extension module behind it.
    return (base is types.ModuleType and base is not kind) or (id(base) not in _EACH and _is_plain(base))


def _is_plain(kind: type) -> bool:
    """Whether a type belongs to a known library, and is not one of its noisy types."""
    module, name = _module_of(kind), _name(kind)
    root = module.partition(".")[0]
    if root in _NOISY_MODULES or (module, name) in _NOISY_TYPES or vetted.is_noisy(module, name):
        return False
    if root in sys.stdlib_module_names or root in _OURS or vetted.is_vetted(root):
        return True
    return (module, name) == ("Token", "MISSING")  # of contextvars


def is_noisy(one: object) -> bool:
    """Return whether the destruction of an object may be seen outside. Only types in `EACH` are judged by the object.

    Raises:
        Exception: the object can't be examined.
    """
    kind = type(one)
    look = _EACH.get(id(kind))
    if look is not None:
        return look(one)
    if issubclass(kind, type) and _gives_finalizer(one):  # type: ignore[arg-type]
        return True
    return not is_quiet(kind)


def _gives_finalizer(kind: type) -> bool:
    """Whether a class has a finalizer of unknown code: it may have become the class of an object of the template."""
    return native.slots([kind])[0][0] and not preload.is_of_known_library(_module_of(kind))


def _may_write(stream: io.BufferedWriter | io.TextIOWrapper) -> bool:
    return not stream.closed and stream.writable()


def _may_warn(file: io.FileIO) -> bool:
    """Whether a file is left open: no data is lost, but there may be a ResourceWarning."""
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
    """Return whether a module is in C, and neither the standard library's, nor vetted, nor ours."""
    name, origin = preload.spec_of(module)
    if not preload.is_extension(module):
        return False
    return not (preload.is_of_library(origin) or vetted.is_vetted(name) or name.partition(".")[0] in _OURS)


def _has_destructor(capsule: object) -> bool:
    """Whether a capsule may have a destructor. Only its name shows: `<capsule object "datetime.CAPI" at ...>`."""
    name = repr(capsule).partition('"')[2].partition('"')[0].partition(".")[0]
    return not (name == "cffi" or name in sys.stdlib_module_names or vetted.is_vetted(name))


def _never(_: object) -> bool:
    return False


# The types whose objects are judged one by one. `_EACH` has them by id: a class need not be hashable.
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

"""Import modules in a template before it is cloned, and renew their state in every clone. See `vetted`."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
import weakref
from importlib.machinery import EXTENSION_SUFFIXES
from types import BuiltinFunctionType, FunctionType, ModuleType

from spawnx import vetted
from spawnx.remote import stale
from spawnx.remote.opened import Opened
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable


_LazyImport = getattr(types, "LazyImportType", None)


class GivenUp(Exception):  # noqa: N818 - no error, but a reason to clone without
    """A preload can't be cloned."""


def chosen(modules: Iterable[object]) -> tuple[str, ...]:
    """Return the modules of "auto" in this process: imported vetted ones, and standard ones that the caller uses.

    All imported modules of multiprocessing count as used: they rebuild queues, locks and pipes among the arguments.

    Args:
        modules: the caller's modules: the values of their global names show which standard modules they use.
    """
    names = {name for name in (*vetted.VETTED, "numpy.random") if name in sys.modules}
    names |= {
        name for name in list(sys.modules) if name.startswith("multiprocessing.") and _is_standard(name)
    }
    for module in modules:
        names |= {name for name in map(_module_of, list(vars(module).values())) if _is_standard(name)}
    return tuple(sorted(names))


def _module_of(value: object) -> str:
    """The module that a global value is, or was defined in; "" if that can't be seen without asking the value itself.

    The question must not load a value that is made on demand (a proxy, a lazy module).
    """
    kind = type(value)
    if issubclass(kind, ModuleType):
        return spec_of(value)[0]
    asked = value if kind in {FunctionType, BuiltinFunctionType, type} else kind
    return str(getattr(asked, "__module__", ""))


def spec_of(module: object) -> tuple[str, str]:
    """Return a module's name and file, without loading a lazy module; "" where it has none."""
    try:
        spec = object.__getattribute__(module, "__dict__").get("__spec__")
    except AttributeError:  # what stands in `sys.modules` need not be a module
        return "", ""
    return str(getattr(spec, "name", "")), str(getattr(spec, "origin", None) or "")


def _is_standard(name: str) -> bool:
    """Whether an imported module is the standard library's: not one of the same name, found before it."""
    origin = spec_of(sys.modules.get(name))[1]
    return is_of_stdlib(name) and (origin in {"built-in", "frozen"} or is_of_library(origin))


def is_of_stdlib(name: str) -> bool:
    """Return whether a name is that of a module of the standard library."""
    return name.partition(".")[0] in sys.stdlib_module_names


def is_of_known_library(name: str) -> bool:
    """Return whether a name is that of a module of the standard library, or of a vetted one."""
    return is_of_stdlib(name) or vetted.is_vetted(name)


def is_known(name: str) -> bool:
    """Return whether an imported module is vetted, or the standard library's."""
    return vetted.is_vetted(name) or _is_standard(name)


def is_of_library(origin: str) -> bool:
    """Return whether a file is one of the standard library's modules."""
    # Not by sysconfig: it reads the folder from a file that may be missing, and is slow.
    library = os.path.dirname(os.__file__)
    return origin.startswith(os.path.join(library, "")) and "site-packages" not in origin


def is_extension(module: object) -> bool:
    """Return whether a module is in C, in a file of its own."""
    return spec_of(module)[1].endswith(tuple(EXTENSION_SUFFIXES))


def preload(names: Iterable[str], import_main: Callable[[], None], known: Container[str]) -> None:
    """Import modules in a process that has one thread, and leave it with one thread.

    Args:
        names: the names of the modules; `__main__` is the main module of the supervisor.
        import_main: imports the main module as ranks do; ranks then find it imported.
        known: the names that in the supervisor are standard or vetted modules. A standard one of these is imported from
            the standard library, whatever else on `sys.path` has such a name by now.

    Raises:
        GivenUp: an import raised, or left something that can't be cloned: the text says what.
    """
    imported = []
    opened = Opened()
    for name in names:
        if name in sys.modules and name != "__main__":
            continue
        imported.append(name)
        _import(name, import_main, known)
        # No standard module starts or opens anything when it is imported; a user's module may have the same name.
        if not _is_standard(name) and (device := opened.device_after(name)):
            raise GivenUp(f"the import of {name} opened {device}")
    _resolve_lazy()
    if others := [name for name in imported if not _is_standard(name)]:
        _end_threads()
        _check_quiet(", ".join(others))
        if left := opened.left():
            raise GivenUp(", ".join(left))
        _spare_finalizers()


def _resolve_lazy() -> None:
    """Resolve the lazy imports (PEP 810) of vetted modules by vetted modules: else every clone resolves them itself.

    `lazy import package.module` is left out: resolving that imports the package alone.
    """
    tried: list[object] = []
    while any(map(vetted.is_vetted, getattr(sys, "lazy_modules", ()))):
        modules = [module for name, module in list(sys.modules.items()) if vetted.is_vetted(name)]
        values = [value for module in modules for value in list(getattr(module, "__dict__", {}).values())]
        # Their repr is `<lazy_import 'numpy.random'>`. One that fails now fails again where it is used.
        lazy = [
            one
            for one in values
            if type(one) is _LazyImport and vetted.is_vetted(repr(one).partition("'")[2])
        ]
        left = [one for one in lazy if not any(one is other for other in tried)]
        if not left:
            return
        for one in left:
            tried.append(one)
            with contextlib.suppress(Exception):
                one.resolve()


def raised_in(name: str) -> str:
    """Return the beginning of the text for a module whose import raised."""
    return f"the import of {name} raised"


def _check_quiet(names: str) -> None:
    """Check that this process has nothing that a clone would lack: no other thread, no child."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        more = f"{threads - 1} threads run" if threads > 2 else "a thread runs"  # noqa: PLR2004 - with the main one
        raise GivenUp(f"{more} after the import of {names}")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        pass
    else:
        raise GivenUp(f"the import of {names} started a process")


def _spare_finalizers() -> None:
    """Disable what vetted libraries would do at the exit of each clone (weakref.finalize).

    torch takes its operators apart, one by one. That costs each rank 37 ms and 27 MiB of copied pages, for no use.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        alive = finalizer.peek()
        module = str(getattr(alive[1], "__module__", "")) if alive else ""
        if module.partition(".")[0] in vetted.VETTED:
            finalizer.atexit = False


def _import(name: str, import_main: Callable[[], None], known: Container[str]) -> None:
    try:
        if name == "__main__":
            import_main()
        elif name in known and is_of_stdlib(name):  # other imports must find what they find in a rank
            with standard_library():
                importlib.import_module(name)
        else:
            importlib.import_module(name)
    except BaseException as error:
        raise GivenUp(f"{raised_in(name)} {type(error).__name__}: {error}") from error


def _end_threads() -> None:
    """Fork once: libraries with fork handlers then end their threads, and start them again when they need them."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, as in the supervisor
        os.waitpid(pid, 0)


def renew() -> None:
    """Renew in a clone what must not be equal in two ranks, and the start of logging's clock."""
    stale.restart_clock()
    vetted.renew()

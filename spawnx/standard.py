"""Imports of the standard library that find the standard library, whatever stands on `sys.path` by then.

A program may put a folder with a `signal.py` or a `queue.py` of its own before the library, after it has imported what
it needs of that. What spawnx imports later than that (nearly everything is imported when it is first needed) is not the
program's file. So each import of ours inside a function stands in `with standard_library():`.

This module is imported in every process of ours before all else: it imports only what no file can stand for, which
`__future__` is not.
"""

import os  # every interpreter has imported it when it starts
import sys
from _frozen_importlib_external import PathFinder
from _imp import is_builtin, is_frozen
from _thread import RLock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType


def _folders() -> list[str]:
    """Where the standard library is: its modules, and its extension modules."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = os.path.dirname(getattr(os, "__file__", ""))  # a frozen program's has none
    builds = [
        os.path.join(prefix, sys.platlibdir, version) for prefix in (sys.base_exec_prefix, sys.base_prefix)
    ]
    extensions = [os.path.join(place, "lib-dynload") for place in (library, *builds)]
    extensions += [entry for entry in sys.path if str(entry).endswith("lib-dynload")]
    if sys.platform == "win32":
        extensions.append(os.path.join(sys.base_prefix, "DLLs"))
    return [folder for folder in dict.fromkeys([library, *extensions]) if os.path.isabs(folder)]


class _Finder:
    """The first of the finders, while a thread imports for spawnx; for that thread, and for the library's names."""

    def __init__(self) -> None:
        self.folders = _folders()
        self.threads: list[int] = []
        self.lock = RLock()  # a signal handler may import as well
        self.plain = self.with_this = sys.meta_path[
            :0
        ]  # only meanwhile: the list is to be destroyed with `sys`

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, _target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """See `importlib.abc.MetaPathFinder`. What is built in, or frozen, others find.

        Raises:
            ModuleNotFoundError: the standard library of this system has no such module, which is another system's.
        """
        if path is not None or name not in sys.stdlib_module_names or get_ident() not in self.threads:
            return None
        # Not by its file, if it has one as well: PyPy's file of faulthandler does nothing.
        if is_builtin(name):
            return None
        spec = PathFinder.find_spec(name, self.folders)
        if spec is None and not is_frozen(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec

    def begin(self) -> None:
        """Be there for the calling thread."""
        with self.lock:
            self.threads.append(get_ident())
            if len(self.threads) == 1:
                # Another list, and not one more item: a thread that looks through the list just now would skip a finder
                # when the item goes.
                self.plain = sys.meta_path
                self.with_this = sys.meta_path = [self, *self.plain]

    def end(self) -> None:
        """Be there no longer, if this was the last of what `begin` has begun."""
        with self.lock:
            self.threads.remove(get_ident())
            if not self.threads:
                left = [finder for finder in sys.meta_path if finder is not self]
                if sys.meta_path is self.with_this and left == self.plain:
                    sys.meta_path = self.plain
                else:  # what was imported has brought a finder of its own
                    sys.meta_path = left
                self.plain = self.with_this = left[:0]

    def forget_threads(self) -> None:
        """In a forked child: only the thread that has forked is there."""
        self.lock = RLock()
        self.threads = [thread for thread in self.threads if thread == get_ident()]
        if not self.threads and self in sys.meta_path:
            sys.meta_path = self.plain


class standard_library:  # noqa: N801 - used as a function
    """While this lasts, the calling thread's imports find modules of the standard library in the standard library."""

    def __enter__(self) -> None:
        _finder.begin()

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _where: "TracebackType | None",
    ) -> None:
        _finder.end()


def load(*modules: str) -> None:
    """Import modules of ours, and of the standard library."""
    with standard_library():
        for module in modules:
            __import__(module)


_finder = _Finder()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_finder.forget_threads)

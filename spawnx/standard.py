"""Imports that find the standard library's own modules, whatever is on `sys.path` by then.

A program may import the modules that it needs, and then put a folder with its own `signal.py` or `queue.py` before the
library on `sys.path`. spawnx imports nearly everything when it is first needed, and must not import these files.
So each import inside a function of spawnx stands in `with standard_library():`.

Every process of spawnx imports this module first. It imports only modules that no file on `sys.path` can replace, which
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
    """The folders of the standard library's modules and extension modules."""
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
    """The first finder in `sys.meta_path` while a thread imports for spawnx: for it, and for the library's names."""

    def __init__(self) -> None:
        self.folders = _folders()
        self.threads: list[int] = []
        self.lock = RLock()  # a signal handler may import as well
        self.plain = self.with_this = sys.meta_path[
            :0
        ]  # held only while active: the list must be destroyed with `sys`

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, _target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """See `importlib.abc.MetaPathFinder`. Other finders find built-in and frozen modules.

        Raises:
            ModuleNotFoundError: the standard library has this module only on other systems.
        """
        if path is not None or name not in sys.stdlib_module_names or get_ident() not in self.threads:
            return None
        # A built-in module may have a file as well, which is not to be used: PyPy's faulthandler.py does nothing.
        if is_builtin(name):
            return None
        spec = PathFinder.find_spec(name, self.folders)
        if spec is None and not is_frozen(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec

    def begin(self) -> None:
        """Activate the finder for the calling thread."""
        with self.lock:
            self.threads.append(get_ident())
            if len(self.threads) == 1 and sys.meta_path is not None:  # None while the interpreter shuts down
                # A new list, not an inserted item: when `end` removed that item, another thread that iterates over the
                # list at that moment would skip a finder.
                self.plain = sys.meta_path
                self.with_this = sys.meta_path = [self, *self.plain]

    def end(self) -> None:
        """Undo one `begin` of the calling thread; the last `end` of all threads removes the finder."""
        with self.lock:
            self.threads.remove(get_ident())
            if not self.threads and sys.meta_path is not None:
                left = [finder for finder in sys.meta_path if finder is not self]
                if sys.meta_path is self.with_this and left == self.plain:
                    sys.meta_path = self.plain
                else:  # an imported module has added a finder of its own
                    sys.meta_path = left
                self.plain = self.with_this = left[:0]

    def forget_threads(self) -> None:
        """Forget all other threads, in a forked child: only the thread that has forked is there."""
        self.lock = RLock()
        self.threads = [thread for thread in self.threads if thread == get_ident()]
        if not self.threads and self in sys.meta_path:
            sys.meta_path = self.plain


class standard_library:  # noqa: N801 - used as a function
    """In this context, the calling thread finds modules of the standard library in the standard library's folders."""

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
    """Import modules of spawnx and of the standard library."""
    with standard_library():
        for module in modules:
            __import__(module)


_finder = _Finder()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_finder.forget_threads)

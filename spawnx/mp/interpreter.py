"""Fresh interpreters: their command line, and the data that they receive before they import the main module."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
from multiprocessing import reduction, resource_tracker, spawn

from spawnx import standard
from spawnx.mp import boot
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from spawnx.backends.contract import Program


def launch(program: Program) -> int:
    """Start a program with the given fds only, and a signal mask of its own, by multiprocessing's own function."""
    path = program.argv[0]
    if not os.access(path, os.X_OK):  # that function reports no failed exec: the child just exits
        number = errno.EACCES if os.path.exists(path) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)
    # The standard library takes no mask: the child inherits that of this thread.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, program.mask)
    try:
        with standard_library():  # the function imports modules late
            launch = multiprocessing.util.spawnv_passfds
            return int(launch(os.fsencode(program.argv[0]), program.argv, program.keep))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Finds spawnx where this process has found it, and nowhere else: with `-c`, `sys.path` begins with '', the current
# folder. It binds no name in `__main__`, where the functions of a notebook are looked up. It contains no user data: an
# argument holds 128 KiB at most, and not all data can be written as text.
_BEGINNING = (
    "__import__('sys').path[:] = filter(None, __import__('sys').path); "
    "'spawnx' in __import__('sys').modules or __import__('_frozen_importlib')._load("
    "__import__('_frozen_importlib_external').PathFinder.find_spec('spawnx', [{place}])); "
    "__import__('spawnx.remote.start', fromlist=['call']).call({module!r}, {function!r}, {file}, {at}, {size})"
)


def command(module: str, function: str, file: int, at: int, size: int) -> list[str]:
    """Return the command line of a fresh interpreter that makes one call, with the flags and options of this one.

    Args:
        module: a module of spawnx.
        function: a function of that module; called with `file`, and with keyword arguments that are pickled in there.
        file: the fd of memory that the interpreter inherits.
        at: the offset of the pickle in that memory.
        size: the length of the pickle in bytes.
    """
    # If the folder of spawnx is relative, it is relative to the folder in which the program was started.
    start = multiprocessing.process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    place = ascii(os.path.join(start, os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
    code = _BEGINNING.format(place=place, module=module, function=function, file=file, at=at, size=size)
    return [executable(), *options(), "-c", code, "--multiprocessing-fork"]


def bare_command() -> list[str]:
    """Return the command line of a fresh interpreter that does nothing, with the flags and options of this one."""
    return [executable(), *options(), "-c", "pass"]


def options() -> list[str]:
    """Return the flags and options of this interpreter, as arguments of a command line."""
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def executable() -> str:
    """Return the path of the ranks' interpreter: this one, or that given to `multiprocessing.set_executable`."""
    return os.fsdecode(spawn.get_executable())


def complete_main_module() -> None:
    """Set the main module's `__spec__` to None, as Python does for each script, if a debugger made it without one.

    `python -m pdb` before CPython 3.11.9 and 3.12.3 (gh-87115) does so, and so do others. `get_preparation_data` reads
    `__spec__`, also for the `stdlib` launcher and multiprocessing's forkserver.
    """
    main = sys.modules.get("__main__")
    if main is not None and not hasattr(main, "__spec__"):
        main.__spec__ = None


def preparation_data(name: str) -> dict[str, object]:
    """Return the data that a fresh interpreter receives before it imports the main module.

    Raises:
        RuntimeError: this process is a rank that imports its main module, and that module has no main guard.
    """
    return {**spawn.get_preparation_data(name), "sys_path": path_to_send()}


def path_to_send() -> list[object]:
    """Return `sys.path` for `use_path` in a fresh interpreter.

    An entry that is not text is pickled by itself, and unpickled when the rest is in force. The import system skips
    such entries, so one that can't be pickled is left out. For a subclass of str only the text is sent: the class may
    be defined in the main module.
    """
    sent: list[object] = []
    for entry in _sys_path():
        if isinstance(entry, str):
            sent.append(str.__str__(entry))
        else:
            with contextlib.suppress(Exception):
                sent.append(memoryview(reduction.ForkingPickler.dumps(entry)).tobytes())
    return sent


def _sys_path() -> list[Any]:
    """`sys.path` as multiprocessing sends it: the directory in which the program was started replaces ''."""
    start = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    entries: list[Any] = sys.path  # a list of str by its type, but programs may add anything
    return [
        start if isinstance(entry, str) and not entry and start is not None else entry for entry in entries
    ]


def resource_tracker_fd() -> int:
    """Return the fd by which a child reaches this process's resource tracker; start it if it does not run."""
    with standard_library():  # the start imports modules
        fd = resource_tracker.getfd()
    if fd is None:
        raise RuntimeError("the resource tracker could not be started")
    return fd


class PreparationHook(str):
    """A process's name that makes a fresh interpreter call `function` before it imports the main module.

    multiprocessing sends two pickles. The first is the preparation data, with the name in it. Then the interpreter
    imports the main module, which may take seconds or raise. The second is the Process: too late to arm a death signal,
    or to report what the import raised. So the name unpickles by calling `function(*args)`, which returns the plain
    name. Before that call `sys.path` is set, or spawnx might not be found: by the function with which multiprocessing
    itself sets it a moment later. Then the module of `function` is imported, by `standard.load`, so that the
    standard library's modules are found whatever is on that path.
    """

    __slots__ = ("args", "function")

    function: Callable[..., str]
    args: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        with standard_library():
            from operator import itemgetter

        # A tuple is unpickled from left to right: the path, then the calls; itemgetter picks the last result.
        path = {"sys_path": [entry for entry in path_to_send() if isinstance(entry, str)]}
        late = boot.IMPORTED_LATE if "init_main_from_path" in spawn.get_preparation_data(self) else ()
        load = _Call(standard.load, self.function.__module__, *late)
        return itemgetter(2), ((_Call(spawn.prepare, path), load, _Call(self.function, *self.args)),)


class _Call:
    """Unpickles as the result of a call."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self._reduced = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced

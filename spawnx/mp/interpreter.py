"""Fresh interpreters: their command line, and what multiprocessing sends them before they import the main module."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing.context
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
    """Start a program with only the given fds and an own mask of signals, by what multiprocessing starts its ranks."""
    path = program.argv[0]
    if not os.access(path, os.X_OK):  # what it doesn't tell: a failed exec is an exit code there
        number = errno.EACCES if os.path.exists(path) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)
    # The standard library can't be told a mask: the child has the one that is in force here.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, program.mask)
    try:
        with standard_library():  # which imports what it starts programs with
            launch = multiprocessing.util.spawnv_passfds
            return int(launch(os.fsencode(program.argv[0]), program.argv, program.keep))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Finds spawnx where this process has found it, and by nothing else: the path of `-c` begins with '', the folder in
# which the program is just now. It binds no name in `__main__`, where the functions of a notebook are looked for. It
# has no data of the user's: an argument has 128 KiB at most, and not everything has a text.
_BEGINNING = (
    "__import__('sys').path[:] = filter(None, __import__('sys').path); "
    "'spawnx' in __import__('sys').modules or __import__('_frozen_importlib')._load("
    "__import__('_frozen_importlib_external').PathFinder.find_spec('spawnx', [{place}])); "
    "__import__('spawnx.remote.start', fromlist=['call']).call({module!r}, {function!r}, {file}, {at}, {size})"
)


def command(module: str, function: str, file: int, at: int, size: int) -> list[str]:
    """The command line of a fresh interpreter, with the flags and options of this one, that makes a call.

    Args:
        module: of ours.
        function: of that module; called with `file`, and with the keyword arguments of which a pickle is in there.
        file: the fd of memory that the interpreter inherits.
        at: where in it the pickle begins.
        size: its length in bytes.
    """
    # As the folder in which the program was started has it, where the path has a relative one.
    start = multiprocessing.process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    place = ascii(os.path.join(start, os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
    code = _BEGINNING.format(place=place, module=module, function=function, file=file, at=at, size=size)
    return [executable(), *options(), "-c", code, "--multiprocessing-fork"]


def bare_command() -> list[str]:
    """The command line of a fresh interpreter, with the flags and options of this one, that does nothing."""
    return [executable(), *options(), "-c", "pass"]


def options() -> list[str]:
    """The flags and options of this interpreter, as a command line has them."""
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def executable() -> str:
    """The interpreter that ranks are to run in: this one, or what `multiprocessing.set_executable` was told."""
    return os.fsdecode(spawn.get_executable())


def complete_main_module() -> None:
    """Give the main module the `__spec__` that Python gives to each script, None, where a debugger made it without one.

    `python -m pdb` before CPython 3.11.9 and 3.12.3 (gh-87115) does so, and so do others. `get_preparation_data` reads
    it: that of the `stdlib` launcher, and of multiprocessing's forkserver, too.
    """
    main = sys.modules.get("__main__")
    if main is not None and not hasattr(main, "__spec__"):
        main.__spec__ = None


def preparation_data(name: str) -> dict[str, object]:
    """What a fresh interpreter is told before it imports the main module.

    Raises:
        RuntimeError: this process is itself importing its main module for a rank, which has no main guard.
    """
    return {**spawn.get_preparation_data(name), "sys_path": path_to_send()}


def path_to_send() -> list[object]:
    """`sys.path` for `use_path` in a fresh interpreter.

    What is no text is pickled by itself, and read when the rest is in force. The import system passes over it, so what
    can't be pickled is left out. Of a subclass of str the text is sent: the class may be the main module's.
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
    """`sys.path` as multiprocessing sends it: '' is the directory in which the program was started."""
    start = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    entries: list[Any] = sys.path  # what it should have, and what it has
    return [
        start if isinstance(entry, str) and not entry and start is not None else entry for entry in entries
    ]


def resource_tracker_fd() -> int:
    """The fd by which a child reaches this process's resource tracker, which is started if need be."""
    with standard_library():  # which starts it: by modules that are imported for that
        fd = resource_tracker.getfd()
    if fd is None:
        raise RuntimeError("the resource tracker could not be started")
    return fd


class PreparationHook(str):
    """A process's name, by which a fresh interpreter calls us before it imports the main module.

    multiprocessing sends two pickles: first the preparation data (with the name in it), after which it imports the
    main module, which may take seconds or raise; then the Process. As the second one comes too late to arm a
    death signal or to report what the import raised, the name in the first one unpickles by calling `function(*args)`,
    which returns the plain name. `sys.path` is set before that, or spawnx might not be found: by the function by
    which multiprocessing itself sets it a moment later. Then the module of `function` is imported, by what finds the
    standard library where that path doesn't.
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

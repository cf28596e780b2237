"""The only file that touches multiprocessing's private names. Each was read in CPython 3.10 to 3.15.

What they are needed for: to be a `Process` to the rest of multiprocessing without its polls and pipes, to pickle
for ranks that don't exist yet, and to get a word in before a fresh interpreter imports the main module.
"""

from __future__ import annotations

import contextlib
import copyreg
import errno
import io
import multiprocessing.context
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
from multiprocessing import popen_fork, reduction, resource_tracker, spawn

from spawnx import standard
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from spawnx.backends.contract import Program


def check_may_start(process: multiprocessing.process.BaseProcess) -> None:
    """What `BaseProcess.start` asserts, without the poll of every earlier child that it makes.

    Raises:
        AssertionError: the calling process is a daemon.
    """
    process._check_closed()  # type: ignore[attr-defined]
    current = multiprocessing.process.current_process()
    if current._config.get("daemon"):  # type: ignore[attr-defined]
        msg = "daemonic processes are not allowed to have children"
        raise AssertionError(msg)


def start_method_of(process_class: type[multiprocessing.process.BaseProcess]) -> str:
    """The start method of a context's Process class."""
    method: str = process_class._start_method  # type: ignore[attr-defined]
    return method


def launch_as(
    process_class: type[multiprocessing.process.BaseProcess], process: multiprocessing.process.BaseProcess
) -> object:
    """Launch `process` as multiprocessing launches those of that class; returns its Popen."""
    popen: object = process_class._Popen(process)  # type: ignore[attr-defined]
    return popen


def identity_of(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """The numbers by which multiprocessing tells processes apart: the parent's, and one more."""
    identity: tuple[int, ...] = process._identity
    return identity


def adopt(process: multiprocessing.process.BaseProcess, popen: object, sentinel: int) -> None:
    """Make `process` a started one: `active_children()` lists it, and it is joined or terminated at exit."""
    process._popen = popen  # type: ignore[attr-defined]
    process._sentinel = sentinel  # type: ignore[attr-defined]
    multiprocessing.process._children.add(process)  # type: ignore[attr-defined]


def forget(process: multiprocessing.process.BaseProcess) -> None:
    """Let `active_children()` list an ended process no longer."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


def popen_of(process: multiprocessing.process.BaseProcess) -> Any:
    """What is behind a started process; None before, and after `close()`."""
    return process._popen  # type: ignore[attr-defined]


def close_with(owner: object, *fds: int) -> Callable[[], None]:
    """Close `fds` when the returned function is called or `owner` is collected, whichever comes first.

    multiprocessing's finalizers, unlike `weakref.finalize`, are forgotten in forked children.
    """
    close_fds = multiprocessing.util.close_fds  # type: ignore[attr-defined]
    finalizer: Callable[[], None] = multiprocessing.util.Finalize(owner, close_fds, fds)
    return finalizer


def close_late(owner: object, close: Callable[[], Any]) -> Callable[[], Any]:
    """Call `close` once: when the returned function is called, `owner` is collected, or the process exits.

    At exit after multiprocessing has joined its children, unlike `weakref.finalize`; not in forked children.
    """
    finalizer: Callable[[], Any] = multiprocessing.util.Finalize(owner, close, exitpriority=-100)
    return finalizer


def flush_streams() -> None:
    """Flush stdout and stderr: what is buffered now would be written by every fork again."""
    multiprocessing.util._flush_std_streams()  # type: ignore[attr-defined]


# The longest argument of a command line, in bytes (execve(2): MAX_ARG_STRLEN).
_MOST_ARGUMENT = 128 * 1024


def forkserver_pid() -> int:
    """The pid of the running forkserver, which is started if need be: the parent of all forkserver ranks."""
    with standard_library():
        from multiprocessing import forkserver

        server: Any = forkserver._forkserver
        if hasattr(server, "_forkserver_authkey"):
            import hmac  # noqa: F401 - by which it is asked for ranks, late (CPython 3.14)
        preload = server._preload_modules
        if not _has_short_text(sys.path):
            # With what it preloads comes the path, as text on the command line: an interpreter that does not start.
            server._preload_modules = []
        try:
            server.ensure_running()
        finally:
            server._preload_modules = preload
    return int(server._forkserver_pid)


def _has_short_text(path: list[Any]) -> bool:
    """Whether `repr(path)` is the path in Python, and fits into an argument of a command line, with some room."""
    return all(type(entry) is str for entry in path) and len(repr(path)) < _MOST_ARGUMENT // 2


def forkserver_preload() -> list[str]:
    """What `multiprocessing.set_forkserver_preload` was told, if it was."""
    module = sys.modules.get("multiprocessing.forkserver")
    names: list[str] = [] if module is None else list(module._forkserver._preload_modules)
    # What it begins with, and what doesn't tell whether anybody has asked for it.
    return [] if names == ["__main__"] else names


def forkserver_preload_must_succeed() -> bool:
    """Whether `multiprocessing.set_forkserver_preload` was told `on_error="fail"` (CPython 3.15)."""
    module = sys.modules.get("multiprocessing.forkserver")
    return getattr(getattr(module, "_forkserver", None), "_preload_on_error", None) == "fail"


def imported_by_forkserver() -> str:
    """What multiprocessing's forkserver imports before it serves, in words: the main module by its path."""
    with standard_library():
        from multiprocessing import forkserver

    data = spawn.get_preparation_data("")
    main = data.get("init_main_from_path") or data.get("init_main_from_name")
    names = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
    return ", ".join(str(main or name) if name == "__main__" else name for name in names)


def supervisors_ends(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """The fds by which this process holds one that multiprocessing has forked."""
    fds: tuple[int, ...] = popen_of(process).finalizer._args
    return fds


def forked_by(process: multiprocessing.process.BaseProcess) -> int:
    """The pid of the process whose child a started one is: this one, or the forkserver."""
    return forkserver_pid() if getattr(popen_of(process), "method", None) == "forkserver" else os.getpid()


def launch_program(program: Program) -> int:
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


def interpreter_command(module: str, function: str, file: int, at: int, size: int) -> list[str]:
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
    place = ascii(os.path.join(start, os.path.dirname(os.path.dirname(__file__))))
    code = _BEGINNING.format(place=place, module=module, function=function, file=file, at=at, size=size)
    return [interpreter_path(), *interpreter_flags(), "-c", code, "--multiprocessing-fork"]


def bare_command() -> list[str]:
    """The command line of a fresh interpreter, with the flags and options of this one, that does nothing."""
    return [interpreter_path(), *interpreter_flags(), "-c", "pass"]


def interpreter_flags() -> list[str]:
    """The flags and options of this interpreter, as a command line has them."""
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def interpreter_path() -> str:
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


def resource_tracker_fd() -> int:
    """The fd by which a child reaches this process's resource tracker, which is started if need be."""
    with standard_library():  # which starts it: by modules that are imported for that
        fd = resource_tracker.getfd()
    if fd is None:
        raise RuntimeError("the resource tracker could not be started")
    return fd


# -- pickling for ranks that don't exist yet ------------------------------------------------------------------


class NeedsChild(Exception):  # noqa: N818 - no error, but a reason to go another way
    """Something can be pickled only for a child that exists: handles on Windows are duplicated into it."""


class Collector:
    """A stand-in for the Popen of a rank: reducers ask it to hand over fds, and it remembers which.

    Numbers what it collects as the Popen of the start method does, so that the result is right for every rank
    whose Popen is later asked for the same fds in the same order, after those that are handed over `before`.
    """

    def __init__(self, start_method: str, before: Sequence[int] = ()) -> None:
        popen = _popen_class(start_method)
        self.DupFd = getattr(popen, "DupFd", None)
        self._number = popen.duplicate_for_child
        self.numbers: list[int] = []
        self._fds = list(before)  # the name by which duplicate_for_child of both POSIX Popens appends
        self._before = len(before)
        self._duplicates: list[int] = []

    @property
    def fds(self) -> list[int]:
        """What was handed over, in order; `numbers` has by which number each is found in the rank."""
        return self._fds[self._before :]

    def duplicate_for_child(self, fd: int) -> int:
        """See `popen_spawn_posix.Popen`. Each number once.

        exec refuses repeated fds, and each reader closes its own.
        """
        if sys.platform == "win32":
            raise NeedsChild
        if fd in self._fds:
            fd = os.dup(fd)
            self._duplicates.append(fd)
        self.numbers.append(self._number(self, fd))
        return self.numbers[-1]

    def dump(self, pickler: reduction.ForkingPickler, obj: object) -> None:
        """Pickle `obj` as if for a new child, collecting what is handed over."""
        outer = multiprocessing.context.get_spawning_popen()
        multiprocessing.context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            pickler.dump(obj)
        finally:
            multiprocessing.context.set_spawning_popen(outer)

    def close(self) -> None:
        """Close the duplicates that were made; when every rank has its own."""
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
    """Pass fds to the rank that is being pickled right now; returns the numbers by which it finds them."""
    popen: Any = multiprocessing.context.get_spawning_popen()
    return [popen.duplicate_for_child(fd) for fd in fds]


class WatchedReducers:
    """The reducers that a `ForkingPickler` uses, with a look at what the registered ones return.

    A mapping as `pickle.Pickler.dispatch_table` wants it. Reducers registered with `ForkingPickler.register` are
    those that share something between processes; the copyreg ones copy.
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


# -- in a fresh interpreter of our own launching -------------------------------------------------------------


def use_path(sent: list[Any]) -> None:
    """Have the `sys.path` that the supervisor has sent. What comes of ours before this is imported without it."""
    sys.path[:] = [entry for entry in sent if isinstance(entry, str)]
    if len(sys.path) < len(sent):
        whole: list[Any] = []
        for entry in sent:
            with standard_library(), contextlib.suppress(Exception):
                whole.append(entry if isinstance(entry, str) else reduction.pickle.loads(entry))  # type: ignore[attr-defined]
        sys.path[:] = whole


def unstarted_resource_tracker() -> object | None:
    """By what this process would start its resource tracker; None if it has started one.

    Newer patch releases give it a finalizer (gh-88887), which does nothing as long as none is started.
    """
    tracker: Any = resource_tracker._resource_tracker
    return tracker if tracker._pid is None else None


def use_resource_tracker(fd: int) -> None:
    """Use the resource tracker that the supervisor has, by the fd that it has handed over."""
    resource_tracker._resource_tracker._fd = fd  # type: ignore[attr-defined]


@contextlib.contextmanager
def preserving_resource_tracker() -> Iterator[None]:
    """Let children that are forked or cloned here keep the fd of the resource tracker, as those of multiprocessing do.

    Since CPython 3.13.18, 3.14.10 and 3.15.2 (gh-146313) any other child closes it, and starts a tracker of its own,
    which removes what the child has made when the child ends. To be left in the child as well as here.
    """
    intent = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_fork_intent", None)
    if intent is None:
        yield
        return
    intent.preserve_fd = True
    try:
        yield
    finally:
        intent.preserve_fd = False


@contextlib.contextmanager
def _inheriting() -> Iterator[None]:
    """Let no process be started, as while a rank is still being made: a main module without a guard would, for ever."""
    current: Any = multiprocessing.process.current_process()
    current._inheriting = True
    try:
        yield
    finally:
        del current._inheriting


class Message:
    """What a fresh interpreter was sent: see `launchers.message`.

    Attributes:
        path: the supervisor's `sys.path`, for `use_path`.
        preparation: multiprocessing's preparation data, without that.
    """

    __slots__ = ("_rank", "path", "preparation")

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.preparation: dict[str, Any] = reduction.pickle.load(file)  # type: ignore[attr-defined]
        self.path: list[Any] = self.preparation.pop("sys_path")
        self._rank = file.read()

    def receive(self, name: str) -> Any:
        """Become what multiprocessing's spawned child is: import the main module, unpickle."""
        if "init_main_from_path" in self.preparation:
            standard.load(*_IMPORTED_LATE)
        with _inheriting():
            spawn.prepare({**self.preparation, "name": name})
            return reduction.pickle.loads(self._rank)  # type: ignore[attr-defined]

    def import_main(self) -> None:
        """Import the main module as `receive` does, which then finds it there: in a template, before it is cloned."""
        with _inheriting():
            spawn.prepare(self.preparation)

    def prepare_clones(self) -> None:
        """Do here what need not be done in each clone: all but what names it, and to run the main module.

        There is no file with the bytecode of a main module that is a script, so it is compiled now. Clones find it
        where `runpy` would compile it, once: who runs the script again gets it as it is then.
        """
        with standard_library():
            import runpy

        main = {
            name: self.preparation.pop(name, None) for name in ("init_main_from_name", "init_main_from_path")
        }
        spawn.prepare(self.preparation)
        self.preparation = {name: value for name, value in main.items() if value is not None}
        path = main["init_main_from_path"]
        compile_file = runpy._get_code_from_file  # type: ignore[attr-defined]
        asked = ("__mp_main__", path) if compile_file.__code__.co_argcount > 1 else (path,)
        try:
            compiled = compile_file(*asked)
        except Exception:  # noqa: BLE001 - there is no script, or every rank will raise this for itself
            return

        def find(*arguments: object) -> Any:
            runpy._get_code_from_file = compile_file  # type: ignore[attr-defined]
            return compiled if arguments == asked else compile_file(*arguments)

        runpy._get_code_from_file = find  # type: ignore[attr-defined]


# -- inside a rank --------------------------------------------------------------------------------------------


def bootstrap(process: multiprocessing.process.BaseProcess, parent_sentinel: int | None) -> int:
    """Be `process`, from multiprocessing's first finalizer to its last; returns the exit code."""
    code: int = process._bootstrap(parent_sentinel=parent_sentinel)  # type: ignore[attr-defined]
    return code


def begin_forked() -> None:
    """What `popen_fork.Popen._launch` does first in the child, as the running version does it."""
    if runs_exit_functions("fork"):
        import atexit

        atexit._clear()
        atexit.register(multiprocessing.util._exit_function)  # type: ignore[attr-defined]


def runs_exit_functions(start_method: str) -> bool:
    """Whether ranks of that start method call what `atexit` holds: forked ones since CPython 3.13, and patched 3.12."""
    return start_method == "spawn" or hasattr(popen_fork, "atexit")


def run_exit_functions(start_method: str) -> None:
    """Call what `atexit` holds, where ranks of that start method would."""
    if runs_exit_functions(start_method):
        import atexit

        atexit._run_exitfuncs()


def exit_forked(start_method: str, code: int) -> None:
    """End a rank of a start method that ends at once, without returning to what was done before, whatever `code` is."""
    try:
        run_exit_functions(start_method)
    finally:
        try:
            os._exit(code)
        except OverflowError:  # sys.exit(2**40): what the interpreter's own exit makes of it
            os._exit(255)


def run_as_forkservers(run: Callable[[], int]) -> None:
    """Be a rank of the start method forkserver, and end as its server ends its children: without a finalization."""
    code = 1
    try:
        code = run()
    except Exception:  # noqa: BLE001 - of the bootstrap's own, such as a stream that can't be flushed
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        try:
            run_exit_functions("forkserver")
        finally:
            try:
                os._exit(code)
            except OverflowError:  # sys.exit(2**40)
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(1)


# -- before the main module is imported -----------------------------------------------------------------------


# What multiprocessing imports after the path is in force, to run a main module that is a script.
_IMPORTED_LATE = ("pkgutil",)


class EarlyWord(str):
    """A process's name, by which a fresh interpreter calls us before it imports the main module.

    multiprocessing sends two pickles: first the preparation data (with the name in it), after which it imports the
    main module, which may take seconds or raise; then the Process. As the second one comes too late to arm a
    death signal or to report what the import raised, the name in the first one unpickles by calling `begin(*args)`,
    which returns the plain name. `sys.path` is set before that, or spawnx might not be found: by the function by
    which multiprocessing itself sets it a moment later. Then the module of `begin` is imported, by what finds the
    standard library where that path doesn't.
    """

    __slots__ = ("args", "begin")

    begin: Callable[..., str]
    args: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        with standard_library():
            from operator import itemgetter

        # A tuple is unpickled from left to right: the path, then the calls; itemgetter picks the last result.
        path = {"sys_path": [entry for entry in path_to_send() if isinstance(entry, str)]}
        late = _IMPORTED_LATE if "init_main_from_path" in spawn.get_preparation_data(self) else ()
        load = _Call(standard.load, self.begin.__module__, *late)
        return itemgetter(2), ((_Call(spawn.prepare, path), load, _Call(self.begin, *self.args)),)


class _Call:
    """Unpickles as the result of a call."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self._reduced = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


def _sys_path() -> list[Any]:
    """`sys.path` as multiprocessing sends it: '' is the directory in which the program was started."""
    start = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    entries: list[Any] = sys.path  # what it should have, and what it has
    return [
        start if isinstance(entry, str) and not entry and start is not None else entry for entry in entries
    ]

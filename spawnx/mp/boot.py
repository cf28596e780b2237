"""Make a started process a child of multiprocessing's, and end it as one."""

from __future__ import annotations

import contextlib
import io
import multiprocessing.process
import multiprocessing.util
import os
import sys
from multiprocessing import popen_fork, reduction, resource_tracker, spawn

from spawnx import standard
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


# multiprocessing imports these when the supervisor's path is in force, to run a main module that is a script.
IMPORTED_LATE = ("pkgutil",)


def use_path(sent: list[Any]) -> None:
    """Use the `sys.path` that the supervisor has sent. Our own imports before this call are made without it."""
    sys.path[:] = [entry for entry in sent if isinstance(entry, str)]
    if len(sys.path) < len(sent):
        whole: list[Any] = []
        for entry in sent:
            with standard_library(), contextlib.suppress(Exception):
                whole.append(entry if isinstance(entry, str) else reduction.pickle.loads(entry))  # type: ignore[attr-defined]
        sys.path[:] = whole


def unstarted_resource_tracker() -> object | None:
    """Return the object that would start this process's resource tracker; None if it has started one.

    In newer patch releases it has a finalizer (gh-88887), which does nothing as long as no tracker is started.
    """
    tracker: Any = resource_tracker._resource_tracker
    return tracker if tracker._pid is None else None


def use_resource_tracker(fd: int) -> None:
    """Use the supervisor's resource tracker, by the fd that the supervisor has handed over."""
    resource_tracker._resource_tracker._fd = fd  # type: ignore[attr-defined]


@contextlib.contextmanager
def preserving_resource_tracker() -> Iterator[None]:
    """Keep the fd of the resource tracker in children that this block forks, as multiprocessing does in its own.

    Since CPython 3.13.18, 3.14.10 and 3.15.2 (gh-146313) any other child closes it, and starts a tracker of its own.
    That tracker removes the child's resources when the child ends. Both parent and child must leave the block.
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
    """Forbid this process to start others, as multiprocessing does in a child that boots.

    Else a main module without a guard would start processes for ever.
    """
    current: Any = multiprocessing.process.current_process()
    current._inheriting = True
    try:
        yield
    finally:
        del current._inheriting


class Preparation:
    """The message to a fresh interpreter: see `launchers.message`.

    Attributes:
        path: the supervisor's `sys.path`, for `use_path`.
        preparation: multiprocessing's preparation data, without the path.
    """

    __slots__ = ("_rank", "path", "preparation")

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.preparation: dict[str, Any] = reduction.pickle.load(file)  # type: ignore[attr-defined]
        self.path: list[Any] = self.preparation.pop("sys_path")
        self._rank = file.read()

    def receive(self, name: str) -> Any:
        """Import the main module and unpickle the rank, as multiprocessing's spawned child does."""
        if "init_main_from_path" in self.preparation:
            standard.load(*IMPORTED_LATE)
        with _inheriting():
            spawn.prepare({**self.preparation, "name": name})
            return reduction.pickle.loads(self._rank)  # type: ignore[attr-defined]

    def import_main(self) -> None:
        """Import the main module in a template, before it is cloned: `receive` then finds it imported."""
        with _inheriting():
            spawn.prepare(self.preparation)

    def prepare_clones(self) -> None:
        """Prepare what is the same in all clones: all but the rank's name and the run of the main module.

        A main module that is a script has no file with its bytecode, so it is compiled now. In each clone `runpy` uses
        that code once. If user code runs the script again, `runpy` compiles the file as it is then.
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


def flush_streams() -> None:
    """Flush stdout and stderr: else every fork would write the buffered text again."""
    multiprocessing.util._flush_std_streams()  # type: ignore[attr-defined]


def bootstrap(process: multiprocessing.process.BaseProcess, parent_sentinel: int | None) -> int:
    """Run `process`, from multiprocessing's first finalizer to its last; return the exit status."""
    code: int = process._bootstrap(parent_sentinel=parent_sentinel)  # type: ignore[attr-defined]
    return code


def begin_forked() -> None:
    """Do what `popen_fork.Popen._launch` of the running version does first in the child."""
    if runs_exit_functions("fork"):
        import atexit

        atexit._clear()
        atexit.register(multiprocessing.util._exit_function)  # type: ignore[attr-defined]


def runs_exit_functions(start_method: str) -> bool:
    """Return whether ranks of a start method call `atexit` functions; forked ones: since CPython 3.13, patched 3.12."""
    return start_method == "spawn" or hasattr(popen_fork, "atexit")


def run_exit_functions(start_method: str) -> None:
    """Call the `atexit` functions, if ranks of that start method do."""
    if runs_exit_functions(start_method):
        import atexit

        atexit._run_exitfuncs()


def exit_forked(start_method: str, code: int) -> None:
    """End a forked rank at once, whatever `code` is: it never returns to the frames of the supervisor."""
    try:
        run_exit_functions(start_method)
    finally:
        try:
            os._exit(code)
        except (
            OverflowError
        ):  # no C int, such as 2**40; 255 is the choice of spawnx: the interpreter exits with 0
            os._exit(255)


def run_as_forkservers(run: Callable[[], int]) -> None:
    """Run a rank of the start method forkserver, and end as multiprocessing's forkserver does: without finalization."""
    code = 1
    try:
        code = run()
    except Exception:  # noqa: BLE001 - raised by the bootstrap itself, such as by a stream that can't be flushed
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

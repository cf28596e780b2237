"""How a process that was started becomes a rank of multiprocessing's, and how it ends as one."""

from __future__ import annotations

import contextlib
import io
import multiprocessing.context
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


# What multiprocessing imports after the path is in force, to run a main module that is a script.
IMPORTED_LATE = ("pkgutil",)


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


class Preparation:
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
            standard.load(*IMPORTED_LATE)
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


def flush_streams() -> None:
    """Flush stdout and stderr: what is buffered now would be written by every fork again."""
    multiprocessing.util._flush_std_streams()  # type: ignore[attr-defined]


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

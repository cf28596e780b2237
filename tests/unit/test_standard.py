"""What is on `sys.path` reaches ranks as it is, and stands for nothing that spawnx itself imports."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from spawnx import backends, standard
from spawnx.failures import postmortem
from tests.support import HAS_PIDFD, START_METHODS, Impl, Program, linux_only


def served_by() -> list[tuple[str, str, str]]:
    """Backend, launcher and start method: all ways in which ranks come into being here."""
    if not HAS_PIDFD:
        return [("python", "stdlib", method) for method in START_METHODS]
    ways = [(backend, "auto", method) for backend in backends.available() for method in START_METHODS]
    return [
        *ways,
        *((backend, "exec", "spawn") for backend in backends.available()),
        ("python", "stdlib", "spawn"),
    ]


@pytest.fixture(params=served_by(), ids="-".join)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way; the start method."""
    backend, launcher, method = request.param
    monkeypatch.setenv("SPAWNX_BACKEND", backend)
    monkeypatch.setenv("SPAWNX_LAUNCHER", launcher)
    return str(method)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Programs of their own."""
    return Program(Impl("spawnx"), tmp_path)


SHADOWED = """
    import os, sys

    def end_well(rank):
        pass

    def raise_error(rank):
        raise ValueError("on purpose")

    def leave(rank):
        os._exit(7)

    if __name__ == "__main__":
        folder, method, touched = sys.argv[1:]
        for name in sys.stdlib_module_names:
            with open(f"{folder}/{name}.py", "w") as file:
                file.write(f"raise ImportError('the user has {name}')")
        if touched == "True":
            mp.start_processes
        sys.path.insert(0, folder)
        finders = list(sys.meta_path)
        for end in (end_well, raise_error, leave):
            try:
                mp.start_processes(end, (), 2, start_method=method)
                print("well")
            except mp.ProcessRaisedException as error:
                print("raised", "on purpose" in str(error))
            except mp.ProcessExitedException as error:
                print("exited", error.exit_code)
        print(finders == sys.meta_path)
"""


@pytest.mark.parametrize("touched", [False, True])
def test_folder_with_the_names_of_the_whole_standard_library_changes_nothing(
    way: str, program: Program, tmp_path: Path, *, touched: bool
) -> None:
    """Put in front at run time, before or after spawnx has been used: whatever is imported late is the library's."""
    folder = tmp_path / "helpers"
    folder.mkdir()
    done = program.run(SHADOWED, str(folder), way, str(touched))

    ended = (
        "multiprocessing's forkserver has ended" in done.stderr
    )  # the server may write its own lines after that
    if ended and sys.version_info >= (3, 13) and _of_multiprocessing(os.environ["SPAWNX_BACKEND"], way):
        # In newer patch releases its server has that path, and imports by it: the reference fails as well.
        assert "ImportError: the user has" in done.stderr
        return
    assert ["well", "raised True", "exited 7", "True"] == done.stdout.splitlines(), done.stderr
    assert "the user has" not in done.stderr


PATHS = """
    import os, pathlib, sys, zlib

    class Named(str):
        def __repr__(self):
            return f"Named({str(self)!r})"

    def told(path):
        text = ascii([(type(entry).__name__, entry) for entry in path])
        return len(path), text[-100:], zlib.crc32(text.encode())  # a pipe holds 64 KiB

    def put(rank, queue):
        queue.put(told(sys.path))

    if __name__ == "__main__":
        queue = mp.get_context("spawn").SimpleQueue()
        odd = {
            "a path": pathlib.Path("/odd"), "a subclass of str": Named("/odd"), "nothing": None, "bytes": b"/odd",
            "no UTF-8": "/a'b\\"\\n\\udcff", "empty": "", "long": [f"/{'long' * 20}/{i}" for i in range(4000)],
            "a function": len, "what can not be pickled": lambda: None,
        }[sys.argv[1]]
        sys.path += odd if isinstance(odd, list) else [odd]
        mp.start_processes(put, (queue,), 1, start_method=sys.argv[2])
        found = queue.get()
        sent = [entry for entry in sys.path if not getattr(entry, "__name__", "") == "<lambda>"]
        sent = [str(entry) if isinstance(entry, Named) else entry for entry in sent]
        sent = [entry if entry != "" else os.getcwd() for entry in sent]
        print(found == told(sent))
"""


@linux_only
@pytest.mark.parametrize(
    "entry",
    [
        "a path",
        "nothing",
        "bytes",
        "no UTF-8",
        "empty",
        "long",
        "a function",
        "a subclass of str",
        "what can not be pickled",
    ],
)
@pytest.mark.parametrize(("backend", "launcher", "method"), [one for one in served_by() if one[2] != "fork"])
def test_path_arrives_as_it_is(
    entry: str,
    backend: str,
    launcher: str,
    method: str,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is on it, and however long it is; what can't be sent is left out, as imports pass over it anyway."""
    if entry in {"a subclass of str", "what can not be pickled"} and "stdlib" in {
        launcher,
        *_of_multiprocessing(backend, method),
    }:
        pytest.skip("multiprocessing pickles the path as it is, and the reference fails as well")
    monkeypatch.setenv("SPAWNX_BACKEND", backend)
    monkeypatch.setenv("SPAWNX_LAUNCHER", launcher)

    assert ["True"] == program.output(PATHS, entry, method)


def _of_multiprocessing(backend: str, method: str) -> set[str]:
    return {"stdlib"} if (backend, method) == ("python", "forkserver") else set()


def test_nothing_of_ours_is_bound_in_the_main_module(way: str, program: Program) -> None:
    """There a function of a notebook, or of `-c`, would be looked for, and found."""
    source = """
import sys
import spawnx as mp
queue = mp.get_context("spawn").SimpleQueue()
from tests import ranks
mp.start_processes(ranks.put_names_of_main, (queue,), 1, start_method=sys.argv[1])
print(*queue.get())
"""
    expected = "mp queue ranks sys" if way == "fork" else ""
    if os.environ["SPAWNX_LAUNCHER"] == "stdlib" or _of_multiprocessing(os.environ["SPAWNX_BACKEND"], way):
        pytest.skip("multiprocessing binds its own")
    done = program.run_command([sys.executable, "-c", source, way])

    assert f"{expected}\n" == done.stdout, done.stderr


def test_function_called_main_of_a_program_without_a_file_is_not_found(program: Program) -> None:
    """As by multiprocessing: the error names it. It was ours that was found, and called."""
    source = "import spawnx as mp\ndef main(rank): pass\nmp.spawn(main)"
    done = program.run_command([sys.executable, "-c", source])

    texts = (
        "Can't get attribute 'main' on <module '__main__'",
        "module '__main__' has no attribute 'main'",
    )  # 3.14
    assert any(text in done.stderr for text in texts), done.stderr


@linux_only
def test_folder_in_which_the_program_is_stands_for_nothing(
    way: str, program: Program, tmp_path: Path
) -> None:
    """A fresh interpreter that runs `-c` looks there first."""
    source = """
        import os, sys
        from multiprocessing import resource_tracker

        def end_well(rank):
            pass

        if __name__ == "__main__":
            resource_tracker.ensure_running()  # multiprocessing's own interpreter looks there
            os.chdir(sys.argv[1])
            mp.start_processes(end_well, (), 1, start_method=sys.argv[2])
            print("well")
    """
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("spawnx", "_cffi_backend", "signal", "pickle", "struct", "contextlib", "importlib"):
        (folder / f"{name}.py").write_text("raise ImportError('the user has this')", encoding="utf-8")
    if os.environ["SPAWNX_LAUNCHER"] == "stdlib" or _of_multiprocessing(os.environ["SPAWNX_BACKEND"], way):
        pytest.skip("multiprocessing's own interpreters look there")
    done = program.run(source, str(folder), way)

    assert ("well\n", "") == (done.stdout, done.stderr)


@linux_only
def test_interpreter_that_is_tried_again_begins_as_ranks_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of it is what was tried: our code, its libraries and the path, not the rank's arguments."""
    well = postmortem.try_interpreter()
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pickle'] = None", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = postmortem.try_interpreter()

    assert f"Tried again, up to the arguments of the rank, {sys.executable} ends well." == well
    assert "ends with exit code 1 and says:" in broken
    texts = ("import of pickle halted", "Standard library module 'pickle' was not found")  # CPython 3.15
    assert any(text in broken for text in texts), broken


# The finder


def test_other_threads_import_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one imports for spawnx, another one finds what the program has put in front."""
    (tmp_path / "antigravity.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[Any] = []
    with standard.standard_library():
        thread = threading.Thread(target=lambda: found.append(__import__("antigravity").__file__))
        thread.start()
        thread.join()
    monkeypatch.delitem(sys.modules, "antigravity")

    assert [str(tmp_path / "antigravity.py")] == found


def test_module_of_another_system_is_not_found_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks for some, to see where it is: `subprocess` for `msvcrt`."""
    name = "winreg" if os.name == "posix" else "grp"
    (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    with standard.standard_library(), pytest.raises(ModuleNotFoundError):
        __import__(name)


def test_finders_are_afterwards_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same list, if nobody has changed it meanwhile; else with the change."""
    before = sys.meta_path
    with standard.standard_library():
        with standard.standard_library():
            pass
        inside = list(sys.meta_path)
    same = sys.meta_path is before
    new: Any = object()
    monkeypatch.setattr(sys, "meta_path", list(before))
    with standard.standard_library():
        sys.meta_path.append(new)
    changed = list(sys.meta_path)

    assert same
    assert [standard._finder, *before] == inside
    assert [*before, new] == changed


def test_module_that_is_built_in_is_not_taken_from_a_file(tmp_path: Path, program: Program) -> None:
    """PyPy has a file of faulthandler that does nothing, beside the module that works."""
    (tmp_path / "errno.py").write_text("raise ImportError('this file stands for nothing')", encoding="utf-8")
    source = f"""
        import sys
        from spawnx.standard import _finder, standard_library

        sys.modules.pop("errno", None)
        _finder.folders.insert(0, {str(tmp_path)!r})
        with standard_library():
            import errno
        print("errno" in sys.builtin_module_names, errno.ENOENT)
    """

    assert ["True 2"] == program.output(source)

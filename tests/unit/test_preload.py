"""What a template imports before it is cloned: on request the main module, and what other ways there are to ask."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spawnx
from spawnx import backends
from spawnx.mp import forkserver
from tests import interpreter, ranks
from tests.support import LONG_S, ROOT
from tests.unit.test_clone import told

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)


@pytest.fixture(autouse=True)
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone")


def run(source: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(source), encoding="utf-8")
    return subprocess.run(
        [sys.executable, *arguments, *([] if "-m" in arguments else [str(program)])],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=LONG_S, check=False, cwd=folder,
    )  # fmt: skip


# The main module

MAIN = """
    import json, os, sys
    import spawnx

    IMPORTED_BY, NAME = os.getpid(), __name__

    def put(rank, queue, thing):
        queue.put((IMPORTED_BY == os.getpid(), IMPORTED_BY, NAME, type(thing) is Thing, sys.argv[1:]))

    class Thing:
        pass

    if __name__ == "__main__":
        queue = spawnx.get_context("spawn").SimpleQueue()
        context = spawnx.spawn(put, (queue, Thing()), 2, join=False, **json.loads(os.environ["OPTIONS"]))
        found = [queue.get() for _ in range(2)]
        while not context.join():
            pass
        by_themselves, whom, names, same, argv = zip(*found)
        print(json.dumps([context.launcher, by_themselves, len({*whom}), names, same, argv]))
"""


@pytest.mark.parametrize("how", [["program.py", "x"], ["-m", "program", "x"]], ids=["script", "module"])
@pytest.mark.parametrize(
    ("options", "setting", "once"),
    [
        ({"preload": ["__main__"]}, "auto", True),
        ({}, "json,__main__", True),
        ({}, "auto", False),
    ],
    ids=["argument", "setting", "not asked for"],
)
def test_main_module_is_imported_once_on_request(
    options: dict[str, Any], setting: str, *, once: bool, how: list[str], tmp_path: Path
) -> None:
    """As `__mp_main__`, in the template; ranks find it imported, and what is pickled from it is the same."""
    arguments = how if how[0] == "-m" else []
    done = run(MAIN, tmp_path, *arguments, OPTIONS=json.dumps(options), SPAWNX_PRELOAD=setting)
    argv = ["x"] if arguments else []

    assert "" == done.stderr
    assert [
        "clone",
        [not once] * 2,
        1 if once else 2,
        ["__mp_main__"] * 2,
        [True] * 2,
        [argv] * 2,
    ] == json.loads(done.stdout)


def test_main_module_without_a_guard_is_told_by_the_ranks_as_ever(tmp_path: Path) -> None:
    """The preload is given up with one warning; then it is the standard library's error, with its traceback."""
    source = """
        import spawnx
        from tests import ranks

        spawnx.spawn(ranks.nothing, (), 2, preload=["__main__"])
    """
    done = run(source, tmp_path)

    assert 1 == done.stderr.count("the import of __main__ raised RuntimeError")
    assert "ProcessRaisedException" in done.stderr
    assert "An attempt has been made to start a new process before the\n" in done.stderr


def test_program_without_a_main_module_to_import_has_nothing_to_preload() -> None:
    """As `python -c`: nobody imports it, here or in the ranks."""
    source = (
        "import spawnx; from tests import ranks; c = spawnx.spawn(ranks.nothing, (), 2, join=False, preload="
    )
    source += "['__main__']); c.join_all(); print(c.launcher)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=LONG_S, check=False, cwd=ROOT
    )

    assert ("clone\n", "") == (done.stdout, done.stderr)


def test_ranks_log_each_line_once_where_the_main_module_was_preloaded(tmp_path: Path) -> None:
    """`log_to_stderr` is in force in ranks, by one handler each."""
    source = """
        import multiprocessing
        import spawnx

        def work(rank):
            multiprocessing.get_logger().warning("from rank %d", rank)

        if __name__ == "__main__":
            multiprocessing.log_to_stderr("WARNING")
            spawnx.spawn(work, (), 2, preload=["__main__"])
    """
    done = run(source, tmp_path)

    assert [1, 1] == [done.stderr.count(f"from rank {rank}") for rank in range(2)], done.stderr


# Other ways to ask


def test_auto_has_what_the_forkserver_was_told_to_preload(module: Callable[[str], str]) -> None:
    """A program that has said so once need not say it again; what is asked for in the call comes first."""
    name = module("VALUE = 7")
    multiprocessing.set_forkserver_preload([name, "__main__"])
    try:
        by_auto = told(interpreter.put_value, 1, name)
        by_list = told(interpreter.put_value, 1, name, preload=["json"])
    finally:
        multiprocessing.set_forkserver_preload(["__main__"])

    assert ([(True, 7)], [(False, 7)]) == (by_auto, by_list)


def test_auto_does_not_import_the_main_module_unasked() -> None:
    """The forkserver's list has it from the start, whether anybody has asked for it or not."""
    multiprocessing.set_forkserver_preload(["__main__"])

    assert [] == forkserver.preload()


@pytest.mark.skipif(sys.version_info < (3, 15), reason="on_error is CPython 3.15's")
@pytest.mark.parametrize(
    ("on_error", "method"), [("fail", "forkserver"), ("fail", "spawn"), ("warn", "forkserver")]
)
def test_failed_preload_fails_the_call_where_the_forkservers_would(
    on_error: str, method: str, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`set_forkserver_preload(..., on_error="fail")`, which is about that start method; at each call."""
    monkeypatch.delenv("SPAWNX_LAUNCHER")
    name = module("raise ValueError('as it is')")
    multiprocessing.set_forkserver_preload([name], on_error=on_error)  # type: ignore[call-arg]
    try:
        for _ in range(2):
            if (on_error, method) == ("fail", "forkserver"):
                with pytest.raises(
                    ImportError, match=rf"{name}; the import of {name} raised ValueError: as it is"
                ):
                    spawnx.start_processes(ranks.nothing, (), 2, start_method=method)
            else:
                spawnx.start_processes(ranks.nothing, (), 2, start_method=method)
    finally:
        multiprocessing.set_forkserver_preload(["__main__"])


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports are CPython 3.15's")
def test_lazy_imports_of_vetted_modules_are_resolved_where_they_are_vetted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is imported by that has; what is not vetted stays as it is."""
    for name, text in {
        "first": "lazy from vet import second\nlazy import colorsys\nlazy import vet.missing",
        "second": "lazy from vet import third",
        "third": "",
        "__init__": "",
    }.items():
        (tmp_path / "vet").mkdir(exist_ok=True)
        (tmp_path / "vet" / f"{name}.py").write_text(text, encoding="utf-8")
    code = """
        import sys
        from spawnx import vetted
        from spawnx.remote import preload
        vetted.VETTED["vet"] = vetted.Vetted(lambda: None)
        preload.preload(["vet.first"], lambda: None, ())
        names = ("vet.first", "vet.second", "vet.third", "vet.missing", "colorsys")
        print(*(name in sys.modules for name in names))
    """
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )

    assert ("True True True False False\n", "") == (done.stdout, done.stderr)


# Whether it may be cloned


def test_preload_is_cloned_where_sigchld_is_ignored(module: Callable[[str], str]) -> None:
    """Ignored signals are inherited: the template's throw-away child is reaped by the kernel."""
    name = module("VALUE = 7")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        found = told(interpreter.put_value, 2, name, preload=[name])
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert [(True, 7)] * 2 == found


def test_module_of_a_users_under_a_name_of_the_standard_library_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By where it is, not by its name: it may leave files open, as any module of a user's."""
    (tmp_path / "colorsys.py").write_text(
        "import os\nfd = os.open(os.devnull, os.O_RDONLY)", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    assert [0] == told(ranks.put_rank, 1, preload=["colorsys"])
    assert ["the import of colorsys left /dev/null open"] == [
        record.message.rpartition(": ")[2] for record in caplog.records
    ]


def test_preload_that_keeps_a_library_open_is_cloned(module: Callable[[str], str]) -> None:
    """To read it, where it runs: some builds of libffi do so from their start, as with ctypes, which numpy imports."""
    name = module(
        """
        import os

        with open("/proc/self/maps") as maps:
            path = next(line.split()[5] for line in maps if " r-xp " in line and ".so" in line)
        KEPT = os.open(path, os.O_RDONLY)
        VALUE = 7
        """
    )

    assert [(True, 7)] * 2 == told(interpreter.put_value, 2, name, preload=[name])


DEVICE = """
    import ctypes, os
    from spawnx.remote import opened

    opened._DEVICES = ("/dev/zero",)
    fd = os.open("/dev/zero", os.O_RDWR)
"""
MAPPED = """
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap(None, ctypes.c_size_t(4096), 3, 2, fd, ctypes.c_long(0))
    os.close(fd)
"""


@pytest.mark.parametrize("more", ["", MAPPED], ids=["open", "mapped"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_preload_that_has_opened_a_device_is_not_cloned(
    method: str, more: str, module: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if a later import closes it: the driver knows the process by then. The log names both."""
    name = module(textwrap.dedent(DEVICE) + textwrap.dedent(more))
    closes = "closes_" + name
    (tmp_path / f"{closes}.py").write_text(
        f"import os, sys\nos.closerange(sys.modules['{name}'].fd, sys.modules['{name}'].fd + 1)",
        encoding="utf-8",
    )
    queue = spawnx.get_context(method).SimpleQueue()
    spawnx.start_processes(
        ranks.put_whether_loaded, (queue, name), 2, start_method=method, preload=[name, closes]
    )
    found = [queue.get() for _ in range(2)]
    queue.close()

    assert [False] * 2 == found
    assert [f"the import of {name} opened /dev/zero"] == [
        record.message.rpartition(": ")[2] for record in caplog.records
    ]


# What is renewed, and what is not


@pytest.mark.parametrize("renews", [True, False], ids=["renews", "does not"])
def test_module_of_a_users_renews_what_it_likes_by_register_at_fork(
    module: Callable[[str], str], *, renews: bool
) -> None:
    """It is called in each clone as in a forked child; what a module doesn't renew is the same in all."""
    name = module(
        f"""
        import os

        def renew():
            global VALUE
            VALUE = os.urandom(8)

        renew()
        if {renews}:
            os.register_at_fork(after_in_child=renew)
        """
    )
    found = told(interpreter.put_value, 8, name, preload=[name])

    assert [True] * 8 == [before for before, _ in found]
    assert (8 if renews else 1) == len({value for _, value in found})


def test_fork_handlers_are_called_for_each_clone(module: Callable[[str], str]) -> None:
    """Those of `pthread_atfork` as Python's own: at the throw-away fork of the template, and at each rank's."""
    name = module(
        """
        import ctypes, os

        VALUE = []

        def note(word):
            handler = ctypes.CFUNCTYPE(None)(lambda: VALUE.append(word))
            HANDLERS.append(handler)
            return handler

        HANDLERS = []
        libc = ctypes.CDLL(None)
        # What C calls pthread_atfork; in glibc a dynamic linker finds it by the first name only.
        register = getattr(libc, "__register_atfork", None) or libc.pthread_atfork
        register(note("libc's before"), note("libc's parent"), note("libc's child"), None)
        words = [lambda word=word: VALUE.append(word) for word in ("before", "parent", "child")]
        os.register_at_fork(before=words[0], after_in_parent=words[1], after_in_child=words[2])
        """
    )
    throw_away = ["before", "libc's before", "libc's parent", "parent"]

    in_rank = ["before", "libc's before", "libc's child", "child"]
    found = [words for _, words in told(interpreter.put_value, 2, name, preload=[name])]

    # The second rank is forked after the template's handlers have been called for the first one.
    assert [[*throw_away, *in_rank], [*throw_away, *throw_away, *in_rank]] == sorted(found, key=len)


# For a whole program


def test_modules_that_are_named_once_are_preloaded_in_each_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By "auto", until others are named; what a call names is all that it gets."""
    monkeypatch.setattr("spawnx.launchers.preload._for_all_calls", ())
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"named_{tmp_path.name}"
    (tmp_path / f"{name}.py").touch()
    spawnx.preload([name])
    found = [
        *told(ranks.put_whether_loaded, 2, name),
        *told(ranks.put_whether_loaded, 1, name, preload=["json"]),
    ]
    spawnx.preload(())
    found += told(ranks.put_whether_loaded, 1, name)

    assert [True, True, False, False] == found


@pytest.mark.parametrize("value", ["torch", [3]])
def test_modules_that_are_no_names_are_refused(value: Any) -> None:
    """At once."""
    with pytest.raises(TypeError, match="names of modules"):
        spawnx.preload(value)


SIGNALLED = """
    import os, signal

    os.kill(os.getpid(), signal.SIGTERM)  # blocked in templates; a rank by exec would end by it
"""


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    "then", ["", "import threading; threading.Timer(60, print).start()"], ids=["", "given up"]
)
def test_signal_that_comes_while_a_template_boots_reaches_the_ranks(
    start_method: str, then: str, module: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A batch system signals the whole group. Also where that template makes no clones in the end."""
    name = module(SIGNALLED + textwrap.indent(then, "    "))
    with pytest.raises(spawnx.ProcessExitedException) as caught:
        spawnx.start_processes(ranks.do, (ranks.stay,), 2, start_method=start_method, preload=[name])

    assert "SIGTERM" == caught.value.signal_name
    assert bool(then) == any("the preload failed" in message for message in caplog.messages)

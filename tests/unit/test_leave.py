"""The end of a clone: at once where nobody could tell, and that of any interpreter where somebody could."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import psutil
import pytest

from spawnx import backends
from tests.support import Impl, Program

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)

from spawnx.remote import quiet

# A rank runs `work`, and writes into a pipe how it ends: "s" is the short end, "c" the cut one, CPython's own is "".
PROGRAM = """
    import os, sys
    from tests import endings

    # Modules may be half taken apart when it is called.
    def tell(out, open=os.open, write=os.write, flags=os.O_WRONLY | os.O_APPEND):
        write(open(out, flags), b"told")

    {module}

    def rank(_, pipe, out):
        endings.note_into(os.dup(pipe.fileno()))
        work(out)

    if __name__ == "__main__":
        reader, writer = mp.get_context("spawn").Pipe(duplex=False)
        context = mp.start_processes(rank, (writer, sys.argv[1]), 2, join=False)
        writer.close()
        while not context.join():
            pass
        print(context.launcher, os.read(reader.fileno(), 9).decode())
"""

NOTHING = "def work(out):\n    pass"
THINGS_THAT_ARE_TOLD = {
    "global with __del__": """
        class Told:
            def __del__(self, tell=tell):
                tell(self.out)

        told = Told()

        def work(out):
            told.out = out
    """,
    "cycle with __del__": """
        class Told:
            def __del__(self, tell=tell):
                tell(self.out)

        def work(out):
            told = Told()
            told.self, told.out = told, out
    """,
    "stream with a full buffer": """
        def work(out):
            global file
            file = open(out, "a")
            file.write("told")
    """,
    "generator in the middle": """
        def generator(out, tell=tell):
            try:
                yield
            finally:
                tell(out)

        def work(out):
            global running
            running = generator(out)
            next(running)
    """,
    "function of atexit": """
        import atexit

        def work(out):
            atexit.register(tell, out)
    """,
    "finalizer of weakref": """
        import weakref

        class Told:
            pass

        told = Told()

        def work(out):
            weakref.finalize(told, tell, out)
    """,
    "weak reference with a callback": """
        import types, weakref

        class Told:
            pass

        def work(out):
            module = sys.modules["module"] = types.ModuleType("module")
            module.told = Told()
            module.reference = weakref.ref(module.told, lambda _, tell=tell: tell(out))
    """,
    "buffer of libc": """
        import ctypes

        def work(out):
            libc = ctypes.CDLL(None)
            libc.fopen.restype = ctypes.c_void_p
            file = libc.fopen(out.encode(), b"a")
            libc.fputs(b"told", ctypes.c_void_p(file))
    """,
}

# What is done before anything is looked at; or whatever is found (who has imported ctypes: the template, or the rank?).
AT_A_SHORT_END = [THINGS_THAT_ARE_TOLD[name] for name in ("function of atexit", "finalizer of weakref")]
AT_ANY_END = [THINGS_THAT_ARE_TOLD["buffer of libc"]]
# What an inspection may stumble over, and an interpreter that ends does not.
ODDITIES = {
    "closed output": "def work(out):\n    sys.stdout.close()",
    "stream without its buffer": """
        def work(out):
            global stream
            stream = open(os.devnull)
            stream.detach()
    """,
    "class that can't be hashed": """
        class Kind(type):
            def __eq__(self, other):
                return False

        class Odd(metaclass=Kind):
            pass

        def work(out):
            global odd
            odd = Odd()
    """,
    "proxy that fails": """
        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError

        proxy = Proxy()

        def work(out):
            pass
    """,
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Programs whose ranks are cloned."""
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    return Program(Impl("native"), tmp_path)


def told(program: Program, module: str, **environment: str) -> tuple[str, str]:
    """How the ranks were launched, with an s for each that ended at once; and what they wrote."""
    out = program.folder / "out"
    out.touch()
    source = textwrap.dedent(PROGRAM).replace("{module}", textwrap.dedent(module))
    (line,) = program.output(source, str(out))
    return line, out.read_text(encoding="utf-8")


def test_rank_that_made_nothing_which_would_be_told_ends_at_once(program: Program) -> None:
    """No module is taken apart."""
    assert ("clone ss", "") == told(program, NOTHING)


@pytest.mark.parametrize("module", THINGS_THAT_ARE_TOLD.values(), ids=THINGS_THAT_ARE_TOLD)
def test_what_is_told_of_the_end_of_an_interpreter_is_told(module: str, program: Program) -> None:
    """As by exec: finalizers are called, buffers are written. The template's modules are spared all the same."""
    expected = "clone ss" if module in AT_A_SHORT_END else "clone cc"
    ends, written = told(program, module)

    assert "toldtold" == written
    assert expected == ends or module in AT_ANY_END


@pytest.mark.parametrize("module", ODDITIES.values(), ids=ODDITIES)
def test_oddities_are_left_to_the_interpreter(module: str, program: Program) -> None:
    """The rank ends well, one way or the other."""
    assert told(program, module)[0].startswith("clone")


def test_what_a_rank_has_frozen_is_told(program: Program) -> None:
    """As before a fork of its own: the collector lists it no longer."""
    module = """
        import gc, types

        def work(out):
            module = sys.modules["module"] = types.ModuleType("module")
            module.file = open(out, "a")
            module.file.write("told")
            gc.freeze()
    """

    assert ("clone ", "toldtold") == told(program, module)


def test_what_a_named_module_has_made_is_told(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made before the clone, by nobody who is known."""
    buffer = """
        import os, sys

        class Buffer(list):
            def __del__(self, open=os.open, write=os.write, flags=os.O_WRONLY | os.O_APPEND):
                for place in self:
                    write(open(place, flags), b"told")

        buffer = Buffer()
    """
    (program.folder / "named.py").write_text(textwrap.dedent(buffer), encoding="utf-8")
    monkeypatch.setenv("SPAWNX_PRELOAD", "named")
    module = "import named\n\ndef work(out):\n    named.buffer.append(out)"

    assert ("clone ", "toldtold") == told(program, module)


@pytest.mark.parametrize(
    ("module", "ends"),
    [
        pytest.param("import _cffi_backend\n" + NOTHING, "clone ss", id="ours"),
        pytest.param("import psutil\n" + NOTHING, "clone ", id="unknown extension"),
        pytest.param(
            "import ctypes\nctypes.CDLL('FOLDER/libunknown.so')\n" + NOTHING, "clone ", id="library"
        ),
        pytest.param("import _sqlite3\n" + NOTHING, "clone ss", id="of the standard library"),
    ],
)
def test_rank_that_uses_unknown_libraries_is_finalized(module: str, ends: str, program: Program) -> None:
    """They may have an end of their own."""
    shutil.copy(psutil._psplatform.cext.__file__, program.folder / "libunknown.so")

    assert ends == told(program, module.replace("FOLDER", str(program.folder)))[0]


def test_rank_with_a_preloaded_library_is_finalized(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of LD_PRELOAD is there to look on, and may write at the end what it saw."""
    monkeypatch.setenv("LD_PRELOAD", "libm.so.6")

    assert "clone " == told(program, NOTHING)[0]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("work", "ends"),
    [
        pytest.param("(torch.ones(8, 8) @ torch.ones(8, 8)).backward", "clone ss", id="computes"),
        pytest.param(
            "torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(),"
            " rank=0, world_size=1)",
            "clone ",
            id="has peers",
        ),
    ],
)
def test_torch_rank_ends_at_once_unless_it_has_peers(work: str, ends: str, program: Program) -> None:
    """Peers, and devices, are to be told."""
    assert ends == told(program, f"import torch\n\ndef work(out):\n    {work}")[0]


@pytest.mark.torch
def test_finalizers_that_torch_has_from_its_import_are_spared_and_no_others(program: Program) -> None:
    """They take its operators apart in each rank, for nobody."""
    module = """
        import torch, weakref

        def work(out):
            mine = weakref.finalize(work, print)
            found = [one.peek()[1].__module__ for one in weakref.finalize._registry if one.atexit]
            with open(out, "a") as file:
                print(sum(name.startswith("torch") for name in found), mine.atexit, file=file)
            mine.detach()
    """

    assert "0 True\n" * 2 == told(program, module)[1]


def test_classes_are_not_compared() -> None:
    """A metaclass may raise, or warn: `typing` has one that does, since CPython 3.14."""

    class Shy(type):
        def __hash__(cls) -> int:
            raise TypeError("unhashable")

        def __eq__(cls, other: object) -> bool:
            raise TypeError("incomparable")

    # As if it were the standard library's, whose objects are quiet.
    kind = Shy("Kind", (), {"__module__": "typing"})

    assert 1 == sum(one is kind for one in quiet.types_of_interpreter())


def test_exit_code_that_no_short_end_can_give_is_the_interpreters(program: Program) -> None:
    """sys.exit(2**70), as multiprocessing has it."""
    source = """
        import sys

        def rank(i):
            sys.exit(2**70)

        if __name__ == "__main__":
            context = mp.start_processes(rank, (), 1, join=False)
            context.processes[0].join()
            print(context.launcher, context.processes[0].exitcode)
    """

    assert ["clone 255"] == program.output(source)

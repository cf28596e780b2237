"""Names beside `spawn`: those of multiprocessing and torch, the function that is also a module, lazy imports."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from tests.support import QUICK, Impl, Program

# Of what users of torch.multiprocessing import from it, what Lightning, elastic and PyTorch's own tests need first.
NAMES = sorted({*multiprocessing.__all__} - {"reducer"})
IMPORTS = {
    "package": "import {package}",
    "module": "import {package}.spawn",
    "name of module": "from {package}.spawn import ProcessContext",
    "module, reloaded": "import importlib, sys, {package}.spawn; importlib.reload(sys.modules['{package}.spawn'])",
}


@pytest.mark.parametrize("name", NAMES)
def test_name_of_multiprocessing_is_found(impl: Impl, name: str) -> None:
    """`mp.get_context`, `mp.Queue`, `mp.Process` and all others are multiprocessing's."""
    assert getattr(multiprocessing, name) == getattr(impl.mp, name)


def test_unknown_name_is_an_attribute_error(impl: Impl) -> None:
    """A name that nobody has is refused with the package's own name."""
    with pytest.raises(AttributeError, match=f"module '{impl.package}' has no attribute 'no_such_name'"):
        impl.mp.no_such_name  # noqa: B018
    assert not hasattr(impl.mp, "no_such_name")


def test_dir_lists_own_and_borrowed_names(impl: Impl) -> None:
    """Completion in a shell offers all of them."""
    expected = {
        "spawn",
        "start_processes",
        "ProcessContext",
        "ProcessRaisedException",
        "get_context",
        "Queue",
    }

    assert expected == expected & set(dir(impl.mp))


def test_star_import_brings_names_of_multiprocessing(impl: Impl) -> None:
    """`from … import *` works, and brings what callers use."""
    names: dict[str, object] = {}
    exec(f"from {impl.package} import *", names)  # noqa: S102

    assert {"get_context", "Queue", "Process"} == {"get_context", "Queue", "Process"} & set(names)


@pytest.mark.parametrize("name", ["spawn", "start_processes"])
def test_function_can_be_pickled(impl: Impl, name: str) -> None:
    """A function is found again by its name, though a module has that name, too."""
    function = getattr(impl.mp, name)

    assert function is pickle.loads(pickle.dumps(function))


@pytest.mark.parametrize("statement", IMPORTS.values(), ids=IMPORTS)
def test_spawn_is_a_function_whatever_was_imported(program: Program, statement: str) -> None:
    """`mp.spawn` can be called, and its module's names imported, whatever came first, at the second look, too."""
    package = program.impl.package
    assert ["True True", "True True", "module"] == program.output(
        f"""
        {statement.format(package=package)}
        import sys
        import {package} as mp
        module = sys.modules.get("{package}.spawn")
        for _ in range(2):
            print(callable(mp.spawn), callable(mp.start_processes))
        from {package}.spawn import ProcessContext, ProcessException
        print(type(sys.modules["{package}.spawn"]).__name__)
        """
    )


def test_modules_of_the_program_do_not_change_what_spawn_is(program: Program) -> None:
    """`import ….spawn as name` gives the function, as it does in the reference."""
    assert ["function"] == program.output(
        f"""
        import {program.impl.package}.spawn as name
        print(type(name).__name__)
        """
    )


@pytest.mark.torch
def test_names_are_torch_s_once_torch_is_loaded(impl: Impl, program: Program) -> None:
    """`set_sharing_strategy` and the like appear with torch, and all names are those of torch.multiprocessing."""
    before = impl.differs(torch="True", spawnx="False")
    assert [before, "True", "[]"] == program.output(
        """
        print(hasattr(mp, "set_sharing_strategy"))
        import torch.multiprocessing
        print(mp.set_sharing_strategy is torch.multiprocessing.set_sharing_strategy)
        print([
            name
            for name in torch.multiprocessing.__all__
            if getattr(mp, name) != getattr(torch.multiprocessing, name)
        ])
        """
    )


def test_import_alone_imports_nothing(impl: Impl, program: Program) -> None:
    """`import spawnx` pays for nothing that is dear; the reference brings all of torch along."""
    dear = ["logging", "multiprocessing", "multiprocessing.connection", "numpy", "psutil", "torch"]
    expected = impl.differs(
        torch={"logging", "multiprocessing", "multiprocessing.connection", "torch"}, spawnx=set()
    )
    (loaded,) = program.output(
        f"""
        import sys
        print(*{{*{dear}}} & {{*sys.modules}})
        """
    )

    assert expected == set(loaded.split()) - impl.differs(torch={"numpy"}, spawnx=set())


def test_ranks_do_not_import_torch_by_themselves(impl: Impl, program: Program) -> None:
    """Neither the call nor a rank loads torch, unless the program does."""
    loaded = impl.differs(torch=["True", "True"], spawnx=["False", "False"])
    assert loaded == program.output(
        f"""
        import sys
        from tests import ranks

        if __name__ == "__main__":
            mp.start_processes(ranks.print_loaded, ("torch",), start_method={QUICK!r})
            print("torch" in sys.modules)
        """
    )

"""Names, parameters, defaults, exception classes and warnings: what code that was written for torch can see."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from tests import ranks
from tests.support import QUICK, Impl, finish

# Written down, so that the suite says without torch, too, what is promised; torch shows that it is right.
PARAMETERS = {
    "spawn": "fn args=() nprocs=1 join=True daemon=False start_method='spawn'",
    "start_processes": "fn args=() nprocs=1 join=True daemon=False start_method='spawn'",
    "ProcessContext": "processes error_files",
    "ProcessContext.join": "self timeout=None grace_period=None",
    "ProcessContext.pids": "self",
    "ProcessContext._join_procs_with_timeout": "self timeout",
    "SpawnContext": "processes error_files",
    "ProcessException": "msg error_index error_pid",
    "ProcessRaisedException": "msg error_index error_pid",
    "ProcessExitedException": "msg error_index error_pid exit_code signal_name=None",
    "_wrap": "fn i args error_file",
}
PUBLIC = [
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "SpawnContext",
    "spawn",
    "start_processes",
]
# Each class with the arguments that the reference's `join` makes it from.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "ProcessException": {"msg": "text", "error_index": 1, "error_pid": 22},
    "ProcessRaisedException": {"msg": "text", "error_index": 1, "error_pid": 22},
    "ProcessExitedException": {
        "msg": "text",
        "error_index": 1,
        "error_pid": 22,
        "exit_code": -9,
        "signal_name": "SIGKILL",
    },
}


@pytest.fixture(params=EXCEPTIONS)
def exception(request: pytest.FixtureRequest, impl: Impl) -> Any:
    """An exception of each class."""
    return getattr(impl.module, request.param)(**EXCEPTIONS[request.param])


def _parameters(module: Any, path: str) -> list[inspect.Parameter]:
    """The parameters of a callable, without their annotations."""
    found = module
    for name in path.split("."):
        found = getattr(found, name)
    signature = inspect.signature(found)
    return [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]


@pytest.mark.parametrize("path", PARAMETERS)
def test_parameters_are_the_reference_s(impl: Impl, path: str) -> None:
    """The reference's parameters come first, in its order, with its names and defaults."""
    expected = PARAMETERS[path].split()
    parameters = _parameters(impl.module, path)[: len(expected)]

    assert expected == [str(parameter) for parameter in parameters]
    assert {inspect.Parameter.POSITIONAL_OR_KEYWORD} == {parameter.kind for parameter in parameters}


@pytest.mark.parametrize("path", PARAMETERS)
def test_added_parameters_are_keyword_only(impl: Impl, path: str) -> None:
    """What spawnx adds can only be given by name and needn't be given; the reference adds nothing to itself."""
    added = _parameters(impl.module, path)[len(PARAMETERS[path].split()) :]

    assert [] == [
        parameter
        for parameter in added
        if parameter.kind not in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
        or (parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty)
    ]
    assert impl.differs(torch=True, spawnx=False) <= (not added)


def test_public_names_are_the_reference_s(impl: Impl) -> None:
    """`__all__` of the module `spawn` names what the reference's does."""
    assert PUBLIC == sorted(set(PUBLIC) & set(impl.module.__all__))
    assert impl.differs(torch=set(PUBLIC), spawnx=set(impl.module.__all__)) == set(impl.module.__all__)


@pytest.mark.parametrize(
    "name",
    ["ProcessContext", "ProcessExitedException", "ProcessRaisedException", "SpawnContext", "start_processes"],
)
def test_name_of_package_is_that_of_module(impl: Impl, name: str) -> None:
    """What callers import from the package is what they import from the module `spawn`."""
    assert getattr(impl.module, name) is getattr(impl.mp, name)


def test_spawn_of_package_is_the_function(impl: Impl) -> None:
    """`mp.spawn` is the function, though a module has that name, too."""
    assert impl.module.spawn is impl.mp.spawn


def test_variable_of_parallel_start_is_named_as_in_reference(impl: Impl) -> None:
    """The name that callers put into the environment is a constant of the package and of the module."""
    assert "TORCH_MP_PARALLEL_START" == impl.mp.ENV_VAR_PARALLEL_START
    assert "TORCH_MP_PARALLEL_START" == impl.module.ENV_VAR_PARALLEL_START


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ProcessException", "Exception"),
        ("ProcessRaisedException", "ProcessException"),
        ("ProcessExitedException", "ProcessException"),
    ],
)
def test_exception_class_has_the_reference_s_base(impl: Impl, name: str, base: str) -> None:
    """One `except ProcessException` catches both others, and neither of these catches the other."""
    assert base == getattr(impl.module, name).__bases__[0].__name__


def test_exception_has_the_reference_s_fields(impl: Impl, exception: Any) -> None:
    """Every field is readable under the name of its argument; `args` is the text alone."""
    expected = EXCEPTIONS[type(exception).__name__]

    assert expected == {name: getattr(exception, name) for name in expected}
    assert ("text",) == exception.args
    assert "text" == str(exception)


def test_exception_class_without_exit_code_has_no_such_field(impl: Impl) -> None:
    """`exit_code` and `signal_name` tell a process that exited from one that raised."""
    raised = impl.module.ProcessRaisedException("text", 1, 22)

    assert [False, False] == [hasattr(raised, "exit_code"), hasattr(raised, "signal_name")]


def test_exception_without_signal_has_no_signal_name(impl: Impl) -> None:
    """`signal_name` is None for an exit code."""
    assert impl.module.ProcessExitedException("text", 1, 22, 3).signal_name is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_exception_comes_back_whole(impl: Impl, exception: Any, protocol: int) -> None:
    """Class, text and fields survive pickling, in every protocol."""
    expected = EXCEPTIONS[type(exception).__name__]
    back = pickle.loads(pickle.dumps(exception, protocol))

    assert type(exception) is type(back)
    assert exception.args == back.args
    assert expected == {name: getattr(back, name) for name in expected}


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_copied_exception_comes_back_whole(impl: Impl, exception: Any, copier: Any) -> None:
    """Class, text and fields survive copying."""
    back = copier(exception)

    assert type(exception) is type(back)
    assert exception.__reduce__() == back.__reduce__()


def test_exception_reduces_to_its_arguments(impl: Impl, exception: Any) -> None:
    """`__reduce__` is the class and the arguments in their order, as the reference's is."""
    assert (type(exception), tuple(EXCEPTIONS[type(exception).__name__].values())) == exception.__reduce__()


def test_raised_exception_comes_back_whole(impl: Impl) -> None:
    """The exception that `join` raises can be sent on, as torch elastic does."""
    context = impl.start(ranks.do, (ranks.die_by, 9))
    with pytest.raises(impl.module.ProcessExitedException) as caught:
        finish(context)
    back = pickle.loads(pickle.dumps(caught.value))

    assert caught.value.__reduce__() == back.__reduce__()


def test_spawn_context_is_a_process_context_that_warns(impl: Impl) -> None:
    """The old name still works, and says at the caller's line what the new one is."""
    with pytest.warns(UserWarning, match="SpawnContext") as warned:
        context = impl.mp.SpawnContext([], [])

    assert [
        (UserWarning, "SpawnContext is renamed to ProcessContext since 1.4 release.", __file__),
    ] == [(warning.category, str(warning.message), warning.filename) for warning in warned]
    assert isinstance(context, impl.mp.ProcessContext)
    assert context.join() is True


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "no such method"])
def test_spawn_with_start_method_warns(impl: Impl, start_method: str) -> None:
    """`spawn` says at the caller's line that it starts by "spawn" only, and does so."""
    with pytest.warns(FutureWarning) as warned:
        context = impl.mp.spawn(ranks.nothing, nprocs=0, join=False, start_method=start_method)

    package = impl.differs(torch="torch.multiprocessing", spawnx="spawnx")
    text = (
        f"This method only supports start_method=spawn (got: {start_method}).\n"
        f"To use a different start_method use:\n\t\t {package}.start_processes(...)"
    )
    assert [
        (
            FutureWarning,
            text,
            __file__,
        ),
    ] == [(warning.category, str(warning.message), warning.filename) for warning in warned]
    assert context.join() is True


@pytest.mark.skipif(QUICK != "fork", reason="needs the start method fork")
def test_spawn_with_start_method_fork_spawns(impl: Impl) -> None:
    """A start method other than "spawn" is not only warned of but ignored."""
    with pytest.warns(FutureWarning):
        context = impl.mp.spawn(ranks.nothing, join=False, start_method="fork")
    finish(context)

    assert context.processes[0].name.startswith("SpawnProcess-")


def test_context_has_the_reference_s_attributes(impl: Impl) -> None:
    """Lists and a dict, in the order of the ranks."""
    context = impl.start(ranks.nothing, nprocs=2)
    expected = {process.sentinel: index for index, process in enumerate(context.processes)}

    assert expected == context.sentinels
    assert list(expected.values()) == list(context.sentinels.values())
    assert [str, str] == [type(path) for path in context.error_files]
    assert [list, list] == [type(context.processes), type(context.error_files)]
    assert isinstance(context, impl.mp.ProcessContext)
    finish(context)

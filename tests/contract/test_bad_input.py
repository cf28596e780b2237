"""What can't work: one clear error before any rank exists, or from the rank with its traceback; nothing left running.

That nothing is left is checked after every test, unasked (see `tests/conftest.py`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from tests import ranks
from tests.support import PICKLING, QUICK, QUICK_PICKLING, Impl, Program, finish, wait_ended


def _no_ranks_yet() -> bool:
    """Whether no child has been started."""
    return multiprocessing.active_children() == []


# fn and args


@pytest.mark.parametrize("fn", [None, 5, "text", ("a", "tuple")], ids=repr)
def test_fn_that_can_not_be_called_is_refused(impl: Impl, start_method: str, fn: Any) -> None:
    """spawnx says so at the call; the reference's ranks each raise."""
    expected = impl.differs(torch=impl.module.ProcessRaisedException, spawnx=TypeError)
    with pytest.raises(expected) as caught:
        impl.mp.start_processes(fn, start_method=start_method)

    assert impl.differs(torch="object is not callable", spawnx="fn must be callable") in str(caught.value)
    assert impl.differs(torch="", spawnx=repr(fn)) in str(caught.value)


@pytest.mark.parametrize("args", [None, 5, object], ids=repr)
def test_args_that_can_not_be_iterated_are_refused(impl: Impl, args: Any) -> None:
    """spawnx says so at the call; the reference's ranks each raise."""
    expected = impl.differs(torch=impl.module.ProcessRaisedException, spawnx=TypeError)
    with pytest.raises(expected) as caught:
        impl.mp.start_processes(ranks.nothing, args, start_method=QUICK)

    assert impl.differs(torch="must be an iterable", spawnx="args must be an iterable") in str(caught.value)


@pytest.mark.parametrize(("args", "hint"), [(5, "(5,)"), (None, "(None,)"), (2.5, "(2.5,)")])
def test_args_that_can_not_be_iterated_are_named_with_a_hint(impl: Impl, args: Any, hint: str) -> None:
    """The most frequent slip is a forgotten comma: spawnx asks whether it was meant."""
    with pytest.raises((TypeError, impl.module.ProcessRaisedException)) as caught:
        impl.mp.start_processes(ranks.nothing, args, start_method=QUICK)

    assert impl.differs(torch=False, spawnx=True) is (f"did you mean args={hint}?" in str(caught.value))


def test_args_whose_iteration_raises_raise_that(impl: Impl) -> None:
    """spawnx lets an iterable's own error through; the reference's ranks each raise it."""

    def broken() -> Iterator[int]:
        raise LookupError("own error")
        yield

    expected = impl.differs(torch=impl.module.ProcessRaisedException, spawnx=LookupError)
    if QUICK != "fork":
        pytest.skip("the reference can't hand a generator to ranks that aren't forked")
    with pytest.raises(expected, match="own error"):
        impl.mp.start_processes(ranks.nothing, broken(), start_method=QUICK)


def test_fn_with_other_parameters_raises_in_the_rank(impl: Impl) -> None:
    """Too many or too few arguments are the rank's TypeError."""
    with pytest.raises(
        impl.mp.ProcessRaisedException, match=r"TypeError: nothing\(\) takes 1 positional argument"
    ):
        impl.mp.start_processes(ranks.nothing, (1, 2), start_method=QUICK)


# start_method and settings


@pytest.mark.parametrize("start_method", ["no such method", "", "SPAWN", 5])
def test_unknown_start_method_is_refused(impl: Impl, start_method: Any) -> None:
    """multiprocessing's ValueError, before any rank."""
    with pytest.raises(ValueError, match=f"cannot find context for {start_method!r}"):
        impl.mp.start_processes(ranks.nothing, start_method=start_method)
    assert _no_ranks_yet()


def test_unknown_start_method_is_refused_for_no_ranks_too(impl: Impl) -> None:
    """Whether the arguments mean something doesn't depend on how many ranks are asked for."""
    with pytest.raises(ValueError, match="cannot find context"):
        impl.mp.start_processes(ranks.nothing, nprocs=0, start_method="no such method")


@pytest.mark.parametrize("variable", ["SPAWNX_BACKEND", "SPAWNX_LAUNCHER"])
@pytest.mark.parametrize("nprocs", [0, 1])
def test_unknown_setting_is_refused(
    impl: Impl, monkeypatch: pytest.MonkeyPatch, variable: str, nprocs: int
) -> None:
    """spawnx names the variable, its value and the choices, before any rank; the reference has no such variables."""
    monkeypatch.setenv(variable, "no-such-choice")
    refused = impl.differs(torch=(), spawnx=(variable, "no-such-choice", "auto"))
    try:
        impl.mp.start_processes(ranks.nothing, nprocs=nprocs, start_method=QUICK)
    except ValueError as error:
        text = str(error)
    else:
        text = ""

    assert refused == tuple(word for word in (variable, "no-such-choice", "auto") if word in text)
    assert _no_ranks_yet()


# What can't be pickled


def _unpicklable(kind: str) -> Any:
    """A function that no other process can find by its name."""

    def local(rank: int) -> None:
        """End well."""

    return {"lambda": lambda rank: None, "local": local}[kind]  # noqa: ARG005


@pytest.mark.parametrize("kind", ["lambda", "local"])
@pytest.mark.parametrize("start_method", PICKLING)
def test_fn_that_can_not_be_pickled_is_refused(impl: Impl, start_method: str, kind: str) -> None:
    """The error is of multiprocessing's own type, and there is no rank; spawnx says which function, and what to do."""
    fn = _unpicklable(kind)
    with pytest.raises(Exception) as plain:  # noqa: PT011 - what it is depends on CPython's version
        multiprocessing.get_context(start_method).Process(target=fn).start()
    with pytest.raises(type(plain.value)) as caught:
        impl.mp.start_processes(fn, nprocs=2, start_method=start_method)

    assert type(plain.value) is type(caught.value)
    assert str(plain.value) in str(caught.value)
    told = [
        word in str(caught.value)
        for word in ("top level of a module", "start_method='fork'", fn.__qualname__)
    ]
    assert impl.differs(torch=[False, False, True], spawnx=[True, True, True]) == told
    assert _no_ranks_yet()


@pytest.mark.parametrize("start_method", PICKLING)
def test_argument_that_can_not_be_pickled_is_refused(impl: Impl, start_method: str) -> None:
    """The error is the object's own, and there is no rank yet; spawnx says which argument it is."""
    with pytest.raises(TypeError, match=r"^refuses to be pickled") as caught:
        impl.mp.start_processes(ranks.nothing, (1, ranks.RefusesToPickle(), 2), 2, start_method=start_method)

    assert impl.differs(torch=False, spawnx=True) is ("args[1]" in str(caught.value))
    assert _no_ranks_yet()


@pytest.mark.parametrize("start_method", PICKLING)
def test_argument_in_a_container_that_can_not_be_pickled_is_refused(impl: Impl, start_method: str) -> None:
    """An argument is named by its place in `args`, however deep in it the trouble sits."""
    with pytest.raises(TypeError, match=r"^refuses to be pickled") as caught:
        impl.mp.start_processes(
            ranks.nothing, (0, 0, {"key": [ranks.RefusesToPickle()]}), start_method=start_method
        )

    assert impl.differs(torch=False, spawnx=True) is ("args[2]" in str(caught.value))


def test_own_exception_of_an_argument_that_can_not_be_pickled_is_raised(impl: Impl) -> None:
    """An exception whose class takes other arguments than a text comes out as it is."""
    with pytest.raises(ranks.OwnPicklingError) as caught:
        impl.mp.start_processes(ranks.nothing, (ranks.RefusesInItsOwnWay(),), start_method=QUICK_PICKLING)

    assert (7, "seven") == caught.value.args


# What fails in the rank before its function


def _told(program: Program, source: str) -> list[str]:
    """Run a program whose only rank fails before its function; return the class and the text of what is raised."""
    done = program.run(
        f"""
        from tests import ranks

        def main():
            try:
                mp.start_processes(ranks.nothing, start_method="spawn")
            except mp.ProcessRaisedException as error:
                print("raised", error)
            except mp.ProcessExitedException as error:
                print("exited", error)
        {source}
        """
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()


NO_GUARD = """
        main()
"""
FAILING_IMPORT = """
        if __name__ == "__main__":
            main()
        else:
            raise ImportError("not in a rank")
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (NO_GUARD, "An attempt has been made to start a new process before the"),
        (FAILING_IMPORT, "ImportError: not in a rank"),
    ],
    ids=["no guard", "failing import"],
)
def test_main_module_that_fails_in_the_rank_is_told(program: Program, source: str, expected: str) -> None:
    """spawnx has the traceback, the standard library's advice on the guard included; the reference an exit code."""
    lines = _told(program, source)

    if program.impl.is_torch:
        assert ["exited process 0 terminated with exit code 1"] == lines
    else:
        assert ["raised ", "-- Process 0 terminated with the following error:"] == [lines[0], lines[2]]
        assert any(expected in line for line in lines)
        assert any("program.py" in line for line in lines)


@pytest.mark.parametrize("start_method", PICKLING)
def test_argument_that_breaks_on_arrival_is_told(impl: Impl, start_method: str) -> None:
    """An argument that can't be unpickled has a traceback in spawnx, an exit code in the reference."""
    context = impl.start(ranks.nothing, (ranks.BreaksOnArrival(),), 1, start_method)
    wait_ended(context.processes)
    with pytest.raises(impl.module.ProcessException) as caught:
        finish(context)

    assert (
        impl.differs(torch="ProcessExitedException", spawnx="ProcessRaisedException")
        == type(caught.value).__name__
    )
    if impl.is_torch:
        assert "process 0 terminated with exit code 1" == str(caught.value)
    else:
        assert str(caught.value).startswith("\n\n-- Process 0 terminated with the following error:\n")
        assert str(caught.value).endswith("\nValueError: broken on arrival\n")
    assert 1 == context.processes[0].exitcode


def test_function_that_the_rank_lacks_is_told(program: Program) -> None:
    """A function that only the supervisor's main module has is missed with the traceback, or an exit code."""
    done = program.output(
        """
        if __name__ == "__main__":
            def only_here(rank):
                pass

            try:
                mp.start_processes(only_here, start_method="spawn")
            except mp.ProcessRaisedException as error:
                # In pickle's words: "Can't get attribute 'only_here' …", since CPython 3.14 "… has no attribute …".
                last = str(error).splitlines()[-1]
                print(last.startswith("AttributeError: ") and "attribute 'only_here'" in last)
            except mp.ProcessExitedException as error:
                print(error)
        """
    )

    assert program.impl.differs(torch=["process 0 terminated with exit code 1"], spawnx=["True"]) == done

"""Which backend is chosen, by what the interpreter is."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from spawnx import backends
from tests.support import needs_pidfds


def test_free_threaded_interpreter_has_the_python_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could try the C core there, and it would switch the lock on for all: so nothing is cloned."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setenv("SPAWNX_BACKEND", "auto")
    monkeypatch.setattr(sys, "platform", "linux")
    if sys.implementation.name != "cpython":
        pytest.skip("the core is for CPython")
    backend, why = backends.choose()

    assert ("python", ("python",)) == (backend.name, backends.available())
    assert "free-threaded" in why


def test_core_that_is_insisted_on_is_refused_where_there_is_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that says why."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    if sys.implementation.name != "cpython":
        pytest.skip("the core is for CPython")
    monkeypatch.setenv("SPAWNX_BACKEND", "native")

    with pytest.raises(RuntimeError, match="free-threaded"):
        backends.choose()


@needs_pidfds
@pytest.mark.parametrize("name", backends.available())
def test_probe_without_a_free_fd_is_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no fd left now has one later: the answer is for this call only, and no error."""
    import resource

    monkeypatch.setattr(importlib.import_module(f"spawnx.backends.{name}"), "_has_pidfd", None)
    backend, before = backends.named(name), resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # each number below is taken
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        without = backend.has_pidfd()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (False, True) == (without, backend.has_pidfd())

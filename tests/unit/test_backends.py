"""Which backend is chosen, by what the interpreter is."""

from __future__ import annotations

import sys

import pytest

from spawnx import backends


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

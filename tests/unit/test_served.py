"""What served is said: by the context, by the package, and, where ranks are never cloned, by one warning."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

import spawnx
from spawnx import backends, launchers
from tests import ranks
from tests.support import LONG_S, QUICK, ROOT, finish, linux_only

needs_clones = pytest.mark.skipif(
    "native" not in backends.available(), reason="needs the C core, which clones"
)


@pytest.fixture
def _no_call_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "_served", None)


def _call(start_method: str = QUICK) -> Any:
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method=start_method)
    finish(context)
    return context


@pytest.mark.usefixtures("_no_call_yet")
def test_before_the_first_call_it_is_what_spawn_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a program may ask before it starts ranks."""
    meant = launchers.choose("spawn", backends.choose()[0])

    assert (meant.name, meant.reason) == (spawnx.launcher, spawnx.launcher_reason)

    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")

    assert ("stdlib", "SPAWNX_LAUNCHER=stdlib") == (spawnx.launcher, spawnx.launcher_reason)


def test_after_a_call_it_is_what_served_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that changes afterwards changes nothing of what was."""
    with monkeypatch.context() as during:
        during.setenv("SPAWNX_LAUNCHER", "stdlib")
        context = _call()

    told = spawnx.launcher, spawnx.launcher_reason
    assert ("stdlib", "SPAWNX_LAUNCHER=stdlib") == told == (context.launcher, context.launcher_reason)


def test_call_without_ranks_or_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher has served it."""
    _call()
    before = spawnx.launcher, spawnx.launcher_reason
    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")
    spawnx.start_processes(ranks.nothing, (), 0, start_method=QUICK)
    with pytest.raises(Exception, match="pickle"):
        spawnx.spawn(lambda _: None, (), 1)

    assert before == (spawnx.launcher, spawnx.launcher_reason)


def test_context_made_by_hand_has_none() -> None:
    """Nobody knows how its ranks were started."""
    context = spawnx.ProcessContext([], [])

    assert (None, None) == (context.launcher, context.launcher_reason)


def test_to_ask_imports_nothing_before() -> None:
    """Importing the package stays as light as it is."""
    source = "import sys, spawnx; assert 'spawnx.launchers' not in sys.modules; print(spawnx.launcher_reason)"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=True
    )

    assert done.stdout.strip()


@linux_only
@needs_clones
def test_call_that_gave_way_says_who_served_and_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, too."""
    caplog.set_level(logging.DEBUG, logger="spawnx")
    _refuse_clones(monkeypatch, for_good=False)
    context = _call("spawn")
    reason = "ranks can't be cloned: of a test"

    assert ("exec", reason) == (context.launcher, context.launcher_reason)
    assert ("exec", reason) == (spawnx.launcher, spawnx.launcher_reason)
    assert f"start_method=spawn was served by launcher exec: {reason}" in caplog.messages


@linux_only
@needs_clones
def test_system_that_never_clones_is_warned_of_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever start methods are used: with what it costs. What else is said is not at WARNING."""
    caplog.set_level(logging.INFO, logger="spawnx")
    _refuse_clones(monkeypatch, for_good=True)
    for method in ("spawn", "forkserver", "spawn", "forkserver"):
        assert "exec" == _call(method).launcher
    told = "ranks are started by exec, not cloned: of a test"
    cost = "so each rank imports everything for itself: with torch, that takes 1 to 2 s of CPU and 140 MB of memory"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert ([f"{told}; {cost}"], 3) == (warned, caplog.messages.count(told))


@linux_only
@needs_clones
@pytest.mark.parametrize("setting", ["exec", "stdlib"])
def test_user_who_asked_for_another_way_is_not_warned(
    setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is wrong."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", setting)
    _refuse_clones(monkeypatch, for_good=True)
    context = _call("spawn")

    assert (setting, f"SPAWNX_LAUNCHER={setting}") == (context.launcher, context.launcher_reason)
    assert [] == caplog.messages


def _refuse_clones(monkeypatch: pytest.MonkeyPatch, *, for_good: bool) -> None:
    """Be a system that doesn't clone."""
    from spawnx.launchers import clone

    def refuse(*_: object) -> None:
        raise clone.CantServe("of a test", for_good=for_good)

    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setattr(clone, "Template", refuse)
    monkeypatch.setattr(clone, "_never", {})
    monkeypatch.setattr(clone, "_slower", clone.Slower())

"""Which ranks that have raised work, and which hang."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from spawnx.failures.activity import Activity
from spawnx.failures.teardown import SPARED
from tests.support import linux_only

pytestmark = linux_only

WORKS = "print(flush=True)\nwhile True: pass"
HANGS = "import time\nprint(flush=True)\ntime.sleep(600)"


@pytest.fixture
def pid(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that does what the test says."""
    command = [sys.executable, "-S", "-c", request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize("pid", [WORKS], indirect=True, ids=["works"])
def test_rank_that_works_is_spared_until_it_has_taken_too_long(pid: int) -> None:
    """Then it is spared no longer than one that hangs."""
    activity = Activity()
    first = activity.idle_since(100.0, {3: 100.0}, {3: pid})
    activity.measure({3: pid})
    later = activity.idle_since(101.0, {3: 100.0}, {3: pid})
    late = activity.idle_since(109.0, {3: 100.0}, {3: pid})

    assert ({3: 100.0}, {3: 101.0}, {3: 105.0 - SPARED}) == (first, later, late)


@pytest.mark.parametrize("pid", [HANGS], indirect=True, ids=["hangs"])
def test_rank_that_hangs_is_spared_since_it_raised(pid: int) -> None:
    """It sleeps, and uses no processor time."""
    while psutil.STATUS_SLEEPING != psutil.Process(pid).status():
        time.sleep(0.001)
    activity = Activity()
    told = []
    for now in (100.0, 100.5, 101.0):
        told.append(activity.idle_since(now, {3: 100.0}, {3: pid}))
        activity.measure({3: pid})

    assert [{3: 100.0}] * 3 == told


def test_rank_that_has_ended_or_not_raised_is_not_looked_at() -> None:
    """Nobody else's process is."""
    activity = Activity()

    assert {} == activity.idle_since(1.0, {3: 1.0}, {4: os.getpid()})


def test_process_that_is_gone_does_nothing() -> None:
    """It ended while we looked."""
    activity = Activity()
    told = []
    for now in (100.0, 100.5):
        told.append(activity.idle_since(now, {3: 100.0}, {3: 2**22 + 1}))
        activity.measure({3: 2**22 + 1})

    assert [{3: 100.0}] * 2 == told


@pytest.mark.parametrize("pid", [WORKS], indirect=True, ids=["works"])
@pytest.mark.parametrize("found", [None, object()], ids=["missing", "another module"])
def test_psutil_that_can_not_be_used_stops_no_teardown(
    pid: int, found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program may have emptied `sys.path`, or have a module of that name: nothing is known of the rank then."""
    activity, told = Activity(), []
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "psutil", found)  # type: ignore[arg-type]
        for now in (100.0, 100.5):
            told.append(activity.idle_since(now, {3: 100.0}, {3: pid}))
            activity.measure({3: pid})

    assert [{3: 100.0}] * 2 == told

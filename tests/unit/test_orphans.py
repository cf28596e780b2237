"""The ladder by which ranks are ended that outlive their supervisor."""

from __future__ import annotations

import signal
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spawnx import backends, orphans
from spawnx.ipc import protocol
from tests.support import LONG_S, posix_only

pytestmark = posix_only

GRACES = st.floats(0, 1e5)


def shown(steps: list[orphans.Step]) -> list[tuple[int, float, bool]]:
    """Steps, to be compared."""
    return [(step.signum, step.wait, step.only_unarmed) for step in steps]


@given(GRACES)
@settings(deadline=None)
def test_ladder_ends_with_sigkill_when_the_grace_is_over(grace: float) -> None:
    """Whatever the grace is; and the waits before it are the grace."""
    steps = orphans.ladder(grace)

    assert signal.SIGKILL == steps[-1].signum
    assert orphans.KILLED_WITHIN == steps[-1].wait
    assert grace == pytest.approx(sum(step.wait for step in steps[:-1]))
    assert all(step.wait >= 0 for step in steps)


def test_ladder_interrupts_terminates_and_kills() -> None:
    """SIGINT is the kernel's for ranks that are armed."""
    expected = [(signal.SIGINT, 0.4, True), (signal.SIGTERM, 1.6, False), (signal.SIGKILL, 30.0, False)]

    assert expected == shown(orphans.ladder(2.0))


def test_ladder_without_grace_kills_at_once() -> None:
    """As nothing else may take its time."""
    assert [(signal.SIGKILL, 30.0, False)] == shown(orphans.ladder(0))


@given(GRACES)
@settings(deadline=None)
def test_ladder_comes_back_from_a_command_line(grace: float) -> None:
    """To the millisecond."""
    steps = orphans.ladder(grace)
    found = orphans.from_argument(orphans.to_argument(steps))

    assert [(one, only) for one, _, only in shown(steps)] == [(one, only) for one, _, only in shown(found)]
    assert [step.wait for step in steps] == pytest.approx([step.wait for step in found], abs=0.001)


@pytest.mark.parametrize(
    "ladder", ["", "U", "15", "15:", "x:1", "15:1,", "15:1;9:1", "0:1", ",".join(["9:1"] * 9)]
)
def test_guardian_refuses_what_is_no_ladder(ladder: str) -> None:
    """It holds nobody then: the supervisor sees that it has ended."""
    if "native" not in backends.available():
        pytest.skip("the guardian in C")
    command = backends.named("native").guardian_command(0, 0, 0, ladder, "/nowhere")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=LONG_S, check=False)

    assert 2 == done.returncode


def test_protocol_is_that_of_the_core() -> None:
    """What supervisor and guardian say to each other stands in two files."""
    if "native" not in backends.available():
        pytest.skip("this installation has no C core")
    from spawnx.backends.native import lib

    ours = protocol.HOLD_ARMED, protocol.HOLD_UNARMED, protocol.DISMISS
    theirs = lib.SPX_HOLD_ARMED, lib.SPX_HOLD_UNARMED, lib.SPX_DISMISS

    assert ours == tuple(bytes([one]) for one in theirs)
    assert protocol.MAX_SENT == lib.SPX_MAX_SENT


@pytest.mark.parametrize(
    ("grace", "expected"), [(0.7, "U2:140,15:560,9:30000"), (0.001, "U2:0,15:1,9:30000")]
)
def test_waits_are_rounded_to_milliseconds(grace: float, expected: str) -> None:
    """Not cut: 139.99999 ms are 140, and the least grace leaves time for SIGTERM."""
    assert expected == orphans.to_argument(orphans.ladder(grace))

"""The ladder by which ranks are ended: by examples, and by what holds for any."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawnx.failures.teardown import LAST_WAIT, SPARED, Ladder

# (seconds since the beginning, signal, ranks)
Sent = tuple[float, str, list[int]]


def climb_down(
    grace: float, kill_after: float, lives: dict[int, float], raised: dict[int, float] | None = None
) -> tuple[list[Sent], float]:
    """Play a teardown that begins at 0 with ranks that end `lives` seconds after SIGTERM, or by SIGKILL if that is inf.

    Returns:
        What was sent when to whom, and when the teardown gave up or all had ended.
    """
    ladder, now, sent = Ladder(0.0, grace, kill_after), 0.0, []
    ends = dict.fromkeys(lives, math.inf)
    while True:
        alive = [rank for rank, end in ends.items() if end > now]
        if not alive:
            return sent, now
        step = ladder.step(now, alive, raised or {})
        if step.ranks:
            sent.append((now, "KILL" if step.kill else "TERM", step.ranks))
        for rank in step.ranks:
            ends[rank] = now if step.kill and lives[rank] >= 0 else min(ends[rank], now + abs(lives[rank]))
        if step.wait is None:
            return sent, now
        now = max(now, min(now + step.wait, max(ends.values())))


@pytest.mark.parametrize(
    ("grace", "kill_after", "expected"),
    [
        (0, 30, [(0.0, "TERM", [0, 1]), (30.0, "KILL", [0, 1])]),
        (0, 0, [(0.0, "TERM", [0, 1]), (0.0, "KILL", [0, 1])]),
        (2.5, 2.5, [(2.5, "TERM", [0, 1]), (5.0, "KILL", [0, 1])]),
    ],
)
def test_grace_is_given_before_and_the_other_wait_after_sigterm(
    grace: float, kill_after: float, expected: list[Sent]
) -> None:
    """One clock for all ranks; waits of 0 mean at once."""
    assert (expected, expected[-1][0]) == climb_down(grace, kill_after, {0: math.inf, 1: math.inf})


def test_ranks_that_end_by_sigterm_are_not_killed() -> None:
    """Only who is left gets SIGKILL."""
    sent, _ = climb_down(0, 30, {0: 1.0, 1: math.inf})

    assert [(0.0, "TERM", [0, 1]), (30.0, "KILL", [1])] == sent


def test_rank_that_has_raised_is_spared_for_a_moment() -> None:
    """Then it goes the way of the others, also where they were killed at once."""
    patient, _ = climb_down(0, 30, {0: math.inf, 1: 1.0}, raised={0: 0.0})
    hasty, _ = climb_down(0, 0, {0: math.inf, 1: math.inf}, raised={0: 0.0})

    assert [(0.0, "TERM", [1]), (SPARED, "TERM", [0]), (30.0, "KILL", [0])] == patient
    assert [(0.0, "TERM", [1]), (0.0, "KILL", [1]), (SPARED, "TERM", [0]), (SPARED, "KILL", [0])] == hasty


def test_rank_that_survives_sigkill_is_left_to_the_system() -> None:
    """The last wait has an end; -inf is one that nothing ends."""
    sent, end = climb_down(0, 1, {0: -math.inf})

    assert [(0.0, "TERM", [0]), (1.0, "KILL", [0])] == sent
    assert 1.0 + LAST_WAIT == end


WAIT = st.floats(0, 100)
LIVES = st.dictionaries(st.integers(0, 20), WAIT | st.just(math.inf), min_size=1)


@given(WAIT, WAIT, LIVES, st.data())
def test_any_teardown_ends_in_time_and_signals_each_rank_in_order(
    grace: float, kill_after: float, lives: dict[int, float], data: st.DataObject
) -> None:
    """SIGTERM to everybody, once, before SIGKILL; nobody before its time; over when the waits are."""
    raised = data.draw(st.dictionaries(st.sampled_from(sorted(lives)), st.floats(-10, 0)))
    sent, end = climb_down(grace, kill_after, lives, raised)
    terminated = [(rank, when) for when, signal, ranks in sent if signal == "TERM" for rank in ranks]
    killed = [(rank, when) for when, signal, ranks in sent if signal == "KILL" for rank in ranks]
    spared_until = {rank: raised.get(rank, -math.inf) + SPARED for rank in lives}
    # What rounding adds.
    slack = 1e-6

    assert sorted(lives) == sorted(rank for rank, _ in terminated)
    assert len({rank for rank, _ in killed}) == len(killed)
    assert all(when >= max(grace, spared_until[rank]) - slack for rank, when in terminated)
    assert all(
        when >= max(grace + kill_after, spared_until[rank], dict(terminated)[rank]) - slack
        for rank, when in killed
    )
    assert end <= max(grace + kill_after, grace + 1) + SPARED + slack

"""The ladder by which ranks are ended."""

from __future__ import annotations

import pytest

from spawnx import teardown


@pytest.mark.parametrize(
    ("grace_period", "expected"),
    [
        (None, [(teardown.SIGTERM, 30.0), (teardown.SIGKILL, 30.0)]),
        (0, [(None, 0), (teardown.SIGTERM, 0), (teardown.SIGKILL, 30.0)]),
        (2.5, [(None, 2.5), (teardown.SIGTERM, 2.5), (teardown.SIGKILL, 30.0)]),
    ],
)
def test_a_grace_period_is_given_before_and_after_sigterm(
    grace_period: float | None, expected: list[tuple[int | None, float]]
) -> None:
    """Each rung is what is sent, and how long is waited then."""
    rungs = [(rung.signum, rung.seconds) for rung in teardown.ladder(grace_period)]

    assert expected == rungs

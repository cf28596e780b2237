"""The two ways to watch sentinels, by one contract."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from spawnx.backends.python import SelectorWatch, SentinelWatch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the sentinels of these tests are pipes")


@pytest.fixture(params=[SelectorWatch, SentinelWatch])
def watch(request: pytest.FixtureRequest) -> Iterator[SelectorWatch | SentinelWatch]:
    """A watch, closed at the end, twice."""
    made = request.param()
    yield made
    made.close()
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Three pipes; a sentinel becomes readable when its write end is closed or written to."""
    made = [os.pipe() for _ in range(3)]
    yield made
    for pair in made:
        for fd in pair:
            os.close(fd)


def ready(watch: SelectorWatch | SentinelWatch, timeout: float | None) -> list[int]:
    """The ranks that a watch sees ended."""
    return sorted(rank for rank, _, _ in watch.wait(timeout))


def test_all_that_have_ended_are_returned_until_discarded(
    watch: SelectorWatch | SentinelWatch, pipes: list[tuple[int, int]]
) -> None:
    """A look consumes nothing, so that an interrupted caller can look again."""
    for rank, (read, _) in enumerate(pipes):
        watch.add(read, rank)
    for _, write in pipes[:2]:
        os.write(write, b".")
    first, again = ready(watch, None), ready(watch, None)
    watch.discard([pipes[0][0]])

    assert ([0, 1], [0, 1], [1]) == (first, again, ready(watch, None))


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_time_over_returns_nothing(
    watch: SelectorWatch | SentinelWatch, pipes: list[tuple[int, int]], timeout: float
) -> None:
    """0 and less only look."""
    watch.add(pipes[0][0], 0)

    assert watch.wait(timeout) == []


def test_discarding_twice_is_discarding_once(
    watch: SelectorWatch | SentinelWatch, pipes: list[tuple[int, int]]
) -> None:
    """A signal handler may have been here before."""
    watch.add(pipes[0][0], 0)
    watch.discard([pipes[0][0]])
    watch.discard([pipes[0][0]])

    assert watch.wait(0) == []


def test_signal_whose_handler_returns_does_not_end_the_wait(
    watch: SelectorWatch | SentinelWatch, pipes: list[tuple[int, int]]
) -> None:
    """EINTR is waited through, with the time that is left."""
    watch.add(pipes[0][0], 0)
    calls = []
    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, lambda *_: calls.append(os.write(pipes[0][1], b".")))
    killer = threading.Thread(target=lambda: signal.pthread_kill(main or 0, signal.SIGUSR1))
    killer.start()
    try:
        seen = ready(watch, 60)
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)

    assert ([0], [1]) == (seen, calls)


def test_wait_lasts_as_long_as_asked(
    watch: SelectorWatch | SentinelWatch, pipes: list[tuple[int, int]]
) -> None:
    """Not shorter: a caller that loops until a deadline would spin."""
    watch.add(pipes[0][0], 0)
    start = time.monotonic()
    watch.wait(0.05)

    assert time.monotonic() - start >= 0.05

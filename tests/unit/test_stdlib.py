"""Ranks by multiprocessing's own means, and what is said when these fail."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

import pytest

import spawnx
from tests import ranks
from tests.support import START_METHODS, Impl, Program, finish, linux_only, needs_fork, take

BREAKS = """
    import os
    import spawnx

    if __name__ == "__mp_main__" and "BREAKS" in os.environ:
        raise SystemExit(3)

    def end(rank):
        pass

    if __name__ == "__main__":
        os.environ["BREAKS"] = "1"
        try:
            spawnx.start_processes(end, (), 2, start_method="forkserver")
        except ConnectionResetError as error:
            print("the import of", *[__file__] if __file__ in str(error) else [error])
        except spawnx.ProcessExitedException as error:
            print("ended by itself:", error.exit_code > 0)
"""


@pytest.mark.skipif("forkserver" not in START_METHODS, reason="this system has no forkserver")
def test_forkserver_that_dies_while_it_imports_the_main_module_is_named(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patch releases differ in whether it imports that; where it doesn't, the rank does, and ends."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")
    program = Program(Impl("python"), tmp_path)  # type: ignore[arg-type]
    done = program.run(BREAKS)

    said = (f"the import of {program.folder / 'program.py'}", "ended by itself: True")
    assert done.stdout.strip() in said, done.stdout + done.stderr


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts ranks by "fork", and returns what they put into a queue."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")

    def started(fn: Any, count: int) -> list[Any]:
        queue = multiprocessing.get_context("fork").SimpleQueue()
        context = spawnx.start_processes(fn, (queue,), count, join=False, start_method="fork")
        assert context is not None
        finish(context)
        told = take(queue, count)
        queue.close()
        return told

    return started


@linux_only
@needs_fork
def test_forked_rank_has_nothing_of_the_ranks_before_it(start: Any) -> None:
    """Else none of these would be told by its pipe that the supervisor has ended, while a later one lives."""
    told = start(ranks.put_number_of_fds, 8)

    assert 1 == len({number for _, number in told})


@linux_only
@needs_fork
def test_forked_rank_has_the_signal_mask_of_the_supervisor(start: Any) -> None:
    """Although all signals are blocked there while it is forked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        mask = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        told = start(ranks.put_signal_mask, 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert [mask, mask] == told
    assert int(signal.SIGHUP) in mask

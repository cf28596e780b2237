"""Ctrl-C while the supervisor joins: KeyboardInterrupt wins, ranks are left alone, and `join` can be called again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests import ranks
from tests.support import LONG_S, QUICK, Impl, Program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# Two ranks at a gate. The supervisor says that they are there, joins, and tells what became of it.
BEGINNING = f"""
import multiprocessing, os, sys, threading
from tests import ranks

def say(*words):
    print(*words, flush=True)

def start(**options):
    gate = ranks.Gate(multiprocessing.get_context({QUICK!r}))
    queue = multiprocessing.get_context({QUICK!r}).SimpleQueue()
    context = mp.start_processes(
        ranks.wait_at_then_put, (gate, queue), 2, join=False, start_method={QUICK!r}, **options
    )
    gate.wait_for(2)
    return context, gate, queue
"""


@contextlib.contextmanager
def _running(program: Program, source: str) -> Iterator[tuple[int, Iterator[str]]]:
    """Start a program in a process group of its own; give its pid and its lines as they come."""
    process = program.popen(BEGINNING + source, start_new_session=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.pid, map(str.rstrip, process.stdout)
        process.stdin.close()
        process.wait(LONG_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize(
    "call", ["context.join()", "context.join(timeout=1000)", "context._join_procs_with_timeout(1000)"]
)
def test_interrupted_join_can_be_called_again(program: Program, call: str) -> None:
    """The ranks live on, do their work when they are let, and the second `join` says so."""
    source = f"""
if __name__ == "__main__":
    context, gate, queue = start()
    try:
        say("joining")
        {call}
    except KeyboardInterrupt:
        say("interrupted", [process.is_alive() for process in context.processes], len(context.sentinels))
    gate.let(2)
    while not context.join():
        pass
    say(sorted(queue.get() for _ in range(2)), context.sentinels)
"""
    with _running(program, source) as (pid, lines):
        assert "joining" == next(lines)
        ranks.send_when_asleep(pid, signal.SIGINT)

        assert ["interrupted [True, True] 2", "[0, 1] {}"] == list(lines)


def test_interrupt_of_the_joining_call_is_raised(program: Program) -> None:
    """`start_processes(join=True)` raises KeyboardInterrupt, though no context is there to join again."""
    source = f"""
def main():
    gate = ranks.Gate(multiprocessing.get_context({QUICK!r}))
    try:
        threading.Thread(target=lambda: (gate.wait_for(2), say("joining")), daemon=True).start()
        mp.start_processes(ranks.wait_at, (gate,), 2, start_method={QUICK!r})
    except KeyboardInterrupt:
        children = multiprocessing.active_children()
        say("interrupted", [process.is_alive() for process in children])
    gate.let(2)
    for process in children:
        process.join()
    say([process.exitcode for process in children])

if __name__ == "__main__":
    main()
"""
    with _running(program, source) as (pid, lines):
        assert "joining" == next(lines)
        ranks.send_when_asleep(pid, signal.SIGINT)

        assert ["interrupted [True, True]", "[0, 0]"] == list(lines)


def test_interrupt_of_the_whole_group_is_the_supervisor_s(impl: Impl, program: Program) -> None:
    """At a terminal all get SIGINT: the supervisor's KeyboardInterrupt wins, whatever became of the ranks."""
    source = """
if __name__ == "__main__":
    context, gate, queue = start()
    try:
        say("joining")
        while not context.join():
            pass
    except KeyboardInterrupt:
        say("interrupted")
    except mp.ProcessExitedException as error:
        say(error)
    for process in context.processes:
        process.join()
    failures = []
    while True:
        try:
            if context.join():
                break
        except mp.ProcessExitedException as error:
            failures.append(error.signal_name)
    say(failures)
"""
    with _running(program, source) as (pid, lines):
        assert "joining" == next(lines)
        ranks.wait_until_asleep(pid)
        os.killpg(pid, signal.SIGINT)

        assert ["interrupted", str(impl.differs(torch=[], spawnx=["SIGINT", "SIGINT"]))] == list(lines)


def test_interrupted_teardown_can_be_taken_up_again(impl: Impl, program: Program) -> None:
    """Ctrl-C while ranks that ignore SIGTERM are waited for: spawnx's next `join` ends them, and raises the failure.

    The reference has forgotten the failure that it was about to raise, and the other rank runs on.
    """
    source = f"""
if __name__ == "__main__":
    import logging
    gate = ranks.Gate(multiprocessing.get_context({QUICK!r}))
    context = mp.start_processes(
        ranks.one_does_others_ignore_sigterm, (0, gate, ranks.exit_with, 3), 2, join=False, start_method={QUICK!r}
    )
    gate.wait_for()
    gate.let()

    class Tell(logging.Handler):
        def emit(self, record):
            say("SIGKILL" if "SIGKILL" in record.getMessage() else "SIGTERM")

    logger = logging.getLogger({impl.logger!r})
    logger.propagate = False
    logger.handlers[:] = [Tell()]
    try:
        context.join()
    except KeyboardInterrupt:
        say("interrupted")
    try:
        say(context.join(timeout=1, grace_period=0))
    except mp.ProcessExitedException as error:
        say(error)
    say([process.is_alive() for process in context.processes])
    for process in context.processes:
        process.kill()
"""
    with _running(program, source) as (pid, lines):
        assert "SIGTERM" == next(lines)
        ranks.send_when_asleep(pid, signal.SIGINT)

        again = ["SIGTERM", "SIGKILL", "process 0 terminated with exit code 3", "[False, False]"]
        assert ["interrupted", *impl.differs(torch=["False", "[False, True]"], spawnx=again)] == list(lines)

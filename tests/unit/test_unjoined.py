"""Contexts that nobody joins leave nothing: no zombie, no guardian, no fd, no thread, no folder."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import tempfile
import threading
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

import spawnx
from spawnx import backends, uninterrupted
from spawnx.guard.directory import Folder
from spawnx.guard.guardian import GuardianHandle
from tests import pypy, ranks
from tests.campaigns import contexts
from tests.pypy import collect, open_pidfd
from tests.support import HAS_PIDFD, finish, linux_only

pytestmark = linux_only


class Interrupt(Exception):  # noqa: N818 - what a handler raises, such as that of a notebook
    """Comes out of a signal handler."""


def belongings() -> tuple[int, int, set[str], list[str]]:
    """How many fds and threads there are, the names of the children, and the folders."""
    children = {child.name() for child in psutil.Process().children()}
    folders = [path.name for path in Path(tempfile.gettempdir()).glob("spawnx-*")]
    return len(os.listdir("/proc/self/fd")), threading.active_count(), children, folders


def drop(start_method: str, count: int = 2) -> list[int]:
    """Start ranks, and drop the context at once; returns pidfds of the ranks, which the caller closes."""
    context = spawnx.start_processes(ranks.nothing, (), count, join=False, start_method=start_method)
    assert context is not None
    pidfds = [open_pidfd(pid) for pid in context.pids()]
    del context
    pypy.drop()
    return pidfds


def wait_for_ends(pidfds: list[int]) -> None:
    """Wait until processes have ended, without reaping them."""
    for pidfd in pidfds:
        wait([pidfd])
        os.close(pidfd)


@pytest.fixture(params=backends.available())
def settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """What there is after a first call, which opens what is kept; on each backend."""
    monkeypatch.setenv("SPAWNX_BACKEND", request.param)
    spawnx.start_processes(ranks.nothing, (), 1, start_method="fork")
    collect()
    return belongings()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_dropped_contexts_are_given_back_at_the_next_start(settled: Any, start_method: str) -> None:
    """Their ranks have ended meanwhile, and nobody has asked for them."""
    wait_for_ends([pidfd for _ in range(5) for pidfd in drop(start_method)])
    spawnx.start_processes(ranks.nothing, (), 1, start_method="fork")
    pypy.drop()
    fds, threads, children, folders = belongings()

    assert settled[0] >= fds
    assert (settled[1], []) == (threads, folders)
    assert settled[2] | {"python", "python3"} >= children


def test_context_is_given_back_when_it_is_collected(settled: Any) -> None:
    """Its ranks have ended before."""
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="fork")
    assert context is not None
    wait_for_ends([open_pidfd(pid) for pid in context.pids()])
    del context
    collect()
    fds, _, children, folders = belongings()

    assert settled[0] >= fds
    assert (settled[2], []) == (children, folders)


def test_dropped_context_is_given_back_when_its_last_process_is_joined(
    settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where multiprocessing holds the ranks, by pipes."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="fork")
    assert context is not None
    processes = context.processes
    del context
    for process in processes:
        process.join()
    del process, processes
    collect()
    fds, _, children, folders = belongings()

    assert settled[0] >= fds
    assert (settled[2], []) == (children, folders)


def test_context_that_is_kept_can_be_joined_after_its_ranks_were_reaped(settled: Any) -> None:
    """Failures are known to it, and its reports are there."""
    del settled
    context = spawnx.start_processes(
        ranks.do, (ranks.raise_value_error, "told"), 1, join=False, start_method="fork"
    )
    assert context is not None
    wait_for_ends([open_pidfd(pid) for pid in context.pids()])
    spawnx.start_processes(ranks.nothing, (), 1, start_method="fork")

    assert 1 == context.processes[0].exitcode
    with pytest.raises(spawnx.ProcessRaisedException, match="told"):
        finish(context)


def test_interrupted_calls_leave_nothing(settled: Any) -> None:
    """A timeout by a signal, as a notebook's Ctrl-C: ranks live on until they have ended, and are given back then."""
    calling: list[bool] = []

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        if calling:
            raise Interrupt

    def call(reader: int) -> None:
        calling.append(True)
        try:
            spawnx.start_processes(ranks.interrupt_parent_and_read, (reader,), 2, start_method="fork")
        finally:
            calling.clear()

    before = signal.signal(signal.SIGUSR1, interrupt)
    pidfds: list[int] = []
    try:
        for _ in range(5):
            reader, writer = os.pipe()
            with pytest.raises(Interrupt):
                call(reader)
            left = [child for child in multiprocessing.active_children() if child.name.startswith("Fork")]
            pidfds += [open_pidfd(child.pid or 0) for child in left]
            del left
            os.write(writer, b"..")
            os.close(writer)
            os.close(reader)
            wait_for_ends(pidfds)
            pidfds.clear()
    finally:
        signal.signal(signal.SIGUSR1, before)
    spawnx.start_processes(ranks.nothing, (), 1, start_method="fork")
    collect()
    fds, threads, children, folders = belongings()

    assert settled[0] >= fds
    assert (settled[1], settled[2], []) == (threads, children, folders)


@pytest.mark.parametrize("where", ["dismiss", "remove"])
def test_interrupt_while_a_context_is_closed_leaves_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is cut short is done by the next call, or when the context is collected."""
    if where == "dismiss" and not HAS_PIDFD:
        pytest.skip("there is no guardian without pidfds")
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="fork")
    assert context is not None
    owner = GuardianHandle if where == "dismiss" else Folder
    real = getattr(owner, where)
    interrupts = [Interrupt()]

    def interrupted(self: object) -> None:
        if interrupts:
            raise interrupts.pop()
        real(self)

    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(Interrupt):
        finish(context)
    finish(context)
    del context
    collect()

    assert [] == belongings()[3]
    assert "spawnx-guardian" not in belongings()[2]


# All of it


def test_campaign_of_many_contexts_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `python -m tests.campaigns.contexts`.

    Without interrupts: a few in a thousand come between the making of an fd and its note, and leave that fd.
    """
    seed = secrets.randbelow(2**32)
    good = contexts.campaign(contexts.rows_of(8, seed, endings=["joined", "dropped"]), 2)

    assert good, f"seed {seed}:\n{capsys.readouterr().out}"


def test_thread_that_no_handler_interrupts_is_not_counted_for_ever() -> None:
    """Who asks there for the current thread, has `threading` make a stand-in for it."""
    before = threading.active_count()
    uninterrupted.do(lambda: threading.current_thread() and None)

    assert before == threading.active_count()

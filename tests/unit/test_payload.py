"""One pickle for all ranks, or one for each: which, and why."""

from __future__ import annotations

import copyreg
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing import reduction
from typing import Any

import pytest

from spawnx.launchers.payload import Payload, Payloads
from spawnx.mp import pickling
from spawnx.remote.rank import Call, PickledCall
from tests import ranks
from tests.support import PICKLING, ROOT, linux_only, posix_only


class Shared:
    """An object whose registered reducer may or may not count its readers."""


class OwnError(Exception):
    """An exception whose args are no text."""


class Raises:
    """An argument whose pickling raises an exception of the user's own making."""

    def __reduce__(self) -> Any:
        """Raise."""
        raise OwnError(7, "seven")


def rebuild_shared() -> Shared:
    """Rebuild what a library of which we know nothing shares."""
    return Shared()


@pytest.fixture(params=PICKLING)
def method(request: pytest.FixtureRequest) -> str:
    """Each start method that pickles."""
    return str(request.param)


@pytest.fixture
def reducers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[type, Any]]:
    """The registered reducers, restored at the end."""
    registered = dict(reduction.ForkingPickler._extra_reducers)
    monkeypatch.setattr(reduction.ForkingPickler, "_extra_reducers", registered)
    return registered


def shared_by_all(payloads: Payloads) -> bool:
    """Whether two ranks get the same pickle."""
    return payloads.for_rank() is payloads.for_rank()


def travel(payload: Payload | Call, method: str) -> tuple[PickledCall, list[int]]:
    """Pickle a payload as a rank's Popen does; return what arrives, and the fds that were handed over."""
    collector, buffer = pickling.Collector(method), io.BytesIO()
    collector.dump(reduction.ForkingPickler(buffer), payload)
    return pickle.loads(buffer.getbuffer()), collector.fds


def test_plain_arguments_are_pickled_once(method: str) -> None:
    """Nothing in them counts readers."""
    payloads = Payloads(ranks.nothing, ([1, 2], {"a": b"c"}), method)

    assert shared_by_all(payloads)


@pytest.mark.parametrize("make", ["Lock", "Event", "Queue", "SimpleQueue", "Condition"])
def test_primitives_are_pickled_once(method: str, make: str) -> None:
    """multiprocessing's own reducers hand over names and fds, which any number of ranks may use."""
    made = getattr(multiprocessing.get_context(method), make)()
    payloads = Payloads(ranks.nothing, (made,), method)

    assert shared_by_all(payloads) == (sys.platform != "win32")
    payloads.close()
    for close in ("close", "join_thread"):
        getattr(made, close, lambda: None)()


def test_unknown_registered_reducer_is_taken_to_count_readers(method: str, reducers: dict[type, Any]) -> None:
    """Each rank gets a pickle of its own, and the first one made is used."""
    calls = []

    def reduce_shared(_: Shared) -> Any:
        calls.append(1)
        return rebuild_shared, ()

    reducers[Shared] = reduce_shared
    payloads = Payloads(ranks.nothing, (Shared(),), method)
    made = [payloads.for_rank() for _ in range(3)]

    assert (3, 3) == (len(calls), len(set(map(id, made))))


def test_copyreg_reducer_copies_and_is_pickled_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What copyreg knows has no readers to count."""
    monkeypatch.setitem(copyreg.dispatch_table, Shared, lambda _: (rebuild_shared, ()))

    assert shared_by_all(Payloads(ranks.nothing, (Shared(),), method))


@pytest.mark.torch
@pytest.mark.parametrize(("strategy", "expected"), [("file_descriptor", "True"), ("file_system", "False")])
def test_tensors_are_pickled_once_unless_their_strategy_counts_readers(strategy: str, expected: str) -> None:
    """`file_system` counts one reader per pickle, `file_descriptor` none."""
    source = f"""
        import torch
        from spawnx.launchers.payload import Payloads

        torch.multiprocessing.set_sharing_strategy({strategy!r})
        payloads = Payloads(print, (torch.ones(3), torch.nn.Linear(2, 2)), "spawn")
        first, second = payloads.for_rank(), payloads.for_rank()
        print(first is second)
        """
    # In a process of its own: torch's manager of the shared files lives, and keeps them, as long as that.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert expected == done.stdout.strip()


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_payload_arrives_whole(method: str, size: int) -> None:
    """Small ones in the message, large ones in memory that all ranks map."""
    payloads = Payloads(ranks.nothing, (b"x" * size, "end"), method)
    received, fds = travel(payloads.for_rank(), method)
    if fds:
        received._data.detach = lambda: os.dup(fds[0])  # what the rank inherits
    fn, args = received.take()
    payloads.close()

    assert (ranks.nothing, (b"x" * size, "end")) == (fn, args)


@linux_only
def test_large_payload_stays_out_of_the_message(method: str) -> None:
    """The message fits into a pipe, so that the supervisor never waits for a rank to read it."""
    payloads = Payloads(ranks.nothing, (b"x" * 10_000_000,), method)
    message = io.BytesIO()
    pickling.Collector(method).dump(reduction.ForkingPickler(message), payloads.for_rank())
    payloads.close()

    assert len(message.getbuffer()) < 1000


@posix_only
def test_fd_that_is_handed_over_twice_is_duplicated(method: str) -> None:
    """exec refuses repeated fds, and the first reader would close what the second one needs."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    again = multiprocessing.connection.Connection(reader.fileno(), writable=False)
    payloads = Payloads(ranks.nothing, (reader, again), method)
    _, fds = travel(payloads.for_rank(), method)
    payloads.close()
    again._handle = None  # type: ignore[attr-defined]
    reader.close()
    writer.close()

    assert (2, 2) == (len(fds), len(set(fds)))


def test_error_of_the_users_own_keeps_its_arguments(method: str) -> None:
    """An exception whose args mean something else than a text is not rewritten."""
    with pytest.raises(OwnError) as raised:
        Payloads(ranks.nothing, (1, Raises()), method)

    assert raised.value.args == (7, "seven")
    if sys.version_info >= (3, 11):
        assert "args[1] can't be sent to the ranks" in raised.value.__notes__[-1]  # after pickle's own (3.14)

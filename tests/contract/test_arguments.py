"""What can be given to ranks: every kind of `args`, of `fn`, and of what multiprocessing and torch share."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.managers import SyncManager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from tests import ranks
from tests.ranks import Gate
from tests.support import LONG_S, PICKLING, QUICK, Impl, Program, finish, needs_fork, posix_only, take

CONTEXT = multiprocessing.get_context(QUICK)


@pytest.fixture
def context(start_method: str) -> Any:
    """The `multiprocessing` context of the start method: what is shared must come from it."""
    return multiprocessing.get_context(start_method)


# args


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, dict.fromkeys],
    ids=["list", "tuple", "iterator", "dict"],
)
def test_args_may_be_any_iterable(
    impl: Impl, start_method: str, context: Any, make: Callable[[Any], Any]
) -> None:
    """`fn(i, *args)` is called with the items, of whatever they are read."""
    receiver, sender = context.Pipe(duplex=False)
    finish(impl.start(ranks.send_args, make([sender, 1, "two"]), 1, start_method))

    assert (0, (1, "two")) == receiver.recv()
    receiver.close()
    sender.close()


@needs_fork
def test_args_may_be_a_generator_under_fork(impl: Impl) -> None:
    """A generator can't be pickled, but forked ranks each have all that it yields."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    finish(impl.start(ranks.put_args, (item for item in (queue, 1, "two")), 2, "fork"))

    assert [(0, (1, "two")), (1, (1, "two"))] == take(queue, 2)
    queue.close()


def test_args_may_be_a_text(impl: Impl) -> None:
    """A text is an iterable of its letters."""
    finish(impl.start(ranks.expect, "ab", 1))


def test_args_may_be_left_out(impl: Impl) -> None:
    """`fn` gets the index alone."""
    finish(impl.start(ranks.nothing))


def test_every_rank_gets_its_index_first(impl: Impl, start_method: str, context: Any) -> None:
    """Indices are ints from 0."""
    queue = context.SimpleQueue()
    finish(impl.start(ranks.put_args, (queue, "x"), 3, start_method))

    assert [(0, ("x",)), (1, ("x",)), (2, ("x",))] == take(queue, 3)
    queue.close()


def test_all_arguments_may_be_named(impl: Impl) -> None:
    """Keyword calls, in any order."""
    queue = CONTEXT.SimpleQueue()
    context = impl.mp.start_processes(
        start_method=QUICK, daemon=False, join=False, nprocs=2, args=(queue,), fn=ranks.put_rank
    )
    finish(context)

    assert [0, 1] == take(queue, 2)
    queue.close()


def test_all_arguments_may_be_given_by_position(impl: Impl) -> None:
    """Positional calls, in the reference's order."""
    queue = CONTEXT.SimpleQueue()
    context = impl.mp.start_processes(ranks.put_rank, (queue,), 2, False, True, QUICK)
    finish(context)

    assert [True, True] == [process.daemon for process in context.processes]
    assert [0, 1] == take(queue, 2)
    queue.close()


def test_all_arguments_of_spawn_may_be_given_by_position(impl: Impl) -> None:
    """`spawn` takes the same arguments in the same order."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    context = impl.mp.spawn(ranks.put_rank, (queue,), 1, False, True, "spawn")
    finish(context)

    assert [True] == [process.daemon for process in context.processes]
    assert [0] == take(queue, 1)
    queue.close()


@pytest.mark.torch_spawn
def test_large_argument_arrives(impl: Impl, start_method: str, context: Any) -> None:
    """5 MB, more than any pipe holds, reach every rank."""
    queue = context.SimpleQueue()
    finish(impl.start(ranks.put_length, (queue, b"a" + bytes(5_000_000) + b"z"), 2, start_method))

    assert [(0, 5_000_002, b"a", b"z"), (1, 5_000_002, b"a", b"z")] == take(queue, 2)
    queue.close()


def test_changed_argument_is_the_rank_s_own(impl: Impl, start_method: str, context: Any) -> None:
    """What a rank does to an argument neither the supervisor nor another rank sees."""
    queue = context.SimpleQueue()
    shared: list[int] = []
    finish(impl.start(ranks.append_and_put, (queue, shared), 2, start_method))

    assert [(0, [0]), (1, [1])] == take(queue, 2)
    assert [] == shared
    queue.close()


def test_argument_given_twice_is_one_object(impl: Impl, start_method: str) -> None:
    """One pickle keeps identity: the same object in two places is the same in the rank."""
    thing = [1]
    finish(impl.start(ranks.expect_same, (thing, thing), 1, start_method))


# fn


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (ranks.Worker(10).put, [10, 11]),
        (ranks.Worker(20), [20, 21]),
        (functools.partial(ranks.Worker(30).put), [30, 31]),
    ],
    ids=["bound method", "callable object", "partial"],
)
def test_fn_may_be_anything_that_can_be_called(
    impl: Impl, start_method: str, context: Any, fn: Any, expected: list[int]
) -> None:
    """Bound methods take their object along; objects and partials do as well."""
    queue = context.SimpleQueue()
    finish(impl.start(fn, (queue,), 2, start_method))

    assert expected == take(queue, 2)
    queue.close()


@needs_fork
@pytest.mark.parametrize("kind", ["lambda", "local function"])
def test_fn_may_be_local_under_fork(impl: Impl, kind: str) -> None:
    """Forked ranks need no pickling."""
    queue = CONTEXT.SimpleQueue()

    def put(rank: int) -> None:
        queue.put(rank)

    finish(impl.start(put if kind == "local function" else lambda rank: put(rank), (), 2, "fork"))  # noqa: PLW0108

    assert [0, 1] == take(queue, 2)
    queue.close()


def test_fn_s_return_value_is_ignored(impl: Impl) -> None:
    """Whatever `fn` returns, the rank ended well."""
    context = impl.start(ranks.return_text)
    finish(context)

    assert [0] == [process.exitcode for process in context.processes]


# What multiprocessing shares


@pytest.mark.torch_spawn
def test_simple_queue_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """A SimpleQueue leads back."""
    queue = context.SimpleQueue()
    finish(impl.start(ranks.put_rank, (queue,), 2, start_method))

    assert [0, 1] == take(queue, 2)
    queue.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_queue_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """A Queue leads back; its thread in the rank sends all that was put before the rank ends."""
    queue = context.Queue()
    started = impl.start(ranks.put_over_feeder, (queue,), 2, start_method)
    received = sorted((rank, len(data)) for rank, data in (queue.get(timeout=LONG_S) for _ in range(2)))
    finish(started)

    assert [(0, 1_000_000), (1, 1_000_000)] == received
    queue.close()
    queue.join_thread()


@pytest.mark.torch_spawn
def test_lock_event_and_value_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """They are the same ones in all ranks and in the supervisor."""
    lock, event, counter, gate = (
        context.Lock(),
        context.Event(),
        context.Value("i", lock=False),
        Gate(context),
    )
    with lock:
        started = impl.start(ranks.use_lock_and_event, (lock, event, counter, gate), 2, start_method)
        gate.wait_for(2)
        event.set()
        assert started.join(0) is False
    finish(started)

    assert 2 == counter.value


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_semaphore_can_be_given(impl: Impl, start_method: str, context: Any, kind: str) -> None:
    """What ranks release can be acquired here."""
    semaphore = getattr(context, kind)(2)
    assert [True, True, False] == [semaphore.acquire(block=False) for _ in range(3)]
    finish(impl.start(ranks.release, (semaphore,), 2, start_method))

    assert [True, True, False] == [semaphore.acquire(block=False) for _ in range(3)]


def test_barrier_and_condition_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """Ranks meet at a barrier, which holds a condition."""
    barrier = context.Barrier(2)
    finish(impl.start(ranks.meet, (barrier,), 2, start_method))


def test_rlock_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """A rank may hold it twice."""
    lock = context.RLock()
    finish(impl.start(ranks.hold_twice, (lock,), 2, start_method))


@pytest.mark.torch_spawn
def test_pipe_ends_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """Connections, each for one rank, lead there and back."""
    there, back = (
        [context.Pipe(duplex=False) for _ in range(2)],
        [context.Pipe(duplex=False) for _ in range(2)],
    )
    started = impl.start(ranks.send_back, ([(there[i][0], back[i][1]) for i in range(2)],), 2, start_method)
    for i in range(2):
        there[i][1].send(f"for {i}")
    received = [back[i][0].recv() for i in range(2)]
    finish(started)

    assert [(0, "for 0"), (1, "for 1")] == received
    for pipe in (*there, *back):
        for end in pipe:
            end.close()


def test_end_of_pipe_is_seen_when_ranks_have_ended(impl: Impl, start_method: str, context: Any) -> None:
    """Nobody but the ranks holds what was handed to them: with them and us, the last writing end is gone."""
    receiver, sender = context.Pipe(duplex=False)
    started = impl.start(ranks.send_args, (sender, "last words"), 2, start_method)
    sender.close()
    finish(started)

    assert [(0, ("last words",)), (1, ("last words",))] == sorted(receiver.recv() for _ in range(2))
    with pytest.raises(EOFError):
        receiver.recv()
    receiver.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_proxies_of_a_manager_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """Ranks work on a manager's list and dict."""
    with SyncManager(ctx=context) as manager:
        names, table = manager.list(), manager.dict()
        finish(impl.start(ranks.append_to, (names, table), 2, start_method))

        assert ([0, 1], {0: 0, 1: 1}) == (sorted(names), dict(table))


@posix_only
def test_shared_memory_can_be_given(impl: Impl, start_method: str) -> None:
    """Ranks write into one block of memory."""
    memory = SharedMemory(create=True, size=16)
    finish(impl.start(ranks.write_shared_memory, (memory,), 2, start_method))

    assert b"\1\2" == bytes(memory.buf[:2])
    memory.close()
    memory.unlink()


def test_shared_array_can_be_given(impl: Impl, start_method: str, context: Any) -> None:
    """Ranks write into one Array."""
    array = context.Array("i", 3)
    finish(impl.start(ranks.write_shared_array, (array,), 3, start_method))

    assert [1, 2, 3] == list(array)


@pytest.mark.skipif(sys.version_info < (3, 11, 5), reason="multiprocessing sees to it from CPython 3.11.5 on")
@pytest.mark.parametrize("other", PICKLING)
@needs_fork
def test_lock_of_start_method_fork_is_refused_elsewhere(impl: Impl, other: str) -> None:
    """A lock that only forked processes can share is multiprocessing's RuntimeError, before any rank runs."""
    with pytest.raises(
        RuntimeError, match="A SemLock created in a fork context is being shared with a process"
    ):
        impl.start(ranks.hold_twice, (multiprocessing.get_context("fork").RLock(),), 1, other)

    assert [] == multiprocessing.active_children()


@posix_only
@pytest.mark.parametrize("start_method", PICKLING)
def test_lock_dropped_by_the_caller_at_once(impl: Impl, start_method: str, tmp_path: Path) -> None:
    """spawnx keeps what it hands over until all ranks have it; the reference loses it to slow ranks (pytorch#30461)."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    lock = multiprocessing.get_context(start_method).Lock()
    context = impl.start(ranks.acquire_lock, (ranks.WaitsForByte(fifo), lock), 2, start_method)
    del lock
    gc.collect()
    with open(fifo, "r+b", buffering=0) as file:
        file.write(b"..")
        failures = impl.every_failure(context)

    assert impl.differs(torch=["ProcessExitedException"], spawnx=[]) == [
        type(failure).__name__ for failure in failures[:1]
    ]
    assert impl.differs(torch=[1], spawnx=[]) == [failure.exit_code for failure in failures[:1]]


# Start methods


@pytest.mark.parametrize(
    "told", [None, multiprocessing.get_all_start_methods()[-1]], ids=["platform", "told"]
)
def test_start_method_none_is_multiprocessing_s_default(program: Program, told: str | None) -> None:
    """What the program has set, or else the platform's: on Linux fork, since CPython 3.14 forkserver. It stays that."""
    default = told or multiprocessing.get_all_start_methods()[0]
    seen = "set" if default == "fork" else "imported"

    assert [seen, seen, f"{default} True"] == program.output(
        f"""
        import multiprocessing

        main_part = "imported"

        def tell(rank):
            print(main_part, flush=True)

        def way(method):
            context = mp.start_processes(tell, (), 1, join=False, start_method=method)
            while not context.join():
                pass
            return getattr(context, "launcher", type(context.processes[0]).__name__)

        if __name__ == "__main__":
            main_part = "set"
            if {told!r}:
                multiprocessing.set_start_method({told!r})
            taken = way(None)
            print(multiprocessing.get_start_method(allow_none=True), taken == way({default!r}))
        """
    )


# What torch shares


@pytest.mark.torch
@pytest.mark.torch_spawn
def test_tensor_is_shared(program: Program, start_method: str) -> None:
    """Ranks write into the caller's tensor, by each of torch's ways to share memory."""
    nprocs = 1 if start_method == "spawn" else 2  # each imports torch
    expected = [1.0, 2.0][:nprocs]

    assert [f"file_descriptor {expected}", f"file_system {expected}"] == program.output(
        f"""
        import multiprocessing
        import torch.multiprocessing
        from tests import ranks

        if __name__ == "__main__":
            multiprocessing.set_forkserver_preload(["torch"])
            for strategy in sorted(torch.multiprocessing.get_all_sharing_strategies()):
                torch.multiprocessing.set_sharing_strategy(strategy)
                tensor = torch.zeros({nprocs}).share_memory_()
                mp.start_processes(ranks.add_to_tensor, (tensor,), {nprocs}, start_method={start_method!r})
                print(strategy, tensor.tolist())
        """
    )


@pytest.mark.torch
def test_tensor_comes_back_in_a_queue(program: Program) -> None:
    """What a rank puts into a queue of torch's is there while the rank lives."""
    assert ["[2.0, 2.0]"] == program.output(
        f"""
        import torch
        import torch.multiprocessing
        from tests import ranks

        if __name__ == "__main__":
            context = torch.multiprocessing.get_context({QUICK!r})
            queue, gate = context.SimpleQueue(), ranks.Gate(context)
            started = mp.start_processes(
                ranks.put_doubled, (torch.ones(2), queue, gate), join=False, start_method={QUICK!r}
            )
            tensor = queue.get()
            print(tensor.tolist())
            gate.let()
            while not started.join():
                pass
        """
    )

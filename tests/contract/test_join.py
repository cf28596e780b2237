"""What `join` waits for and returns, what `sentinels` holds meanwhile, and which numbers of ranks can be asked for."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from typing import Any

import pytest

from tests import ranks
from tests.ranks import Gate
from tests.support import LONG_S, QUICK, Impl, finish, posix_only, take, wait_ended

CONTEXT = multiprocessing.get_context(QUICK)


def _gates(count: int) -> list[Gate]:
    """A gate for each rank."""
    return [Gate(CONTEXT) for _ in range(count)]


def _start_at_gates(impl: Impl, gates: list[Gate]) -> Any:
    """Start a rank for each gate, and wait until each is there."""
    context = impl.start(ranks.wait_at_own, (gates,), len(gates))
    for gate in gates:
        gate.wait_for()
    return context


def _wait_until_ended(context: Any, *indices: int) -> None:
    """Wait for the end of single ranks."""
    wait_ended(context.processes[index] for index in indices)


@pytest.mark.torch_spawn
def test_join_left_at_its_default_returns_none(impl: Impl, start_method: str) -> None:
    """A call that joins returns None once every rank has ended."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    returned = impl.mp.start_processes(ranks.put_rank, (queue,), 2, start_method=start_method)

    assert returned is None
    assert [0, 1] == take(queue, 2)
    queue.close()


def test_spawn_left_at_its_defaults_runs_one_rank_to_its_end(impl: Impl) -> None:
    """`spawn(fn, args)` is one rank, joined."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    returned = impl.mp.spawn(ranks.put_rank, (queue,))

    assert returned is None
    assert [0] == take(queue, 1)
    queue.close()


@pytest.mark.parametrize("join", [False, 0, None, ""])
def test_call_without_join_returns_context(impl: Impl, join: Any) -> None:
    """Anything false as `join` returns the context."""
    gate = Gate(CONTEXT)
    context = impl.mp.start_processes(ranks.wait_at, (gate,), join=join, start_method=QUICK)
    gate.wait_for()

    assert impl.mp.ProcessContext is type(context)
    gate.let()
    finish(context)


@pytest.mark.parametrize("join", [True, 1, "yes"])
def test_call_with_join_returns_none(impl: Impl, join: Any) -> None:
    """Anything true as `join` joins."""
    assert impl.mp.start_processes(ranks.nothing, join=join, start_method=QUICK) is None


def test_join_returns_after_one_rank_ended(impl: Impl) -> None:
    """`join` without a timeout returns False as soon as one rank has ended, so callers loop."""
    gates = _gates(3)
    context = _start_at_gates(impl, gates)
    gates[1].let()

    assert context.join() is False
    assert [0, 2] == list(context.sentinels.values())
    gates[0].let()
    gates[2].let()
    finish(context)


def test_join_in_a_loop_ends_with_true(impl: Impl) -> None:
    """Each `join` that isn't the last one is False and sees one end or more."""
    gates = _gates(3)
    context = _start_at_gates(impl, gates)
    answers = []
    for gate in gates:
        gate.let()
        answers.append(context.join())

    assert [False, False, True] == answers
    assert {} == context.sentinels


def test_join_after_all_ended_returns_true_at_once(impl: Impl) -> None:
    """One `join` sees every end that there has been."""
    context = impl.start(ranks.nothing, nprocs=3)
    _wait_until_ended(context, 0, 1, 2)

    assert context.join() is True
    assert {} == context.sentinels


def test_join_after_true_returns_true_again(impl: Impl) -> None:
    """`join` can be called as often as one likes."""
    context = impl.start(ranks.nothing, nprocs=2)
    finish(context)

    assert [True, True, True, True] == [
        context.join(),
        context.join(0),
        context.join(timeout=-1),
        context.join(1, 1),
    ]


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
def test_join_without_time_polls(impl: Impl, timeout: float) -> None:
    """0 and negative timeouts answer at once: False while ranks live, True once all have ended."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    gate.wait_for()

    assert [False, False] == [context.join(timeout), context.join(timeout=timeout)]
    gate.let()
    _wait_until_ended(context, 0)
    assert context.join(timeout) is True


def test_join_without_time_sees_what_ended(impl: Impl) -> None:
    """A poll takes one rank's end in, and says False as long as another one lives."""
    gates = _gates(2)
    context = _start_at_gates(impl, gates)
    gates[0].let()
    _wait_until_ended(context, 0)

    assert context.join(0) is False
    assert [1] == list(context.sentinels.values())
    gates[1].let()
    finish(context)


def test_join_without_time_raises_for_what_failed(impl: Impl) -> None:
    """A poll raises when a rank has failed, as any `join` does."""
    context = impl.start(ranks.do, (ranks.exit_with, 3))
    _wait_until_ended(context, 0)

    with pytest.raises(impl.module.ProcessExitedException):
        context.join(-1)


def test_join_with_timeout_takes_that_long(impl: Impl) -> None:
    """A timeout is in seconds, and is waited for in full."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    gate.wait_for()
    start = time.monotonic()

    assert context.join(timeout=0.2) is False
    assert time.monotonic() - start >= 0.19
    gate.let()
    finish(context)


def test_join_with_timeout_returns_when_a_rank_ends(impl: Impl) -> None:
    """A timeout is a limit, not a duration."""
    context = impl.start(ranks.nothing)
    start = time.monotonic()

    assert context.join(LONG_S) is True
    assert time.monotonic() - start < LONG_S / 2


def test_join_with_timeout_in_a_loop_ends(impl: Impl) -> None:
    """What test suites do: `while not ctx.join(timeout=0.1)` with a deadline."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,), 2)
    deadline = time.monotonic() + LONG_S
    rounds = 0
    while not context.join(timeout=0.01):
        rounds += 1
        if rounds == 3:
            gate.let(2)
        assert time.monotonic() < deadline

    assert rounds >= 3


def test_single_join_sees_one_end(impl: Impl) -> None:
    """What nerfstudio does: `join` once, without a loop; the other ranks live on."""
    gates = _gates(2)
    context = _start_at_gates(impl, gates)
    gates[1].let()
    context.join()

    assert [True, False] == [process.is_alive() for process in context.processes]
    gates[0].let()
    finish(context)


def test_join_after_failure_raises_the_next_one_in_turn(impl: Impl) -> None:
    """Once a failure was raised, each further `join` raises another one, then all return True."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.one_does_others_stay, (1, gate, ranks.exit_with, 3), 3)
    gate.wait_for(2)
    gate.let()
    pids = context.pids()
    failures = [failure.__reduce__()[1] for failure in impl.every_failure(context)]

    assert ("process 1 terminated with exit code 3", 1, pids[1], 3, None) == failures[0]
    assert [
        ("process 0 terminated with signal SIGTERM", 0, pids[0], -15, "SIGTERM"),
        ("process 2 terminated with signal SIGTERM", 2, pids[2], -15, "SIGTERM"),
    ] == sorted(failures[1:])
    assert [True, True] == [context.join(), context.join(0)]


def test_sentinels_after_failure_hold_what_was_not_raised_yet(impl: Impl) -> None:
    """`sentinels` loses a rank when `join` has told of it."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.one_does_others_stay, (1, gate, ranks.exit_with, 3), 3)
    gate.wait_for(2)
    gate.let()
    expected = {0, 1, 2}
    for _ in range(3):
        with pytest.raises(impl.module.ProcessExitedException) as caught:
            finish(context)
        expected -= {caught.value.error_index}
        assert expected == set(context.sentinels.values())

    assert set() == expected
    assert context.join() is True


def test_join_after_failure_passes_over_ranks_that_ended_well(impl: Impl) -> None:
    """Only failures are raised; a rank that ended well is just no longer among the `sentinels`."""
    gates = _gates(3)
    context = impl.start(ranks.wait_at_own_then_do, (gates, ranks.exit_with, 3), 3)
    for gate in gates:
        gate.wait_for()
    gates[0].let()
    _wait_until_ended(context, 0)
    with pytest.raises(impl.module.ProcessExitedException):
        context.join()

    assert {1, 2} == {failure.error_index for failure in impl.every_failure(context)}


def test_join_after_one_failed_and_one_ended_raises(impl: Impl) -> None:
    """A failure is raised though another rank ended well before and is seen by the same `join`."""
    context = impl.start(ranks.one_does, (1, ranks.exit_with, 3), 3)
    _wait_until_ended(context, 0, 1, 2)

    assert [1] == [failure.error_index for failure in impl.every_failure(context)]
    assert {} == context.sentinels


def test_sentinels_hold_every_rank_at_first(impl: Impl) -> None:
    """`sentinels` maps what can be waited for to indices, in their order, whether ranks have ended or not."""
    context = impl.start(ranks.nothing, nprocs=3)
    _wait_until_ended(context, 0, 1, 2)

    assert [(process.sentinel, index) for index, process in enumerate(context.processes)] == list(
        context.sentinels.items()
    )
    finish(context)


def test_sentinels_of_callers_can_be_waited_for(impl: Impl) -> None:
    """`multiprocessing.connection.wait` on `sentinels` tells who has ended."""
    gates = _gates(2)
    context = _start_at_gates(impl, gates)

    assert [] == multiprocessing.connection.wait(context.sentinels, timeout=0)
    gates[1].let()
    ended = multiprocessing.connection.wait(context.sentinels, timeout=LONG_S)
    assert [1] == [context.sentinels[sentinel] for sentinel in ended]
    gates[0].let()
    finish(context)


@pytest.mark.parametrize("nprocs", [0, -1, -7, False])
def test_no_ranks_asked_for_starts_none(impl: Impl, nprocs: int, start_method: str) -> None:
    """0 and negative numbers start nothing, and `join` is True."""
    context = impl.start(ranks.nothing, nprocs=nprocs, start_method=start_method)

    assert ([], [], {}, [], True) == (
        context.processes,
        context.error_files,
        context.sentinels,
        context.pids(),
        context.join(),
    )


def test_no_ranks_asked_for_and_joined_returns_none(impl: Impl) -> None:
    """The joining call has nothing to wait for."""
    assert impl.mp.start_processes(ranks.nothing, nprocs=0, start_method=QUICK) is None


@pytest.mark.parametrize(
    ("nprocs", "expected"), [(1, 1), (True, 1), (2, 2), (ranks.Index(2), 2), (64, 64)], ids=str
)
def test_number_of_ranks_may_be_anything_with_an_index(impl: Impl, nprocs: Any, expected: int) -> None:
    """Every whole number will do, however it is written; ranks are numbered from 0."""
    queue = CONTEXT.SimpleQueue()
    context = impl.start(ranks.put_rank, (queue,), nprocs)
    finish(context)

    assert expected == len(context.processes)
    assert sorted(range(expected), key=repr) == take(queue, expected)
    queue.close()


def test_number_of_ranks_may_be_numpy_s(impl: Impl) -> None:
    """numpy's whole numbers will do."""
    numpy = pytest.importorskip("numpy")
    context = impl.start(ranks.nothing, nprocs=numpy.int64(2))
    finish(context)

    assert len(context.processes) == 2


@pytest.mark.parametrize("nprocs", [2.0, "2", None, [2]], ids=repr)
def test_number_of_ranks_that_is_none_raises(impl: Impl, nprocs: Any) -> None:
    """What isn't a whole number is a TypeError, before any rank is started."""
    with pytest.raises(TypeError):
        impl.start(ranks.nothing, nprocs=nprocs)

    assert [] == multiprocessing.active_children()


@pytest.mark.torch_spawn
def test_pids_are_the_processes_own(impl: Impl, start_method: str) -> None:
    """`pids()` are ints in the order of the ranks, and what each rank's `os.getpid()` says; also after the end."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    context = impl.start(ranks.put_identity, (queue,), 2, start_method)
    before = context.pids()
    finish(context)

    assert [(0, before[0]), (1, before[1])] == [
        (found["rank"], found["pid"]) for found in sorted(take(queue, 2), key=lambda found: found["rank"])
    ]
    assert before == context.pids() == [process.pid for process in context.processes]
    assert [int, int] == [type(pid) for pid in before]
    queue.close()


def test_shared_timeout_is_for_all_ranks_together(impl: Impl) -> None:
    """`_join_procs_with_timeout`, which torch elastic's users call, waits so long for all, and returns None."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,), 4)
    gate.wait_for(4)
    start = time.monotonic()

    assert context._join_procs_with_timeout(0.2) is None
    assert 0.19 <= time.monotonic() - start < 0.7
    assert [True] * 4 == [process.is_alive() for process in context.processes]
    gate.let(4)
    assert context._join_procs_with_timeout(LONG_S) is None
    assert [0] * 4 == [process.exitcode for process in context.processes]
    assert context.join() is True


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_signals_do_not_prolong_a_timeout(impl: Impl) -> None:
    """A handler that runs again and again in the middle of `join` takes nothing from and adds nothing to its time."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    gate.wait_for()
    handled = []
    stop = threading.Event()
    main = threading.get_ident()

    def send() -> None:
        while not stop.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    sender = threading.Thread(target=send)
    sender.start()
    start = time.monotonic()
    answer = context.join(timeout=0.3)
    took = time.monotonic() - start
    stop.set()
    sender.join()
    signal.signal(signal.SIGUSR1, previous)

    assert answer is False
    assert 0.29 <= took < 5
    assert len(handled) > 3
    gate.let()
    finish(context)


def test_join_in_another_thread(impl: Impl) -> None:
    """Whichever thread joins: it need not be the one that started the ranks."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,), 2)
    gate.wait_for(2)
    gate.let(2)
    joining = threading.Thread(target=finish, args=(context,))
    joining.start()
    joining.join()

    assert {} == context.sentinels
    assert [0, 0] == [process.exitcode for process in context.processes]


def test_start_in_another_thread(impl: Impl) -> None:
    """A thread may start ranks that the main thread joins, while that thread lives (if not: test_differences.py)."""
    gate = Gate(CONTEXT)
    contexts = []
    started, joined = threading.Event(), threading.Event()

    def start() -> None:
        contexts.append(impl.start(ranks.wait_at, (gate,), 2))
        started.set()
        joined.wait()

    starting = threading.Thread(target=start)
    starting.start()
    started.wait()
    gate.let(2)
    finish(contexts[0])
    joined.set()
    starting.join()

    assert [0, 0] == [process.exitcode for process in contexts[0].processes]


@posix_only
def test_more_than_1024_ranks_are_joined(impl: Impl) -> None:
    """All alive at once, and each of them a success; fewer with the reference, as its start takes N² time."""
    import resource

    nprocs = impl.differs(torch=200, spawnx=1500)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * nprocs or QUICK != "fork":
        pytest.skip("needs 3 fds per rank and forked ranks")
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,), nprocs)
    gate.wait_for(nprocs)
    gate.let(nprocs)
    finish(context)

    assert [0] * nprocs == [process.exitcode for process in context.processes]


def test_two_contexts_do_not_meddle(impl: Impl) -> None:
    """The end of another context's rank, failed or not, is none of this one's business."""
    gates = _gates(1)
    context = _start_at_gates(impl, gates)
    other = impl.start(ranks.do, (ranks.exit_with, 3))

    with pytest.raises(impl.module.ProcessExitedException):
        finish(other)
    assert context.join(0) is False
    gates[0].let()
    finish(context)


def test_other_children_are_left_alone(impl: Impl) -> None:
    """A child that isn't a rank keeps its exit status while ranks are joined."""
    other = CONTEXT.Process(target=ranks.exit_with, args=(5,))
    other.start()
    wait_ended([other])
    finish(impl.start(ranks.nothing, nprocs=3))

    other.join()
    assert 5 == other.exitcode
    other.close()

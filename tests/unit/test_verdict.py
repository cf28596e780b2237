"""The order of failures: by examples, and by what holds for any."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawnx.failures import verdict
from spawnx.failures.verdict import Fact

HEAD = 'Traceback (most recent call last):\n  File "train.py", line 1, in fn\n    step()\n'
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
GENUINE = [
    "ValueError: no good",
    "ValueError",
    "RuntimeError: CUDA out of memory",
    "EOFError: EOF when reading a line",
    "EOFError: Ran out of input",
    "torch.OutOfMemoryError: out of memory\nConnection reset by peer",
    "ConnectionRefusedError: [Errno 111] Connection refused",
    "TimeoutError",
    "KeyError: 'Broken'",
]
CONSEQUENCES = [
    "ConnectionResetError: [Errno 104] Connection reset by peer",
    "ConnectionResetError",
    "BrokenPipeError: [Errno 32] Broken pipe",
    "EOFError",
    "asyncio.exceptions.IncompleteReadError: 0 bytes read on a total of 4 expected bytes",
    "threading.BrokenBarrierError",
    "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2047",
    "RuntimeError: [/gloo/transport/tcp/pair.cc:547] Read error [::1]:1: Connection reset by peer",
    "RuntimeError: ... Connection closed by remote peer [127.0.0.1]:1",
    (
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a"
        " network error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error"
    ),
    (
        "torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed. Did the remote"
        " server shutdown or crash?\nException raised from recvBytes"
    ),
    "OSError: [Errno 32] Broken pipe",
]


def raised(rank: int, when: float | None, said: str = GENUINE[0], **known: Any) -> Fact:
    """A rank that raised."""
    return Fact(rank, text=f"{HEAD}{said}\n", raised=when, **known)


def order_of(*facts: Fact) -> list[int]:
    """The ranks, the cause first."""
    return [fact.rank for fact in verdict.in_order(facts)]


def test_failures_are_ordered_by_the_time_of_the_raise_not_of_the_exit() -> None:
    """A rank that raised first and exited last failed first; a silent exit counts from when it was seen."""
    slow, late = raised(0, 1.0, seen=9.0), raised(2, 3.0, seen=4.0)
    silent = Fact(1, alive=0.0, seen=2.0)

    assert [0, 1, 2] == order_of(late, silent, slow)


def test_report_of_the_references_file_counts_from_when_it_was_seen() -> None:
    """The reference's files have no time in them."""
    assert [1, 0] == order_of(raised(0, None, seen=5.0), raised(1, 4.0, seen=6.0))


@pytest.mark.parametrize(("alive", "seen", "expected"), [(0.5, 9.0, [1, 0]), (2.0, 9.0, [0, 1])])
def test_signal_comes_before_a_raise_where_it_may_have(
    alive: float, seen: float, expected: list[int]
) -> None:
    """A rank that was known to live well after another one raised was not its cause."""
    assert expected == order_of(raised(0, 1.0), Fact(1, signum=11, alive=alive, seen=seen))


def test_rank_that_died_by_our_signal_comes_last() -> None:
    """Also where it was seen dead before the cause was."""
    ours = Fact(0, signum=15, alive=0.0, seen=1.0, sent={15: 0.5})
    consequence = raised(1, 3.0, CONSEQUENCES[0])

    assert [2, 1, 0] == order_of(ours, consequence, raised(2, 4.0))


def test_rank_that_died_by_another_signal_than_ours_is_not_our_doing() -> None:
    """It was killed, or has crashed, while we sent SIGTERM."""
    assert [0, 1] == order_of(Fact(0, signum=9, alive=0.9, seen=2.0, sent={15: 1.0}), raised(1, 0.95))


def test_rank_that_raised_before_it_was_signalled_is_not_our_doing() -> None:
    """Its report comes late; its time doesn't."""
    early = raised(0, 1.0, sent={15: 1.1})
    late = raised(1, 1.2, sent={15: 1.1})

    assert [True, False] == [verdict.is_genuine(early), verdict.is_genuine(late)]


@pytest.mark.parametrize("said", CONSEQUENCES, ids=lambda said: said[:40])
def test_what_is_raised_when_a_peer_is_gone_is_a_consequence(said: str) -> None:
    """By the system, asyncio, gloo, nccl and torch's store."""
    assert not verdict.is_genuine(raised(0, 1.0, said))


@pytest.mark.parametrize("said", GENUINE, ids=lambda said: said[:40])
def test_what_is_raised_for_a_reason_of_ones_own_is_genuine(said: str) -> None:
    """Other words of the message are not searched but those of its first line."""
    assert verdict.is_genuine(raised(0, 1.0, said))


@pytest.mark.parametrize("between", [CAUSE, CONTEXT], ids=["cause", "context"])
def test_chain_of_exceptions_is_judged_by_its_first(between: str) -> None:
    """Whoever wraps a reset connection tells a consequence; whose cleanup fails tells what it cleaned up after."""
    wrapped = Fact(0, text=f"{HEAD}{CONSEQUENCES[0]}\n{between}{HEAD}RuntimeError: lost\n", raised=1.0)
    cleaned = Fact(0, text=f"{HEAD}ValueError: cause\n{between}{HEAD}{CONSEQUENCES[2]}\n", raised=1.0)

    assert [False, True] == [verdict.is_genuine(wrapped), verdict.is_genuine(cleaned)]


def test_death_by_sigpipe_is_a_consequence() -> None:
    """Of the other end of the pipe."""
    assert [False, True] == [verdict.is_genuine(Fact(0, signum=signum)) for signum in (13, 11)]


# What holds for any

TIME = st.floats(0, 100)


@st.composite
def any_fact(draw: st.DrawFn, rank: int) -> Fact:
    """A fact as it may come: what was raised, by what it ended, when that was known, and what we had sent."""
    alive, seen = sorted((draw(TIME), draw(TIME)))
    kind = draw(st.sampled_from(["raised", "died", "exited"]))
    said = draw(st.sampled_from(GENUINE + CONSEQUENCES))
    return Fact(
        rank,
        text=f"{HEAD}{said}\n" if kind == "raised" else "",
        raised=draw(st.none() | TIME) if kind == "raised" else None,
        signum=draw(st.sampled_from([6, 7, 8, 9, 11, 13, 15])) if kind == "died" else 0,
        alive=alive,
        seen=seen,
        sent=draw(st.just({}) | st.dictionaries(st.sampled_from([9, 15]), TIME, min_size=1)),
    )


@st.composite
def facts(draw: st.DrawFn) -> list[Fact]:
    """Facts of a few ranks."""
    return [draw(any_fact(rank)) for rank in range(draw(st.integers(0, 7)))]


@given(facts(), st.randoms(use_true_random=False))
def test_order_does_not_depend_on_that_of_the_input(some: list[Fact], random: Any) -> None:
    """And nobody is lost, or told twice."""
    shuffled = list(some)
    random.shuffle(shuffled)

    assert verdict.in_order(some) == verdict.in_order(shuffled)
    assert set(range(len(some))) == set(order_of(*some))


@given(facts(), st.data())
def test_order_of_two_does_not_depend_on_a_third(some: list[Fact], data: st.DataObject) -> None:
    """It is a total order: who is taken out changes nothing for the others."""
    out = data.draw(st.sampled_from([None, *some]))
    rest = [fact for fact in some if fact is not out]

    assert [fact for fact in verdict.in_order(some) if fact is not out] == verdict.in_order(rest)


@given(facts())
def test_genuine_failures_come_before_consequences_and_these_before_our_own_doing(some: list[Fact]) -> None:
    """So what we have signalled is never first, unless there is nothing else."""
    kinds = [
        "ours" if verdict.is_ours(fact) else "consequence" if verdict.is_consequence(fact) else "genuine"
        for fact in verdict.in_order(some)
    ]

    assert kinds == sorted(kinds, key=["genuine", "consequence", "ours"].index)


@given(facts())
def test_genuine_failures_are_in_the_order_in_which_they_can_have_happened(some: list[Fact]) -> None:
    """Two raises by their times; a signal first where its interval overlaps, and where it was seen before."""
    genuine = [fact for fact in verdict.in_order(some) if verdict.is_genuine(fact)]
    for one, two in itertools.combinations(genuine, 2):
        if one.raised is not None and two.raised is not None:
            assert one.raised <= two.raised
        if one.raised is not None and two.signum:
            assert not two.alive <= one.raised <= two.seen
            assert not two.seen < one.raised


@given(facts())
def test_silent_exit_comes_before_a_signal_only_where_the_signal_came_later(some: list[Fact]) -> None:
    """The rank that the signal has ended was known to live after the exit was seen, by the time that a death takes.

    It can't be told more exactly: exits and raises are ordered by when they were seen and raised, signals and raises
    by whether the rank may have died first. With these two, an order of three decides that of signals and exits.
    """
    genuine = [fact for fact in verdict.in_order(some) if verdict.is_genuine(fact)]
    for one, two in itertools.combinations(genuine, 2):
        if not one.text and not one.signum and two.signum:
            assert one.seen <= two.alive
        if one.signum and not two.text and not two.signum:
            assert one.alive <= two.seen + 0.06


@given(facts(), st.lists(TIME, min_size=8, max_size=8))
def test_patience_ends_with_a_genuine_failure_or_a_second_after_the_first(
    some: list[Fact], times: list[float]
) -> None:
    """Nobody waits where a cause is known, nor longer than that for one."""
    patience, known = verdict.Patience(), []
    for fact, now in zip(some, sorted(times), strict=False):
        patience.take(fact, now)
        known.append((fact, now))
        left = patience.left(now)
        if any(verdict.is_genuine(one) for one, _ in known):
            assert 0 == left
        else:
            assert max(0, known[0][1] + verdict.PATIENCE - now) == pytest.approx(left)
        assert 0 == patience.left(known[0][1] + verdict.PATIENCE)


def test_patience_is_endless_where_nothing_has_failed() -> None:
    """There is nothing to act on."""
    assert math.inf == verdict.Patience().left(1.0)

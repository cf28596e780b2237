"""Whose fault it is that a training over gloo has ended: of one rank, while its peers wait for it in an all-reduce."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from spawnx import backends
from tests import ranks
from tests.support import Impl, linux_only

pytestmark = [linux_only, pytest.mark.torch]

HOWS = {
    "raises": ((ranks.raise_value_error, "the cause"), "ValueError: the cause"),
    "is killed": ((ranks.die_by, 9), "process 1 terminated with signal SIGKILL"),
    "crashes": ((ranks.crash,), "process 1 terminated with signal SIGSEGV"),
    "exits": ((ranks.exit_at_once, 7), "process 1 terminated with exit code 7"),
}


@pytest.fixture(params=backends.available())
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Impl:
    """Spawnx, on each backend that works here."""
    monkeypatch.setenv("SPAWNX_BACKEND", request.param)
    return Impl(request.param)


@pytest.fixture(autouse=True)
def _torch_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clones then share one import of it; what it caches is no rank's leftover."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    importlib.import_module("torch.distributed")


@pytest.mark.parametrize(
    ("how", "closes_first"),
    [*((how, False) for how in HOWS), ("raises", True), ("is killed", True)],
    ids=lambda value: {True: "after its connections", False: ""}.get(value, value),
)
def test_rank_that_fails_while_its_peers_reduce_is_named(
    ours: Impl, how: str, closes_first: bool, tmp_path: Path, without_faulthandler: None
) -> None:
    """Not one of the peers, which raise "Connection closed by peer" a moment later, or earlier.

    The reference names whichever it sees first: there is nothing to hold it to.
    """
    call, expected = HOWS[how]
    args = 4, str(tmp_path / "store"), closes_first, *call
    # Where the ranks share one import of torch.
    context = ours.start(ranks.reduce_until_one_fails, args, 4, "spawn" if ours.name == "native" else "fork")
    failures: list[Any] = ours.every_failure(context)
    peers = [failure for failure in failures[0].failures[1:] if failure.type_name is not None]

    assert 1 == failures[0].error_index
    assert expected in str(failures[0])
    assert {0, 1, 2, 3} == {failure.error_index for failure in failures}
    assert {"RuntimeError"} >= {failure.type_name.rpartition(".")[2] for failure in peers}
    if closes_first:
        assert peers
    if how == "crashes":
        assert " in crash\n" in failures[0].failures[0].traceback

"""torch elastic, the machinery of `torchrun`, launches functions through spawnx as it does through torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.callers.conftest import Spy
from tests.conftest import Impl

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402 - only once torch is known to be there
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs  # noqa: E402
from torch.distributed.elastic.multiprocessing import api as elastic_api  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: E402
from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: E402

RANKS = 3


def reduced_rank(offset: int) -> int:
    """Sum `offset + rank` over all ranks by gloo; every rank returns the sum."""
    dist.init_process_group("gloo")  # elastic has put address, port, rank and size into the environment
    value = torch.tensor([offset + dist.get_rank()])
    dist.all_reduce(value)
    dist.destroy_process_group()
    return int(value.item())


def raise_in_rank_1() -> None:
    """Raise in rank 1; all others would wait for ever."""
    if os.environ["RANK"] == "1":
        raise ValueError("rank 1 has had enough")
    signal.pause()


def die_in_rank_1() -> None:
    """Die by SIGKILL in rank 1; all others would wait for ever."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


@pytest.fixture
def config(start_method: str, tmp_path: Path) -> LaunchConfig:
    """One node, three ranks, no restarts, and every port chosen by the system."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=RANKS,
        max_restarts=0,
        monitor_interval=0.02,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        start_method=start_method,
        logs_specs=DefaultLogsSpecs(log_dir=str(tmp_path)),
    )


@pytest.fixture
def spy(put_into: Callable[[ModuleType], Spy]) -> Spy:
    """Elastic's use of `start_processes`, under test."""
    return put_into(elastic_api)


def test_all_ranks_return_results_come_back(impl: Impl, config: LaunchConfig, spy: Spy) -> None:
    """Ranks that reduce over gloo return their values to elastic, which exports the same result for each."""
    results = elastic_launch(config, reduced_rank)(10)

    assert dict.fromkeys(range(RANKS), 10 + 11 + 12) == results
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by


def test_one_rank_raises_its_error_is_reported(impl: Impl, config: LaunchConfig, spy: Spy) -> None:
    """Elastic names the rank that raised, its exit code and its message; the ranks that waited are ended."""
    with pytest.raises(ChildFailedError) as raised:
        elastic_launch(config, raise_in_rank_1)()

    rank, failure = raised.value.get_first_failure()
    assert (1, 1) == (rank, failure.exitcode)
    assert "ValueError: rank 1 has had enough" in str(failure.message)
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by


def test_one_rank_is_killed_its_signal_is_reported(impl: Impl, config: LaunchConfig, spy: Spy) -> None:
    """Elastic names the rank that was killed and the signal; the ranks that waited are ended."""
    with pytest.raises(ChildFailedError) as raised:
        elastic_launch(config, die_in_rank_1)()

    rank, failure = raised.value.get_first_failure()
    assert (1, -signal.SIGKILL) == (rank, failure.exitcode)
    assert f"Signal {signal.SIGKILL:d} (SIGKILL)" in str(failure.message)
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by

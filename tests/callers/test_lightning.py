"""Lightning trains by its strategies that start processes through spawnx as it does through torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.callers.conftest import Spy
from tests.conftest import Impl

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.strategies import DDPStrategy  # noqa: E402 - only once Lightning is known to be there
from lightning.pytorch.strategies.launchers import multiprocessing as launcher  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

pytestmark = [
    # Lightning's own use of torch; a forked rank inherits our filters and would fail by it.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # Advice to use loader workers, which would only add processes of torch's own.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

RANKS = 2
STEPS = 4
TARGET = 3.0
RATE = 0.1


class Line(pl.LightningModule):
    """Learns y = 3 x from zero.

    Every x is 1 or -1, so the gradient is 2 (slope - 3) in every batch of every rank: the slope after each step
    is known, and independent of who got which batch.
    """

    def __init__(self, failing: int | None) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self.failing = failing

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Fail if told to; else return the loss, and log what only an average over all ranks gives."""
        if self.global_rank == self.failing:
            raise ValueError(f"rank {self.failing} has had enough")
        x, y = batch
        self.log("mean_rank", float(self.global_rank), sync_dist=True)
        return torch.nn.functional.mse_loss(self.slope * x, y)

    def configure_optimizers(self) -> Any:
        """Plain gradient descent: what is left of the error shrinks by 1 - 2 * RATE in each step."""
        return torch.optim.SGD(self.parameters(), lr=RATE)

    def train_dataloader(self) -> Any:
        """As many batches of two as there are ranks and steps; Lightning shares them out."""
        x = torch.tensor([1.0, -1.0]).repeat(RANKS * STEPS)
        return DataLoader(TensorDataset(x, TARGET * x), batch_size=2)


@pytest.fixture
def spy(put_into: Callable[[ModuleType], Spy]) -> Spy:
    """Lightning's use of `start_processes`, under test."""
    return put_into(launcher)


def fit(strategy: Any, folder: Path, failing: int | None = None) -> Any:
    """Train a `Line` for one epoch; return the Trainer, as it is afterwards in the calling process."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Line(failing))
    return trainer


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategy_by_name_weights_and_metrics_come_back(
    strategy: str, impl: Impl, spy: Spy, tmp_path: Path
) -> None:
    """What two ranks have learned together is in the caller's model, and what they logged in its Trainer."""
    trainer = fit(strategy, tmp_path)

    assert pytest.approx(TARGET * (1 - (1 - 2 * RATE) ** STEPS)) == trainer.lightning_module.slope.item()
    assert pytest.approx(0.5) == trainer.callback_metrics["mean_rank"].item()
    assert [0] * RANKS == [process.exitcode for process in trainer.strategy.launcher.procs]
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by


def test_forkserver_weights_and_metrics_come_back(impl: Impl, spy: Spy, tmp_path: Path) -> None:
    """The same by the forkserver, where Lightning's ranks share the weights: how far they get is not exact."""
    trainer = fit(DDPStrategy(start_method="forkserver"), tmp_path)

    assert 0 < trainer.lightning_module.slope.item() < TARGET
    assert pytest.approx(0.5) == trainer.callback_metrics["mean_rank"].item()
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_one_rank_raises_its_traceback_is_raised(strategy: str, impl: Impl, spy: Spy, tmp_path: Path) -> None:
    """The caller of `fit` gets the failed rank's traceback; the rank that it left waiting is ended."""
    with pytest.raises(impl.mp.ProcessRaisedException) as raised:
        fit(strategy, tmp_path, failing=1)

    blamed = raised.value.error_index
    # Rank 0 fails, too, once its peer is gone, and the reference may happen to look at it first.
    assert (1, True) == (blamed, "ValueError: rank 1 has had enough" in str(raised.value)) or impl.is_torch
    assert [impl.mp.__name__.partition(".")[0]] == spy.served_by

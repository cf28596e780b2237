"""Train a small network on handwritten digits with DistributedDataParallel, one rank per process.

    pip install spawnx torch scikit-learn
    python train_ddp.py

The ranks talk over gloo, so a CPU is enough. The digits (1797 images of 8 x 8 pixels) come with scikit-learn:
nothing is downloaded. In a program that was written for torch, the import of `mp` is the only line to change.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import spawnx as mp  # was: import torch.multiprocessing as mp

SEED = 0
GOOD_ENOUGH = 0.90
BATCH = 32


def digits() -> tuple[TensorDataset, TensorDataset]:
    """The images and their labels, three quarters to learn from and one quarter never seen in training."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=SEED)
    x_train, x_test, y_train, y_test = map(torch.tensor, parts)
    return TensorDataset(x_train.float(), y_train), TensorDataset(x_test.float(), y_test)


def train(rank: int, ranks: int, epochs: int, meeting_point: str, results: SimpleQueue[float]) -> None:
    """What each rank runs: learn from its share of the digits; rank 0 reports the accuracy of the outcome."""
    torch.set_num_threads(1)  # the ranks share the machine: without this, each would use all of its cores
    torch.manual_seed(SEED)
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=ranks)

    train_set, test_set = digits()
    sampler = DistributedSampler(train_set, ranks, rank, seed=SEED)
    batches = DataLoader(train_set, batch_size=BATCH, sampler=sampler)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    replica = DistributedDataParallel(model)  # each backward pass now averages the gradients of all ranks
    optimizer = torch.optim.Adam(replica.parameters(), lr=3e-3)

    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # a new order, the same in all ranks
        for images, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(replica(images), labels).backward()
            optimizer.step()

    if rank == 0:
        images, labels = test_set.tensors
        with torch.no_grad():
            results.put((model(images).argmax(dim=1) == labels).float().mean().item())
    dist.destroy_process_group()


def main() -> int:
    """Start the ranks, wait for them, and say how well they learned; 0 if well enough."""
    parser = argparse.ArgumentParser(description="Train on handwritten digits by DistributedDataParallel.")
    parser.add_argument("--ranks", type=int, default=4, help="how many processes to train in (default: 4)")
    parser.add_argument("--epochs", type=int, default=30, help="how often to see every image (default: 30)")
    options = parser.parse_args()

    results = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        # The ranks find each other by a file: a port that is free now might be taken by the time they listen.
        meeting_point = (Path(folder) / "meeting-point").as_uri()
        mp.spawn(train, args=(options.ranks, options.epochs, meeting_point, results), nprocs=options.ranks)

    accuracy = results.get()
    print(f"{options.ranks} ranks, {options.epochs} epochs: {accuracy:.1%} of the unseen digits recognised")
    return 0 if accuracy > GOOD_ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())

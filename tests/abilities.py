"""What processes do with threads, other processes and numerical libraries: done in ranks, which say what worked."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from typing import Any

import spawnx
from tests import ranks


def loaded(*names: str) -> bool:
    """Whether modules are there before anybody here has asked for them."""
    return all(name in sys.modules for name in names)


def put_what_works(rank: int, queue: Any) -> None:
    """Do what the standard library can do, and say whether torch was there before."""
    before = loaded("torch", "numpy")
    heard: list[Any] = []
    ranks.put_what_works(rank, _Into(heard))
    queue.put((before, heard[0]))


class _Into:
    """Takes what a rank would put into a queue."""

    def __init__(self, items: list[Any]) -> None:
        self.put = items.append


def put_what_works_of_torch(rank: int, queue: Any, folder: str, nprocs: int) -> None:
    """Compute by several threads, differentiate, learn together, load data; say whether torch was there before."""
    before = loaded("torch", "numpy")
    works = [use(rank, folder, nprocs) for use in (_openblas, _openmp, _autograd, _ddp, _loader)]
    queue.put((before, works))


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _openblas(rank: int, folder: str, nprocs: int) -> str:
    """A product that OpenBLAS divides among its threads, which were ended before the clone."""
    np: Any = importlib.import_module("numpy")
    ones = np.ones((600, 600))
    assert (ones @ ones == 600).all()
    return f"openblas, {'threads' if _threads() > 1 else 'one thread'}"


def _openmp(rank: int, folder: str, nprocs: int) -> str:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(3)
    before = _threads()
    assert float(torch.ones(3_000_000).add(1).sum()) == 6_000_000
    return f"openmp, {_threads() - before} more"


def _autograd(rank: int, folder: str, nprocs: int) -> str:
    torch: Any = importlib.import_module("torch")
    x = torch.full((10,), 3.0, requires_grad=True)
    (x * x).sum().backward()
    return f"autograd, {x.grad[0]}"


def _ddp(rank: int, folder: str, nprocs: int) -> str:
    """Both ranks learn from other data, and have the same gradient after."""
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    parallel: Any = importlib.import_module("torch.nn.parallel")
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=nprocs
    )
    model = parallel.DistributedDataParallel(torch.nn.Linear(1, 1, bias=False))
    model(torch.full((1, 1), float(rank + 1))).sum().backward()
    gradient = float(model.module.weight.grad)
    distributed.destroy_process_group()
    return f"ddp, {gradient}"


def _loader(rank: int, folder: str, nprocs: int) -> str:
    """By workers that are forked, and by such that are spawned."""
    data: Any = importlib.import_module("torch.utils.data")
    sums = []
    for method in ("fork", "spawn"):
        loader = data.DataLoader(range(6), batch_size=2, num_workers=1, multiprocessing_context=method)
        sums.append(sum(int(batch.sum()) for batch in loader))
    return f"loader, {sums}"


def put_ranks_of_ranks(rank: int, queue: Any, depth: int) -> None:
    """Be a supervisor of two ranks that are supervisors, as deep as asked; say who is whose child."""
    queue.put((depth, rank, os.getpid(), os.getppid(), multiprocessing.current_process().name))
    if depth:
        context = spawnx.spawn(put_ranks_of_ranks, (queue, depth - 1), 2, join=False)
        assert context is not None
        while not context.join():
            pass
        assert context.launcher == "clone"


def stay_with_ranks(rank: int, gate: ranks.Gate, depth: int) -> None:
    """Stay, as a supervisor of a rank that stays, as deep as asked."""
    if depth:
        spawnx.spawn(stay_with_ranks, (gate, depth - 1), 1)
    gate.arrive()
    ranks.stay()


def put_all_draws(rank: int, queue: Any) -> None:
    """Draw from all that draws, by whose names; say whether all of it was imported before."""
    names = ("random", "uuid", "secrets", "ssl", "tempfile", "numpy", "torch")
    before = loaded(*names)
    random, uuid, secrets, ssl, tempfile, numpy, torch = map(importlib.import_module, names)
    queue.put(
        (
            before,
            {
                "random": random.random(),
                "random's bytes": random.randbytes(8),
                "SystemRandom": random.SystemRandom().random(),
                "uuid1": uuid.uuid1().hex,
                "uuid4": uuid.uuid4().hex,
                "secrets": secrets.token_hex(8),
                "ssl": ssl.RAND_bytes(8),
                "tempfile": next(tempfile._get_candidate_names()),
                "numpy": float(numpy.random.random()),
                "numpy's new generators": float(numpy.random.default_rng().random()),
                "torch": float(torch.rand(1, dtype=torch.float64)),
                "torch's permutations": tuple(torch.randperm(20).tolist()),
                "torch's seed": torch.initial_seed(),
            },
        )
    )

"""Functions of light ranks. Fresh interpreters import this file, so it imports as little as possible."""

from __future__ import annotations

import os
import time

STAMP_BYTES = 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def pass_gate(rank: int, arrive: Connection, passed: Connection) -> None:
    """Run as a rank: arrive at the gate, and end when let on."""
    os.write(arrive.fileno(), b".")
    os.read(passed.fileno(), 1)


def import_torch_and_pass(rank: int, arrive: Connection, passed: Connection) -> None:
    """Run as a rank that imports torch and passes the gate."""
    import torch  # noqa: F401

    pass_gate(rank, arrive, passed)


def stamp(rank: int, arrive: Connection, torch: bool) -> None:  # noqa: FBT001
    """Run as a rank that writes the time when it has reached its function, and ends."""
    if torch:
        import torch as _  # noqa: F401
    os.write(arrive.fileno(), f"{time.monotonic():.6f}".ljust(STAMP_BYTES).encode())


def nothing(rank: int) -> None:
    """Run as a rank that does nothing."""


def use_torch(rank: int) -> None:
    """Run as a rank that uses torch."""
    import torch

    assert (torch.ones(8, 8) @ torch.ones(8, 8)).sum() == 512

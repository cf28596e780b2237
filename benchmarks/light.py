"""What light ranks do: fresh interpreters import this file, and nothing that they could do without."""

from __future__ import annotations

import os
import time

STAMP_BYTES = 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def pass_gate(rank: int, arrive: Connection, passed: Connection) -> None:
    """Be a rank: arrive, and end when let on."""
    os.write(arrive.fileno(), b".")
    os.read(passed.fileno(), 1)


def import_torch_and_pass(rank: int, arrive: Connection, passed: Connection) -> None:
    """Be a rank that has torch."""
    import torch  # noqa: F401

    pass_gate(rank, arrive, passed)


def stamp(rank: int, arrive: Connection, torch: bool) -> None:  # noqa: FBT001
    """Be a rank that says when it has come to its function, and ends."""
    if torch:
        import torch as _  # noqa: F401
    os.write(arrive.fileno(), f"{time.monotonic():.6f}".ljust(STAMP_BYTES).encode())


def nothing(rank: int) -> None:
    """Be a rank that does nothing."""


def use_torch(rank: int) -> None:
    """Be a rank that uses torch."""
    import torch

    assert (torch.ones(8, 8) @ torch.ones(8, 8)).sum() == 512

"""The differences that are meant, each with its reason: the only place where a program is excused."""

from __future__ import annotations

# Name of a program -> ways, and why they differ from multiprocessing.
DECLARED: dict[str, tuple[tuple[str, ...], str]] = {}


def is_declared(program: str, way: str) -> bool:
    """Whether a program may leave something else by that way."""
    ways, _ = DECLARED.get(program, ((), ""))
    return way in ways

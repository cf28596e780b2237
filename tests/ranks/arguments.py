"""Arguments that ranks are given: what they pickle, count and refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.ranks.endings import raise_value_error


class Registered:
    """An argument for which a test registers a reducer, as libraries do that share something."""


def rebuild_registered() -> Registered:
    """Make one again."""
    return Registered()


def take_argument(rank: int, _argument: Any) -> None:
    """Take an argument."""


def expect(rank: int, first: str, second: str) -> None:
    """Check two letters."""
    assert (first, second) == ("a", "b")


def expect_same(rank: int, first: object, second: object) -> None:
    """Check that two arguments are one."""
    assert first is second


class Worker:
    """An object whose bound methods are given as `fn`."""

    def __init__(self, base: int) -> None:
        """Keep what tells this object from another one."""
        self.base = base

    def put(self, rank: int, queue: Any) -> None:
        """Say which rank of which object this is."""
        queue.put(self.base + rank)

    def wrap(self, rank: int, function: Callable[..., Any], args: Any, kwargs: Any, queue: Any) -> None:
        """Call the user's function as Lightning's launcher does."""
        result = function(*args, **kwargs)
        if rank == 0:
            queue.put(result)

    def __call__(self, rank: int, queue: Any) -> None:
        """Be `fn` itself."""
        self.put(rank, queue)


class WaitsForByte:
    """An argument whose unpickling waits for a byte at a FIFO."""

    def __init__(self, path: str) -> None:
        """Name the FIFO."""
        self.path = path

    def __reduce__(self) -> Any:
        """Wait on the other side."""
        return _read_a_byte, (self.path,)


def _read_a_byte(path: str) -> str:
    file = os.open(path, os.O_RDONLY)
    os.read(file, 1)
    os.close(file)
    return path


class BreaksOnArrival:
    """An argument whose unpickling raises."""

    def __reduce__(self) -> Any:
        """Raise on the other side."""
        return raise_value_error, ("broken on arrival",)


class RefusesToPickle:
    """An argument that can't be pickled."""

    def __reduce__(self) -> Any:
        """Raise on this side."""
        raise TypeError("refuses to be pickled")


class OwnPicklingError(Exception):
    """An exception whose arguments aren't a text."""


class RefusesInItsOwnWay:
    """An argument that can't be pickled, and says so in its own way."""

    def __reduce__(self) -> Any:
        """Raise on this side."""
        raise OwnPicklingError(7, "seven")


class CountsPickles:
    """An argument that counts how often it is pickled."""

    pickles = 0

    def __reduce__(self) -> Any:
        """Count."""
        type(self).pickles += 1
        return CountsPickles, ()


class Index:
    """A number by `__index__` alone, as numpy's are."""

    def __init__(self, value: int) -> None:
        """Keep the number."""
        self.value = value

    def __index__(self) -> int:
        """Be the number."""
        return self.value


def accept(rank: int, _argument: object) -> None:
    """Take an argument and end well."""


def check_length(rank: int, data: bytes, expected: int) -> None:
    """Fail if the data is not as long as it was."""
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes instead of {expected}")

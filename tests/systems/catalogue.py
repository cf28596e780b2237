"""Which Pythons are tried on which systems, and how they come there."""

from __future__ import annotations

from typing import NamedTuple

# The Pythons of Debian sid that are copied to another system, which must have the libraries that they load.
COPIED = ("3.13", "3.14", "3.15")
COPIES = "/opt/sid"


class Python(NamedTuple):
    """An interpreter of a system.

    Attributes:
        name: by which it is chosen on the command line.
        path: where it is.
        wheel: which one it is given: "native", with the C core, or "pure".
    """

    name: str
    path: str
    wheel: str = "native"


class System(NamedTuple):
    """A Debian suite, with what is installed beyond its minimum, and its Pythons.

    Attributes:
        copies: whether it has the Pythons of sid as well.
    """

    suite: str
    packages: tuple[str, ...]
    pythons: tuple[Python, ...]
    copies: bool = False

    def ids(self) -> list[str]:
        """The rows of the table that it is good for."""
        return [f"{self.suite}/{python.name}" for python in self.pythons]


SYSTEMS = {
    "trixie": System(
        "trixie",
        (
            *("python3", "python3-venv"),
            # What the copies load.
            *("libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libsqlite3-0", "libssl3t64", "libuuid1", "libzstd1"),
            "zlib1g",
        ),
        tuple(Python(version, f"{COPIES}/usr/bin/python{version}") for version in COPIED),
        copies=True,
    ),
    "sid": System(
        "sid",
        (
            *(f"python{version}{part}" for version in COPIED for part in ("", "-venv")),
            # psutil has no wheel for PyPy: pip compiles it.
            *("gcc", "libc6-dev", "pypy3", "pypy3-dev", "pypy3-venv"),
        ),
        (
            *(Python(version, f"/usr/bin/python{version}") for version in COPIED),
            Python("pypy3", "/usr/bin/pypy3", "pure"),
        ),
    ),
}  # fmt: skip

"""What this interpreter is, and which launchers serve here: `python -m tests.systems.probe` prints it as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import spawnx


def do_nothing(rank: int) -> None:
    """End at once."""


def facts() -> dict[str, object]:
    """What the table says of this interpreter."""
    launchers = {}
    for method in ("spawn", "fork", "forkserver"):
        context = spawnx.start_processes(do_nothing, nprocs=2, join=False, start_method=method)
        assert context is not None
        launchers[method] = context.launcher
        context.join_all()
    return {
        "python": f"{platform.python_implementation()} {_version()}",
        "libc": _libc(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "backend": spawnx.backend,
        "launchers": launchers,
        "file": spawnx.__file__,
    }


def _version() -> str:
    """PyPy has one of its own, beside that of the language."""
    own = getattr(sys, "pypy_version_info", None)
    language = platform.python_version()
    return f"{own.major}.{own.minor}.{own.micro} ({language})" if own else language


def _libc() -> str:
    """Musl has no function that returns its version: its loader writes it to stderr."""
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):  # a name that Python, or that libc, does not know
        loader = f"/lib/ld-musl-{platform.machine()}.so.1"
    done = subprocess.run([loader], stderr=subprocess.PIPE, text=True, check=False)
    versions = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("Version ")]
    return f"musl {versions[0]}"


if __name__ == "__main__":
    print(json.dumps(facts()))

"""Counts the system calls that a process makes between two marks in its own code, by strace(1)."""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_MARK = "/mark-for-strace"
_CALL = re.compile(r"(\w+)\(")


def missing() -> str | None:
    """Return why strace can't count calls on this machine; None if it can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "strace is not installed"
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode != 0:
        return "strace may not trace here"
    return None


def mark() -> None:
    """Begin or end the count. Called in the traced process."""
    os.access(_MARK, os.F_OK)


def count(code: str, root: Path) -> list[collections.Counter[str]]:
    """Run Python code in `root`. Return its own system calls, without those of its children, for each pair of marks."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace")
        subprocess.run(["strace", "-o", str(trace), sys.executable, "-c", code], cwd=root, check=True)
        parts: list[collections.Counter[str]] = []
        counting = False
        with trace.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if _MARK in line:
                    counting = not counting
                    parts += [collections.Counter()] * counting
                elif counting and (call := _CALL.match(line)):  # not: signals, and ends of split lines
                    parts[-1][call[1]] += 1
    return parts

"""Files in memory, which processes share: made by memfd_create(2), or without a name in the temporary directory."""

from __future__ import annotations

import os

from spawnx.backends.contract import FORBIDDEN
from spawnx.standard import standard_library


def to_memory(name: str, data: memoryview) -> int:
    """A file in memory that holds `data` (memfd_create(2)); the caller closes it. `name` is what /proc shows."""
    file = _open_memory(name)
    append(file, data)
    return file


def append(file: int, data: memoryview) -> None:
    """Write all of `data` behind what was written to a file before."""
    while data:
        data = data[os.write(file, data) :]


def _open_memory(name: str) -> int:
    try:
        return os.memfd_create(name)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
    with standard_library():
        import tempfile

    # A file without a name: none is left, whatever happens. On a disk perhaps, where it costs more.
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())

"""Files in memory that processes share: by memfd_create(2), or else nameless files in the temporary directory."""

from __future__ import annotations

import os

from spawnx.backends.contract import FORBIDDEN
from spawnx.standard import standard_library


def to_memory(name: str, data: memoryview) -> int:
    """Make a file in memory that contains `data`; the caller closes it. /proc shows `name`."""
    file = _open_memory(name)
    append(file, data)
    return file


def append(file: int, data: memoryview) -> None:
    """Write all of `data` at the current offset of a file: after earlier writes."""
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

    # A file without a name is never left behind. It may be on a disk, which costs more.
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())

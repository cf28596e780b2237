"""Code of the campaign `orphans` that runs in a template: it stops the template half-way, and reports that."""

from __future__ import annotations

import time
from pathlib import Path


def stop_after(clones: int, fifo: str) -> None:
    """Stop this template after `clones` clones, and write a byte to `fifo`."""
    from spawnx.ipc.pid_table import Table

    note = Table.note

    def note_and_stop(table: Table, position: int, pid: int) -> None:
        note(table, position, pid)
        if position == clones - 1:
            Path(fifo).write_bytes(b".")
            while True:
                time.sleep(1)

    Table.note = note_and_stop  # type: ignore[method-assign]

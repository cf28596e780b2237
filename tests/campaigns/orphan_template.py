"""What a run of the campaign of orphans does in a template: it stops half-way, and says so."""

from __future__ import annotations

import time
from pathlib import Path


def stop_after(clones: int, fifo: str) -> None:
    """Have this template make so many clones, tell by a byte in `fifo`, and go no further."""
    from spawnx.ipc.pid_table import Table

    note = Table.note

    def note_and_stop(table: Table, position: int, pid: int) -> None:
        note(table, position, pid)
        if position == clones - 1:
            Path(fifo).write_bytes(b".")
            while True:
                time.sleep(1)

    Table.note = note_and_stop  # type: ignore[method-assign]

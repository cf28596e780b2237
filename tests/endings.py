"""How a cloned rank ends: seen by the rank itself, from a module that holds nothing of the program's."""

from __future__ import annotations

import os
import sys
from functools import partial


def note_into(pipe: int) -> None:
    """Write into a pipe how this rank ends, unless as CPython has it: "s" for the short end, "c" for the cut one."""
    from spawnx.backends import native

    # Nothing by a global name: this module is cleared before it is called.
    native.leave = partial(_note, partial(os.write, pipe), sys.is_finalizing, native.leave)  # type: ignore[assignment]


def _note(write: partial[int], is_finalizing: object, leave: object, code: int) -> None:
    write(b"c" if is_finalizing() else b"s")  # type: ignore[operator]
    leave(code)  # type: ignore[operator]

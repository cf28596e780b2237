"""What ranks run in the tests, by subject: importable by name, and free of imports that a rank would have to pay for.

Functions named after what a rank does take its index first. `tests.ranks.NAME` finds a name in the subject that has it.
A rank imports that subject only.
"""

from __future__ import annotations

import importlib
from typing import Any

SUBJECTS = ("answers", "arguments", "endings", "gates", "sharing", "training", "waits")


def __getattr__(name: str) -> Any:
    """Find a name among the subjects."""
    for subject in SUBJECTS if not name.startswith("__") else ():
        module = importlib.import_module(f"{__name__}.{subject}")
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"no subject of {__name__} has {name}")

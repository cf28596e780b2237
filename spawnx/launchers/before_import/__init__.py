"""Which modules a template may import before its ranks run the main module.

A module may be imported there if ranks do nothing before their own first import of it that could make a difference to
that import. So the source of the main module is walked, statement by statement, as a rank executes it; the program's
own modules where it imports them; then the module of the function. The walk ends at the first statement of which it
can't be told what it does. What was imported until then may be preloaded.

Nothing is executed here. The layers: `source` (syntax trees), `names` (what a name stands for), `values` (what is
known, the environment above all), `imports`, `expressions`, `statements`; `harmless` has the calls that are known.
"""

from __future__ import annotations

import os
import sys

from spawnx import vetted
from spawnx.launchers.before_import.imports import Enough
from spawnx.launchers.before_import.names import CantTell
from spawnx.launchers.before_import.source import state_of
from spawnx.launchers.before_import.statements import Walk
from spawnx.mp import interpreter
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class _Decision:
    """What may be imported before, and what that depends on.

    Attributes:
        modules: in the order in which ranks import them.
        why: why there aren't more; "" if all that is walked is known.
    """

    __slots__ = ("_environment", "_files", "modules", "why")

    def __init__(self, candidates: Sequence[str], name: object, path: object, of_function: str) -> None:
        walk = Walk(candidates)
        self.why = ""
        try:
            walk.run(name, path, of_function)
        except Enough:
            pass
        except CantTell as answer:
            self.why = str(answer)
        except RecursionError:
            self.why = "the main module is nested too deeply to be looked at"
        else:
            # Main module and function were found, and nothing was in the way. Vetted modules that weren't imported on
            # the way are imported by the function, which may set the environment before.
            walk.reached += [name for name in walk.left if not vetted.is_vetted(name)]
        self.modules = tuple(walk.reached)
        self._files, self._environment = walk.files.states, walk.environment

    def holds(self) -> bool:
        """Whether files and environment are as they were."""
        return all(os.environ.get(name) == value for name, value in self._environment.items()) and all(
            state_of(path) == state for path, state in self._files.items()
        )


# What a rank has of multiprocessing before it comes to the main module.
_OF_EVERY_RANK = frozenset(
    f"multiprocessing.{name}"
    for name in ("context", "popen_fork", "process", "reduction", "resource_tracker", "spawn", "util")
)
_decisions: dict[tuple[object, ...], _Decision] = {}
# More programs aren't in one process, but as many lists of candidates may be: modules are imported from call to call.
_MOST_DECISIONS = 64


def unaffected(candidates: Sequence[str], of_function: str) -> tuple[str, ...]:
    """Those of some modules that ranks import before they do anything that might change what these imports do.

    Args:
        candidates: names of vetted modules and of the standard library's.
        of_function: the name of the module that ranks import to find their function, after the main module.

    Raises:
        RuntimeError: this process is itself importing its main module for a rank, which has no main guard.
    """
    candidates = [name for name in candidates if name not in _OF_EVERY_RANK]
    preparation = interpreter.preparation_data("")
    main = preparation.get("init_main_from_name"), preparation.get("init_main_from_path")
    key = (*main, of_function, *candidates)
    decision = _decisions.get(key)
    if decision is None or not decision.holds():
        if len(_decisions) >= _MOST_DECISIONS:
            _decisions.clear()
        decision = _decisions[key] = _Decision(candidates, *main, of_function)
    if "logging" in sys.modules:
        _tell(sorted(set(candidates) - set(decision.modules)), decision.why)
    return decision.modules


def _tell(left_out: list[str], why: str) -> None:
    """Say at DEBUG what is not preloaded, and why."""
    with standard_library():
        import logging

    if left_out:
        why = why or "neither the main module nor that of the function imports them"
        logging.getLogger("spawnx").debug("not preloaded: %s; %s", ", ".join(left_out), why)

"""Decide which modules a template may import before its ranks run the main module.

A template may import a module if ranks do nothing before their own first import of it that could change that import.
So this package walks the source of the main module, statement by statement, as a rank executes it. It walks each of the
program's own modules at its import, and the module of the function last. The walk ends at the first statement whose
effects it can't determine. The modules imported until then may be preloaded.

The walk executes nothing. The layers are `source` (syntax trees), `names` (the meanings of names), `values` (known
values, above all of the environment), `imports`, `expressions` and `statements`. `harmless` lists the known calls.
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
    """The modules that may be preloaded, and the files and variables that the decision depends on.

    Attributes:
        modules: their names, in the order in which ranks import them.
        why: why the walk ended early; "" if it came to its end.
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
            self.why = "the main module is nested too deeply to be analysed"
        else:
            # The walk came to its end. Any candidate of the standard library may be preloaded. A vetted module that was
            # not reached may not: the function may import it, and set the environment before.
            walk.reached += [name for name in walk.left if not vetted.is_vetted(name)]
        self.modules = tuple(walk.reached)
        self._files, self._environment = walk.files.states, walk.environment

    def holds(self) -> bool:
        """Return whether the files and variables are unchanged, so that the decision still holds."""
        return all(os.environ.get(name) == value for name, value in self._environment.items()) and all(
            state_of(path) == state for path, state in self._files.items()
        )


# The modules of multiprocessing that each rank imports before the main module.
_OF_EVERY_RANK = frozenset(
    f"multiprocessing.{name}"
    for name in ("context", "popen_fork", "process", "reduction", "resource_tracker", "spawn", "util")
)
_decisions: dict[tuple[object, ...], _Decision] = {}
# One process has one program, but many lists of candidates: it may import more modules between calls.
_MOST_DECISIONS = 64


def unaffected(candidates: Sequence[str], of_function: str) -> tuple[str, ...]:
    """Return the candidates that ranks import before they do anything that might change these imports.

    Args:
        candidates: names of vetted modules and of modules of the standard library.
        of_function: the name of the function's module. Ranks import it after the main module.

    Raises:
        RuntimeError: this process is a rank that is importing its main module, which has no main guard.
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
    """Log at DEBUG which candidates are not preloaded, and why."""
    with standard_library():
        import logging

    if left_out:
        why = why or "neither the main module nor that of the function imports them"
        logging.getLogger("spawnx").debug("not preloaded: %s; %s", ", ".join(left_out), why)

"""Programs that test with a clock of their own making: frozen, or set to another time."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest

from tests.support import QUICK, Impl, Program

# By whom the clock is changed: the import that it takes, and what is entered.
CLOCKS = {
    "freezegun": ("freezegun", "freezegun.freeze_time('2024-02-14')"),
    "time_machine": ("time_machine", "time_machine.travel('2024-02-14', tick=False)"),
    "mock": ("unittest.mock", "unittest.mock.patch('time.monotonic', return_value=7.0)"),
}
# The modules of spawnx are loaded while the clock is changed: the program has only imported the package.
SOURCE = """
    import {module}
    from tests import ranks

    if __name__ == "__main__":
        with {changed}:
            mp.start_processes(ranks.nothing, (), 2, start_method={method!r})
            gate = ranks.Gate(mp.get_context({method!r}))
            args = 1, gate, ranks.raise_value_error, "broken"
            context = mp.start_processes(ranks.{function}, args, 2, join=False, start_method={method!r})
            gate.wait_for()
            gate.let()
            try:
                while not context.join(grace_period={grace}):
                    pass
            except mp.ProcessRaisedException as error:
                print(error.error_index, [process.exitcode for process in context.processes])
"""


def output(program: Program, clock: str, method: str, function: str, grace: float | None = None) -> list[str]:
    """What the program prints."""
    module, changed = CLOCKS[clock]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    source = SOURCE.format(module=module, changed=changed, method=method, function=function, grace=grace)
    return program.output(source)


def test_frozen_clock_does_not_hold_join_up(program: Program, start_method: str) -> None:
    """Success and failure are known as ever, and the others are ended."""
    assert ["1 [-15, 1]"] == output(program, "freezegun", start_method, "one_does_others_stay")


@pytest.mark.parametrize("clock", CLOCKS)
def test_changed_clock_does_not_hold_the_ladder_up(impl: Impl, program: Program, clock: str) -> None:
    """A rank that ignores SIGTERM is killed when the grace is over, which no clock of the program's says."""
    if impl.is_torch and clock != "time_machine":
        pytest.skip("the reference waits by the clock that stands still")
    began = time.monotonic()
    printed = output(program, clock, QUICK, "one_does_others_ignore_sigterm", 0.5)

    assert ["1 [-9, 1]"] == printed
    assert time.monotonic() - began >= 1

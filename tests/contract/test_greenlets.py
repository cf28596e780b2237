"""Programs with a loop of their own, which goes on while ranks are waited for: gevent, eventlet, asyncio."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from tests.support import Program, needs_fork

# Of 200, once in 10 ms while ranks run for 2 s: fewer on a machine that is busy, none if the thread is blocked.
ENOUGH = 50
PATCHES = {
    "gevent": "from gevent import monkey, sleep, spawn; monkey.patch_all()",
    "eventlet": "import eventlet; from eventlet import sleep, spawn; eventlet.monkey_patch()",
}
GREENLETS = """
    from tests import ranks

    count = 0

    def go_on():
        global count
        while True:
            sleep(0.01)
            count += 1

    if __name__ == "__main__":
        spawn(go_on)
        context = mp.start_processes(ranks.rest, (2.0,), 2, join=False, start_method={method!r})
        before = count
        while not context.join():
            pass
        print(count - before)
        try:
            args = 1, ranks.raise_value_error, "broken"
            mp.start_processes(ranks.one_does_others_wait, args, 2, start_method={method!r})
        except mp.ProcessRaisedException as error:
            print(error.error_index)
"""
TASKS = """
    import asyncio
    from tests import ranks

    count = 0

    async def go_on():
        global count
        while True:
            await asyncio.sleep(0.01)
            count += 1

    async def main():
        task = asyncio.create_task(go_on())
        context = mp.start_processes(ranks.rest, (2.0,), 2, join=False, start_method="fork")
        before = count
        while not await asyncio.get_running_loop().run_in_executor(None, context.join):
            pass
        print(count - before)
        before = count
        # Not by fork: in a rank forked in an executor's thread CPython would join that thread at the end.
        await asyncio.to_thread(mp.spawn, ranks.rest, (2.0,), 2)
        print(count - before)
        task.cancel()

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("library", PATCHES)
@needs_fork
def test_other_greenlets_go_on_while_ranks_are_waited_for(
    program: Program, library: str, method: str
) -> None:
    """Where the library has replaced what waits, its own way of waiting is used; a failure is told as ever."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    if program.impl.is_torch and method == "spawn":
        pytest.skip("the reference imports torch in each rank, for longer than the test takes")
    # Before all else, as their manuals demand.
    path = program.write(GREENLETS.format(method=method))
    path.write_text(f"{PATCHES[library]}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    done = program.run_command([sys.executable, "-W", "ignore", str(path)])
    count, failed = done.stdout.split()

    assert int(count) >= ENOUGH
    assert "1" == failed


@needs_fork
def test_other_tasks_go_on_while_ranks_are_waited_for(program: Program) -> None:
    """Beside an executor's thread that joins, and beside one that makes the whole call."""
    if program.impl.is_torch:
        pytest.skip("the reference imports torch in each rank, for longer than the test takes")
    counts = [int(line) for line in program.output(TASKS)]

    assert 2 == len([count for count in counts if count >= ENOUGH])

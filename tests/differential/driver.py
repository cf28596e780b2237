"""The supervisor of a run: starts one rank for each program, by one way, and notes how each has ended.

A program of its own, so that ranks import next to nothing with it. Its one argument is a file with an `Order` as JSON.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess
    from typing import Any

# In the place of the exit code of a rank that had to be killed.
HUNG = "hung"


def work(rank: int, jobs: list[tuple[str, str]], *, in_main: bool) -> None:
    """Be one program: with its own standard streams, in its own folder.

    Args:
        rank: which of `jobs`.
        jobs: for each rank the name of the module, and the folder.
        in_main: whether the text of the module is run in the main module, as far as that can be done late.
    """
    name, folder = jobs[rank]
    os.chdir(folder)
    os.environ["TMPDIR"] = folder
    for fd, suffix in ((1, ".out"), (2, ".err")):
        opened = os.open(folder + suffix, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, fd)
        os.close(opened)
    if in_main:
        main = sys.modules["__main__"]
        with open(os.path.join(sys.path[0], name + ".py"), encoding="utf-8") as file:
            code = compile(file.read(), file.name, "exec")
        exec(code, vars(main))  # noqa: S102 - what the run is about
        main.work()
    else:
        __import__(name).work()


def work_in_main(rank: int, jobs: list[tuple[str, str]]) -> None:
    """Be one program, in the main module."""
    work(rank, jobs, in_main=True)


def work_in_module(rank: int, jobs: list[tuple[str, str]]) -> None:
    """Be one program, in a module that the rank imports."""
    work(rank, jobs, in_main=False)


def start(
    order: dict[str, Any], fn: Callable[..., object], args: tuple[object, ...], count: int
) -> list[BaseProcess]:
    """Start ranks by the way of `order`; nobody sees to their failures."""
    if order["spawnx"]:
        import spawnx

        method, preload = order["method"], order["preload"]
        context: Any = spawnx.start_processes(
            fn, args, count, join=False, start_method=method, preload=preload
        )
        if context.launcher != order["launcher"] and "jobs" in order:  # start-up code may forbid it
            raise RuntimeError(f"served by {context.launcher}, not by {order['launcher']}")
        return list(context.processes)
    import multiprocessing

    method = multiprocessing.get_context(order["method"])
    processes = [method.Process(target=fn, args=(rank, *args)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def end(processes: Iterable[BaseProcess], limit: float) -> list[int | str]:
    """Wait until ranks have ended, `limit` seconds at most; returns their exit codes, and `HUNG` for others."""
    import time

    until = time.monotonic() + limit
    codes: list[int | str] = []
    for process in processes:
        process.join(max(0, until - time.monotonic()))
        code: int | str | None = process.exitcode
        if code is None:
            process.kill()
            process.join()
            code = HUNG
        codes.append(code)
    return codes


def note(order: dict[str, Any], processes: list[BaseProcess], names: Iterable[str]) -> None:
    """Wait for ranks, and write how they have ended, and by which pid they were known."""
    import json

    ends = zip(names, end(processes, order["limit"]), processes, strict=True)
    with open(order["result"], "a", encoding="utf-8") as file:
        file.writelines(json.dumps([name, code, process.pid]) + "\n" for name, code, process in ends)


def read_order(path: str) -> dict[str, Any]:
    """What a run is to do, which `differential.run` has written."""
    import json

    with open(path, encoding="utf-8") as file:
        order: dict[str, Any] = json.load(file)
    return order


def run_script(fn: Callable[..., object]) -> None:
    """Run one program, as a script that calls this: the environment has the order."""
    import logging

    logging.disable()  # what this process has to say would stand in the rank's stderr
    order = read_order(os.environ["DIFFERENTIAL_ORDER"])
    note(order, start(order, fn, (), 1), [order["name"]])


def main() -> None:
    """Run all programs of the order, some at a time."""
    order = read_order(sys.argv[1])
    # In the place of this file's own folder.
    sys.path[0] = order["modules"]
    fn = work_in_main if order["in_main"] else work_in_module
    jobs: list[tuple[str, str, str]] = order["jobs"]
    for at in range(0, len(jobs), order["at_a_time"]):
        some = jobs[at : at + order["at_a_time"]]
        for _, _, folder in some:
            os.mkdir(folder)
        processes = start(order, fn, ([(module, folder) for _, module, folder in some],), len(some))
        note(order, processes, [name for name, _, _ in some])


if __name__ == "__main__":
    main()

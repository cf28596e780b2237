"""Ranks of the start method spawn are fresh interpreters, by whatever they were made: cloned ones, too."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support import HAS_PIDFD, ROOT, Program, linux_only

pytestmark = [linux_only, pytest.mark.fresh]

# Starts two ranks, and says what they put into a queue, in the order of what they put; and which launcher served.
RUN = f"""
    import json, multiprocessing, os, signal, sys
    sys.path.append({str(ROOT)!r})
    from tests import interpreter

    def told(fn, count=2, args=()):
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        context = mp.spawn(fn, (queue, *args), count, join=False)
        launchers.append(getattr(context, "launcher", None))
        found = sorted((queue.get() for _ in range(count)), key=repr)
        try:
            while not context.join():
                pass
        except mp.ProcessExitedException:
            context.join()
        return found

    launchers = []
"""


def run(program: Program, source: str, *arguments: str, **options: Any) -> Any:
    """What a program with `told` prints as JSON in its last line; its ranks were made as they were to be."""
    command = program.command(_whole(program, source), *arguments)
    return told_by(program, command, **options)


def _whole(program: Program, source: str) -> str:
    """The source of a program that has `told`."""
    launcher = {"native": "clone", "torch": None}.get(program.impl.name, "exec" if HAS_PIDFD else "stdlib")
    end = f"\n    assert launchers == [{launcher!r}] * len(launchers), launchers\n"
    return textwrap.dedent(RUN) + textwrap.dedent(source) + end


def told_by(program: Program, command: list[str], **options: Any) -> Any:
    """What a command that must end well, and quietly, prints as JSON."""
    done = program.run_command(command, **options)

    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


# What a rank is in

DESCRIBE = """
    import ctypes, resource

    if __name__ == "__main__":
        # What may be handed on to a child, other than it was when this program, and its threads, began.
        for _ in range({calls}):
            told(interpreter.put_description, 1)
        os.environ["SET_LATE"] = "by this program"
        os.putenv("KNOWN_TO_LIBC", "alone")
        os.chdir(sys.argv[1])
        os.umask(0o027)
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        # These are the calling thread's own.
        os.nice(3)
        interpreter.schedule_as_batch()
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        sys.setrecursionlimit(777)
        sys.path.append("/nowhere")
        multiprocessing.current_process().authkey = b"of our own"
        signal.signal(signal.SIGUSR1, print)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGHUP, signal.SIGWINCH}})
        signal.setitimer(signal.ITIMER_REAL, 1000)

        queue = multiprocessing.get_context("spawn").SimpleQueue()
        plain = multiprocessing.get_context("spawn").Process(target=interpreter.put_description, args=(0, queue))
        plain.start()
        expected = queue.get()
        plain.join()
        found = told(interpreter.put_description, {ranks})
        alike = interpreter.without_faulthandler
        print(json.dumps([alike(expected), [alike(one) for one in found], interpreter.flags()], default=repr))
"""


@pytest.mark.torch_spawn
@pytest.mark.parametrize(
    "options",
    [
        "-O -s -X utf8=1 -X faulthandler -W ignore::UserWarning -W error::BytesWarning",
        "-I -bb -q -B -X own=option -X tracemalloc=3",
        "-X dev -E -u -OO",
    ],
    ids=["optimised", "isolated", "development"],
)
def test_rank_is_in_what_a_process_of_multiprocessings_is_in(
    program: Program, options: str, tmp_path: Path
) -> None:
    """Flags, options, environment, folder, handlers, mask, limits, rights, streams: as they are at the call."""
    if program.impl.is_torch and "faulthandler" not in options:
        pytest.skip("the reference makes them by multiprocessing: asked once")
    program = dataclasses.replace(program, options=tuple(options.split()))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = DESCRIBE.format(calls=0 if program.impl.is_torch else 1, ranks=1 if program.impl.is_torch else 2)
    expected, found, flags = run(program, source, str(elsewhere))

    assert [expected] * len(found) == found
    assert str(elsewhere) == expected["cwd"]
    assert flags == expected["flags"]


# The main module

MAIN = """
    SEEN = __name__

    class Thing:
        pass

    if __name__ == "__main__":
        # A __main__.py is not imported again, which is multiprocessing's own rule: nothing of it can be pickled.
        (found,) = told(interpreter.put_main, 1, (Thing() if "file" in sys.argv else None,))
        print(json.dumps(found))
"""


@pytest.mark.torch_spawn
@pytest.mark.parametrize("how", ["script", "module", "folder", "package"])
def test_main_module_is_there_under_both_of_its_names(program: Program, how: str, tmp_path: Path) -> None:
    """Imported as `__mp_main__`, however the program was started; what is pickled from it is of the same class."""
    if program.impl.is_torch and how not in ("script", "module"):
        pytest.skip("the reference makes them by multiprocessing: asked twice")
    source = _whole(program, MAIN)
    file = {"script": "program.py", "module": "named.py"}.get(how, "pack/__main__.py")
    path = program.write(source, file)
    if how == "package":
        path.with_name("__init__.py").touch()
    started = {"script": [str(path)], "module": ["-m", "named"], "folder": [str(path.parent)]}.get(
        how, ["-m", "pack"]
    )
    imported = how in ("script", "module")
    command = [sys.executable, *started, "file" if imported else "folder"]
    found = told_by(program, command, cwd=tmp_path)

    assert {
        "name": "__mp_main__" if imported else "__main__",
        "file": path.name if imported else None,
        "is __mp_main__": True,
        "seen at its import": "__mp_main__" if imported else None,
        "class": ["__mp_main__", True] if imported else None,
        "argv": command[-1:],
    } == found


# The interpreter


@pytest.mark.torch_spawn
def test_ranks_run_in_the_interpreter_that_was_set(program: Program, tmp_path: Path) -> None:
    """`multiprocessing.set_executable`: here a script that says so in the environment, and becomes the interpreter."""
    script = tmp_path / "wrapper"
    script.write_text(f'#!/bin/sh\nSTARTED_BY=wrapper exec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    found = run(
        program,
        """
        if __name__ == "__main__":
            multiprocessing.set_executable(sys.argv[1])
            print(json.dumps(told(interpreter.put_executable, 1)))
        """,
        str(script),
    )

    assert [[0, "wrapper", os.path.basename(sys.executable)]] == found


@pytest.mark.torch_spawn
def test_input_of_the_program_is_not_the_ranks(program: Program) -> None:
    """Theirs is empty, and nothing of the supervisor's is read."""
    source = """
        if __name__ == "__main__":
            first = sys.stdin.readline()
            ranks = told(interpreter.put_input, 1)
            print(json.dumps([ranks, first, sys.stdin.readline()]))
    """

    assert [[[0, ""]], "one\n", "two\n"] == run(program, source, input="one\ntwo\n")


@pytest.mark.torch_spawn
def test_rank_and_what_it_starts_are_numbered_as_processes_are(program: Program) -> None:
    """By their parent's number and their own, also where processes were made before."""
    source = """
        if __name__ == "__main__":
            multiprocessing.Process()
            print(json.dumps(told(interpreter.put_family)))
    """

    assert [
        [rank, f"SpawnProcess-{rank + 2}", [rank + 2], f"SpawnProcess-{rank + 2}:1", [rank + 2, 1]]
        for rank in range(2)
    ] == run(program, source)


# What ranks share with the supervisor


@pytest.mark.torch_spawn
def test_what_a_rank_has_made_is_there_after_its_end(program: Program) -> None:
    """There is one resource tracker: memory made in a rank lives on; it removes a killed rank's semaphore at exit."""
    source = f"""
        from multiprocessing.shared_memory import SharedMemory

        if __name__ == "__main__":
            multiprocessing.current_process()._config["semprefix"] = "/mp-of-this-test"
            found = []
            for rank, name in told(interpreter.make_shared_memory, {1 if program.impl.is_torch else 2}):
                memory = SharedMemory(name)
                found.append([rank, memory.buf[0]])
                memory.close()
                memory.unlink()
            names = [name for _, name in told(interpreter.make_semaphore_and_die, 1)]
            there = os.listdir("/dev/shm")  # glibc puts "sem." before the names of semaphores, musl nothing
            existed = [any(file.endswith(name[1:]) for file in there) for name in names]
            print(json.dumps([found, existed, names]))
    """
    done = program.run(_whole(program, source))
    found, existed, names = json.loads(done.stdout)

    assert [[rank, rank + 1] for rank in range(len(found))] == found
    assert [True] == existed
    assert "There appear to be 1 leaked semaphore objects to clean up at shutdown" in done.stderr
    assert [] == [name for name in os.listdir("/dev/shm") if name.endswith(names[0][1:])]  # noqa: S108


@pytest.mark.torch_spawn
def test_rank_has_no_file_but_what_it_was_given(program: Program) -> None:
    """Nothing of the supervisor's, however inheritable it is, and nothing of another rank's."""
    source = f"""
        from multiprocessing import resource_tracker

        if __name__ == "__main__":
            for fd in (os.open(__file__, os.O_RDONLY), *os.pipe()):
                os.set_inheritable(fd, True)
            queue, pipe = multiprocessing.get_context("spawn").SimpleQueue(), multiprocessing.Pipe()
            context = mp.spawn(interpreter.put_files, (queue, pipe[0]), {1 if program.impl.is_torch else 3}, join=False)
            found = [queue.get() for _ in range({1 if program.impl.is_torch else 3})]
            while not context.join():
                pass
            handed = queue._reader.fileno(), pipe[0].fileno(), resource_tracker.getfd()
            print(json.dumps([found, [os.readlink(f"/proc/self/fd/{{fd}}") for fd in handed]]))
    """
    found, handed = run(program, source)
    others = [[name for name in names if name not in handed] for names in found]

    assert [sorted(handed)] * len(found) == [sorted({*handed} & {*names}) for names in found]
    # Standard input, and what `parent_process()` waits for; the reference has pipes for that.
    if program.impl.is_torch:
        assert [os.devnull, "pipe", "pipe"] == [name.partition(":")[0] for name in others[0]]
    else:
        # And how a rank reaches its supervisor: the scoreboard, and the pipe of the notices. On PyPy a rank is armed by
        # ctypes, for which newer libffi keeps itself open.
        supervisor = ["anon_inode:[pidfd]"] if HAS_PIDFD else ["pipe", "pipe"]
        ours = [os.devnull, "/memfd:spawnx-scoreboard (deleted)", *supervisor, "pipe"]
        assert [ours] * len(found) == [
            [re.sub(r"pipe:.*", "pipe", name) for name in names if HAS_PIDFD or "/libffi.so" not in name]
            for names in others
        ]


# What a rank leaves


@pytest.mark.torch_spawn
def test_rank_that_crashes_prints_where(program: Program) -> None:
    """`-X faulthandler` is in force in ranks: cloned ones know their thread."""
    program = dataclasses.replace(program, options=("-X", "faulthandler"))
    done = program.run(
        """
        from tests import interpreter

        if __name__ == "__main__":
            mp.spawn(interpreter.segfault)
        """
    )

    assert "ProcessExitedException: process 0 terminated with signal SIGSEGV" in done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "in segfault" in done.stderr


@pytest.mark.parametrize("how", ["concurrency = multiprocessing", "patch = subprocess"])
def test_lines_that_only_ranks_run_are_measured(program: Program, how: str, tmp_path: Path) -> None:
    """coverage.py, by either of its ways into processes that are started."""
    coverage = [sys.executable, "-m", "coverage"]
    path = program.write(
        """
        def work(rank):
            if rank == 0:
                first = "in rank 0"
            else:
                second = "in rank 1"
            return rank  # 7

        if __name__ == "__main__":
            mp.spawn(work, (), 2)
        """
    )
    (tmp_path / ".coveragerc").write_text(
        f"[run]\nparallel = true\ninclude = {path}\n{how}\n", encoding="utf-8"
    )
    for arguments in (["run", str(path)], ["combine", "-q"], ["json", "-q", "-o", "told.json"]):
        done = program.run_command([*coverage, *arguments], cwd=tmp_path)
        assert (0, "") == (done.returncode, done.stderr)
    (told,) = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))["files"].values()

    assert [] == told["missing_lines"]

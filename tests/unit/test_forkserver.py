"""Ranks of the start method forkserver, cloned from a template that is kept: always as fresh as a fresh interpreter."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import spawnx
from spawnx import backends
from tests import interpreter, ranks
from tests.support import LONG_S, ROOT, START_METHODS, Impl, Program, finish, take
from tests.unit.test_clone_guards import output

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Programs of their own."""
    return Program(Impl("native"), tmp_path)


def told(fn: Any, count: int = 1, args: tuple[Any, ...] = (), **options: Any) -> list[Any]:
    """What ranks put into a queue, and that they were cloned from the zygote."""
    queue = spawnx.get_context("forkserver").SimpleQueue()
    context = spawnx.start_processes(
        fn, (queue, *args), count, join=False, start_method="forkserver", **options
    )
    assert context is not None
    finish(context)
    found = take(queue, count)
    queue.close()
    assert context.launcher == "forkserver"
    return found


def zygotes() -> list[int]:
    """The pids of the zygotes of this process."""
    mark = "spawnx.remote.zygote"
    children = psutil.Process().children()
    return [child.pid for child in children if any(mark in part for part in child.cmdline())]


# One for all calls


def test_zygote_serves_call_after_call() -> None:
    """It is the same process, and no template of a call is left."""
    pids = [told(ranks.put_pid, 2) and zygotes() for _ in range(3)]

    assert 1 == len(pids[0])
    assert [pids[0]] * 3 == pids


def test_ranks_are_children_of_the_supervisor_and_known_as_the_start_methods() -> None:
    """Real exit codes; names as multiprocessing gives them."""
    context = spawnx.start_processes(ranks.exit_7, (), 1, join=False, start_method="forkserver")
    assert context is not None
    (process,) = context.processes
    parent = psutil.Process(process.pid).ppid()
    with pytest.raises(spawnx.ProcessExitedException) as raised:
        finish(context)

    assert os.getpid() == parent
    assert 7 == raised.value.exit_code
    assert process.name.startswith("ForkServerProcess-")


def test_many_calls_leave_supervisor_and_template_as_they_were() -> None:
    """Neither memory nor files grow; `benchmarks/bench_forkserver.py` does it a thousand times."""

    def sizes() -> list[int]:
        (pid,) = zygotes()
        return [
            size
            for process in (psutil.Process(), psutil.Process(pid))
            for size in (process.num_fds(), process.num_threads())
        ]

    told(ranks.put_pid)
    before = sizes()
    for _ in range(20):
        told(ranks.put_pid)

    assert before == sizes()


# What a rank is in

CHANGES = {
    "environment": 'os.environ["SET"] = "late"; os.putenv("KNOWN_TO_LIBC", "alone")',
    "environment, taken back": 'del os.environ["SET"]; os.unsetenv("KNOWN_TO_LIBC")',
    "folder": "os.chdir(sys.argv[1])",
    "umask": "os.umask(0o027)",
    "soft limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
    "processors": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "processors, taken back": "os.sched_setaffinity(0, processors)",
    "path": 'sys.path.append("/nowhere")',
    "arguments": 'sys.argv.append("late")',
    "authkey": 'multiprocessing.current_process().authkey = b"of our own"',
    "mask": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})",
    "handler": "signal.signal(signal.SIGUSR1, print)",
    "output": "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
}
# These are given by who starts a process, or are read when it starts.
CHANGES_OF_THE_TEMPLATE = {
    "size of stacks": "resource.setrlimit(resource.RLIMIT_STACK, (1 << 24, -1))",
    "ignored signal": "signal.signal(signal.SIGUSR2, signal.SIG_IGN)",
    "session": "os.setsid()",
    "hard limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 3000))",
    "nice": "os.nice(3)",
    "scheduling": "interpreter.schedule_as_batch()",
    "rights": "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS",
    "warnings": 'sys.warnoptions.append("ignore::UserWarning")',
    "Python's own variable": 'os.environ["PYTHONUTF8"] = "1"',
    "a library's variable": 'os.environ["OMP_NUM_THREADS"] = "1"',
    "out-of-memory score": 'open("/proc/self/oom_score_adj", "w").write("7")',
}
EACH_CHANGE = """
    import ctypes, json, multiprocessing, os, psutil, resource, signal, sys
    from tests import interpreter

    def of_rank():
        queue = multiprocessing.get_context("forkserver").SimpleQueue()
        context = mp.start_processes(
            interpreter.put_description, (queue,), 1, join=False, start_method="forkserver"
        )
        found = queue.get()
        while not context.join():
            pass
        return context.launcher, found

    def of_process():
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        process = multiprocessing.get_context("spawn").Process(
            target=interpreter.put_description, args=(0, queue)
        )
        process.start()
        found = queue.get()
        process.join()
        return found

    def kept():
        mark = "spawnx.remote.zygote"
        return [child.pid for child in psutil.Process().children() if mark in " ".join(child.cmdline())]

    if __name__ == "__main__":
        processors = os.sched_getaffinity(0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        told = []
        of_rank()
        for name, change in json.loads(sys.argv[2]).items():
            before = kept()
            exec(change)
            launcher, found = of_rank()
            found, expected = map(interpreter.without_faulthandler, (found, of_process()))
            for one in (found, expected):
                del one["type"], one["main"]  # these say the start method
            wrong = {key: [found[key], expected[key]] for key in expected if found[key] != expected[key]}
            told.append([name, launcher, before == kept(), repr(wrong)])
        with open(sys.argv[3], "w") as file:
            json.dump(told, file)
"""


@pytest.mark.parametrize(
    ("changes", "stays"), [(CHANGES, True), (CHANGES_OF_THE_TEMPLATE, False)], ids=["taken on", "renewed"]
)
def test_whatever_has_changed_since_the_last_call_is_so_in_the_ranks(
    changes: dict[str, str], stays: bool, program: Program, tmp_path: Path
) -> None:
    """As in a fresh interpreter that is started at the same moment; where that can't be, by another template."""
    out = tmp_path / "out"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = program.command(EACH_CHANGE, str(elsewhere), json.dumps(changes), str(out))
    done = program.run_command(command)
    assert done.returncode == 0, done.stderr

    assert [[name, "forkserver", stays, "{}"] for name in changes] == json.loads(
        out.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_stream_that_is_closed_is_closed_in_ranks(
    start_method: str, program: Program, tmp_path: Path
) -> None:
    """As it is now, not as it was when the zygote started."""
    source = f"""
        import os, sys

        def rank(i, queue):
            queue.put(sys.stdout is None)

        if __name__ == "__main__":
            queue = mp.get_context("spawn").SimpleQueue()
            out = os.dup(1)
            found = []
            for closed in (False, True, False):
                os.close(1) if closed else os.dup2(out, 1)
                sys.stdout = None if closed else open(1, "w", closefd=False)
                mp.start_processes(rank, (queue,), 1, start_method={start_method!r})
                found.append(queue.get())
            print(found)
    """

    assert ["[False, True, False]"] == program.output(source)


def test_module_that_came_after_the_template_is_found(program: Program, tmp_path: Path) -> None:
    """Also in a folder that was looked at before it was there."""
    source = """
        import sys

        def load(rank, name):
            __import__(name)

        if __name__ == "__main__":
            folder = sys.argv[1]
            sys.path.append(folder)
            mp.start_processes(print, (), 1, start_method="forkserver")
            import os
            os.mkdir(folder)
            open(os.path.join(folder, "late.py"), "w").close()
            mp.start_processes(load, ("late",), 1, start_method="forkserver")
            print("found")
    """

    assert "found" == program.output(source, str(tmp_path / "late"))[-1]


def test_nothing_of_the_users_is_loaded_in_the_zygote() -> None:
    """What a call imports is gone with its ranks."""
    assert [True] * 4 == told(ranks.put_whether_made_here, 2) + told(ranks.put_whether_made_here, 2)


def test_random_numbers_differ_in_all_ranks_of_all_calls() -> None:
    """Their generator is renewed in each."""
    drawn = [told(ranks.put_random, 32, preload=["random"]) for _ in range(2)]

    assert 64 == len({*drawn[0], *drawn[1]})


def test_more_files_than_one_message_carries_arrive() -> None:
    """Pipes of 300 ends, as the parameters of a model in shared memory are."""
    pipes = [spawnx.get_context("forkserver").Pipe(duplex=False) for _ in range(150)]
    ends = [end for pipe in pipes for end in pipe]
    found = told(ranks.put_inodes, 1, (ends,))
    expected = [os.fstat(end.fileno()).st_ino for end in ends]
    for end in ends:
        end.close()

    assert [expected] == found


# Preload


@pytest.mark.torch
def test_torch_is_imported_once_for_all_calls(program: Program) -> None:
    """In the zygote: the ranks of the first call find it there, and those of the second."""
    source = """
        import logging, sys
        loaded = "torch" in sys.modules
        import torch
        logging.getLogger("spawnx").addHandler(logging.StreamHandler(sys.stdout))

        def rank(i, queue):
            queue.put((loaded, float(torch.rand(1, dtype=torch.float64))))

        if __name__ == "__main__":
            queue = mp.get_context("forkserver").SimpleQueue()
            for _ in range(2):
                mp.start_processes(rank, (queue,), 4, start_method="forkserver")
            found = [queue.get() for _ in range(8)]
            print(all(loaded for loaded, _ in found), len({drawn for _, drawn in found}))
    """
    assert ["True 8"] == program.output(source)


def test_call_that_wants_less_leaves_the_zygote(module: Callable[[str], str]) -> None:
    """A suite's tests differ in what may be preloaded: those without torch don't cost the others theirs."""
    name = module("VALUE = 7")
    told(ranks.put_whether_loaded, 1, (name,), preload=[name])
    before = zygotes()
    found = told(ranks.put_whether_loaded, 1, (name,), preload=())

    assert ([False], before) == (found, zygotes())
    assert 1 == len(before)


def test_preload_that_can_not_be_cloned_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; a template without it serves."""
    name = f"bad_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("raise ValueError('not today')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        told(ranks.put_pid, preload=[name])

    assert [
        f"the import of {name} raised ValueError: not today" in record.message for record in caplog.records
    ] == [True]


def test_what_a_preloaded_module_sets_in_the_environment_stands(program: Program) -> None:
    """Where the supervisor doesn't say otherwise: what the module sets is not set again when ranks import it."""
    (program.folder / "setter.py").write_text(
        "import os\nos.environ['SET_BY_MODULE'] = os.environ['SAID'] = 'module'", encoding="utf-8"
    )
    source = """
        import os

        def rank(i, queue):
            import setter
            queue.put([os.environ.get("SET_BY_MODULE"), os.environ.get("SAID")])

        if __name__ == "__main__":
            queue = mp.get_context("forkserver").SimpleQueue()
            os.environ["SAID"] = "program"
            mp.start_processes(rank, (queue,), 1, start_method="forkserver", preload=["setter"])
            print(*queue.get())
    """

    assert ["module program"] == program.output(source)


def test_named_module_is_the_one_that_the_path_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder before it is another template."""
    name = f"of_two_{tmp_path.name}"
    found = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        found += told(ranks.put_where, 1, (name,), preload=[name])

    assert ["first", "second"] == found


def test_processors_are_counted_anew_by_what_is_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries do when they are loaded: a template that was bound otherwise would say otherwise."""
    name = f"counts_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("import os\nVALUE = len(os.sched_getaffinity(0))", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = os.sched_getaffinity(0)
    found = told(interpreter.put_value, 1, (name,), preload=[name])
    os.sched_setaffinity(0, {min(before)})
    try:
        found += told(interpreter.put_value, 1, (name,), preload=[name])
    finally:
        os.sched_setaffinity(0, before)

    assert [(True, len(before)), (True, 1)] == found


def test_semaphore_of_a_preloaded_module_is_the_supervisors_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A tracker of the template's own would be a process, and so a reason to give the preload up."""
    name = f"locks_{tmp_path.name}"
    source = "import multiprocessing\nVALUE = multiprocessing.get_context('spawn').Lock().acquire()"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert [(True, True)] == told(interpreter.put_value, 1, (name,), preload=[name])
    assert [] == caplog.records


# Its end, and its substitutes


def test_template_whose_end_another_reaper_takes_has_served(program: Program) -> None:
    """Where SIGCHLD is ignored, the kernel is one: the ranks are known by what the template has noted."""
    source = """
        import signal, threading, time
        from tests import ranks

        if __name__ == "__main__":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            stop = threading.Event()

            def be_busy():
                while not stop.is_set():
                    sum(range(1000))

            busy = [threading.Thread(target=be_busy) for _ in range(4)]
            for one in busy:
                one.start()
            try:
                for _ in range(8):
                    context = mp.start_processes(ranks.nothing, (), 2, join=False, start_method="forkserver")
                    while not context.join():
                        pass
            finally:
                stop.set()
            print([process.exitcode for process in context.processes])
    """

    assert ["[0, 0]"] == program.output(source)


def test_supervisor_that_left_its_pid_namespace_for_its_children_gets_them_by_exec() -> None:
    """Their parent is nobody there: they could not tell whether it has adopted them."""
    source = """
        import ctypes, logging, os, subprocess, sys
        import spawnx
        from multiprocessing import resource_tracker
        from tests import ranks

        others = [subprocess.Popen(["sleep", "60"]) for _ in range(8)]
        assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID: for the children
        resource_tracker.ensure_running()  # the first process there, with which all others end
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="forkserver")
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
        print([other.poll() for other in others] == [None] * 8)
        for other in others:
            other.kill()
            other.wait()
    """
    if os.geteuid() != 0:
        pytest.skip("only root may make a pid namespace")
    reason, *lines = output(source).splitlines()[-3:]

    assert reason.startswith("ranks are started by exec, not cloned: the supervisor is seen as 0, not as ")
    assert ["exec [0, 0]", "True"] == lines


def test_template_without_proc_gives_way_to_exec() -> None:
    """What it would have to be like can't be told."""
    source = """
        import ctypes, spawnx
        from tests import ranks

        libc = ctypes.CDLL(None)
        assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
        assert libc.mount(b"none", b"/", None, (1 << 18) | (1 << 14), None) == 0  # MS_PRIVATE, MS_REC
        assert libc.umount2(b"/proc", 2) == 0  # MNT_DETACH
        context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="forkserver")
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """
    if os.geteuid() != 0:
        pytest.skip("only root may take its /proc away")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=LONG_S, check=False, cwd=ROOT,
    )  # fmt: skip

    assert (0, "exec [0, 0]\n") == (done.returncode, done.stdout)
    assert "not cloned: there is no /proc" in done.stderr


def test_template_that_has_died_is_replaced() -> None:
    """The next call notices."""
    told(ranks.put_pid)
    (pid,) = zygotes()
    os.kill(pid, signal.SIGKILL)
    told(ranks.put_pid)

    assert pid not in zygotes()


def test_interrupt_ends_a_call_whose_template_is_stopped(program: Program) -> None:
    """As a debugger or a batch system stops it: the next call has another one."""
    source = """
        import os, signal
        from spawnx.launchers import forkserver, zygote
        from tests import ranks

        def send(*arguments):
            real(*arguments)
            os.kill(os.getpid(), signal.SIGINT)

        if __name__ == "__main__":
            mp.start_processes(ranks.nothing, (), 2, start_method="forkserver")
            pid = forkserver._zygote._child._pid
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
            real, zygote._send = zygote._send, send
            try:
                mp.start_processes(ranks.nothing, (), 2, start_method="forkserver")
            except KeyboardInterrupt:
                print("interrupted")
            zygote._send = real
            context = mp.start_processes(ranks.nothing, (), 2, start_method="forkserver", join=False)
            while not context.join():
                pass
            print(context.launcher, pid == forkserver._zygote._child._pid)
    """
    done = subprocess.run(
        program.command(source),
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
        env=program.environment,
    )

    assert ("interrupted\nforkserver False\n", "") == (done.stdout, done.stderr)


DIES = """
    import os
    real = os.fork

    def fork():
        {then}

    os.fork = fork
"""


@pytest.mark.parametrize(
    ("then", "launcher", "reason"),
    [
        ("os._exit(3)", "exec", "two zygotes in a row died when they were asked for a template"),
        (
            "return os._exit(3) if real() else 0",
            "exec",
            "two zygotes in a row died when they were asked for a template",
        ),
        ("raise PermissionError(1, os.strerror(1))", "exec", "Operation not permitted"),
    ],
    ids=["dies before", "dies after", "forbidden"],
)
def test_template_that_can_not_be_cloned_gives_way_to_exec(
    then: str, launcher: str, reason: str, program: Program, tmp_path: Path
) -> None:
    """With one line that says why, and nothing left: not what it had made before it died, either."""
    site = tmp_path / "site"
    site.mkdir()
    text = "if b'spawnx.remote.zygote' in open('/proc/self/cmdline', 'rb').read():\n"
    code = textwrap.indent(textwrap.dedent(DIES.format(then=then)), "    ")
    (site / "sitecustomize.py").write_text(text + code, encoding="utf-8")
    source = """
        import logging, os, psutil, sys
        from tests import ranks

        if __name__ == "__main__":
            logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
            context = mp.start_processes(ranks.nothing, (), 3, join=False, start_method="forkserver")
            while not context.join():
                pass
            left = [child.cmdline() for child in psutil.Process().children()]
            print(context.launcher, [one for one in left if "resource_tracker" not in " ".join(one)])
    """
    done = program.run_command(
        program.command(source),
        env={**program.environment, "PYTHONPATH": f"{site}{os.pathsep}{program.environment['PYTHONPATH']}"},
    )

    why, *left = done.stdout.splitlines()[-2:]

    assert why.startswith(f"ranks are started by exec, not cloned: {reason}"), done.stderr
    assert [f"{launcher} []"] == left


@pytest.mark.parametrize(
    "end",
    ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.execv('/bin/cat', ['cat'])"],
    ids=["exit", "_exit", "killed", "exec"],
)
def test_zygote_ends_with_the_supervisor(end: str, program: Program) -> None:
    """However that ends, also where a process that it forked lives on."""
    source = f"""
        import os, psutil, sys
        from tests import ranks

        if __name__ == "__main__":
            mp.start_processes(ranks.nothing, (), 1, start_method="forkserver")
            mark = "spawnx.remote.zygote"
            (kept,) = [one for one in psutil.Process().children() if mark in " ".join(one.cmdline())]
            if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
            print(kept.pid, flush=True)
            {end}
    """
    # CPython 3.12 warns of forks with other threads about: here, the launching one.
    program = dataclasses.replace(program, options=("-W", "ignore::DeprecationWarning"))
    with program.popen(source) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        kept = int(running.stdout.readline())
        pidfd = os.pidfd_open(kept) if psutil.pid_exists(kept) else -1
        if pidfd >= 0:
            with open(pidfd, "rb", buffering=0) as ended:
                wait_readable(ended.fileno())
        running.stdin.close()

    assert not psutil.pid_exists(kept) or psutil.Process(kept).status() == psutil.STATUS_ZOMBIE


def wait_readable(fd: int) -> None:
    """Wait until an fd is readable, for `LONG_S` at most."""
    import select

    assert select.select([fd], [], [], LONG_S)[0]


def test_forked_child_has_a_template_of_its_own(program: Program) -> None:
    """The parent's is its parent's: it could not make children of the forked one."""
    source = """
        import os
        from tests import ranks

        if __name__ == "__main__":
            for _ in range(2):
                mp.start_processes(ranks.nothing, (), 1, start_method="forkserver")
            pid = os.fork()
            context = mp.start_processes(ranks.nothing, (), 1, join=False, start_method="forkserver")
            while not context.join():
                pass
            if pid == 0:
                print(context.launcher, flush=True)
                from spawnx.launchers import forkserver
                forkserver.stop()
                os._exit(0)
            os.waitpid(pid, 0)
            print(context.launcher)
    """

    assert ["forkserver", "forkserver"] == program.output(source)


def test_ranks_start_ranks() -> None:
    """Each has a zygote of its own."""
    assert [["forkserver", [0, 0]]] * 2 == told(ranks.put_nested, 2)


# From threads


@pytest.mark.parametrize("start_method", START_METHODS)
def test_sixteen_threads_at_once_are_all_served(start_method: str) -> None:
    """Each gets its own ranks' results."""
    found: list[list[Any]] = []

    def call(i: int) -> None:
        queue = spawnx.get_context(start_method).SimpleQueue()
        context = spawnx.start_processes(
            ranks.put_argument, (queue, i), 2, join=False, start_method=start_method
        )
        assert context is not None
        finish(context)
        found.append(take(queue, 2))
        queue.close()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [[(0, i), (1, i)] for i in range(16)] == sorted(found)


def test_asyncio_program_spawns_in_its_executor() -> None:
    """Several calls at once, while the loop goes on."""

    async def call(i: int) -> list[Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: told(ranks.put_argument, 2, (i,)))

    async def call_all() -> list[list[Any]]:
        return await asyncio.gather(*map(call, range(4)))

    assert [[(0, i), (1, i)] for i in range(4)] == asyncio.run(call_all())


# What is slower than it should be


def test_call_that_needs_another_template_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO what has changed; at WARNING, once, if the next call needs another one, too."""
    caplog.set_level("INFO", logger="spawnx")
    told(ranks.put_pid)
    told(ranks.put_pid)
    for number in "123":
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        told(ranks.put_pid)
    reason = "the zygote of the start method forkserver is replaced: changed since the zygote was started:"

    assert [
        (level, f"{reason} OMP_NUM_THREADS in the environment") for level in ("INFO", "WARNING", "INFO")
    ] == [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("seconds", ["0", "30"])
def test_default_timeout_of_sockets_is_not_the_templates(seconds: str, program: Program) -> None:
    """`socket.setdefaulttimeout` makes new sockets non-blocking, also for who has their other ends."""
    source = """
        import socket, sys
        from tests import ranks

        if __name__ == "__main__":
            socket.setdefaulttimeout(float(sys.argv[1]))
            import psutil
            for _ in range(3):
                mp.start_processes(ranks.nothing, (), 1, start_method="forkserver")
                mark = "spawnx.remote.zygote"
                marked = [one for one in psutil.Process().children() if mark in " ".join(one.cmdline())]
                print([one.pid for one in marked])
    """
    found = program.output(source, seconds)

    assert "[]" != found[0]
    assert [found[0]] * 3 == found

"""What stands between a clone and harm: each of these tests fails without the guard that it is about."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import psutil
import pytest

from spawnx import backends
from tests import interpreter
from tests.support import LONG_S, ROOT
from tests.unit.test_clone import SHOW, run_with_template_that, told

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root")
x86_64_only = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="has system calls by their numbers there"
)


@pytest.fixture(autouse=True)
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone")


def output(source: str, *command: str) -> str:
    """What a program prints that must end well, and quietly."""
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=LONG_S, check=False, cwd=ROOT,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def served(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """By which launcher, and with which exit codes; how many children were left."""
    lines = [json.loads(line) for line in done.stdout.splitlines()[-2:]]
    assert "" == done.stderr
    return lines


# Whether to clone


@needs_root
@pytest.mark.parametrize("backend", ["native", "python"])
def test_children_in_a_pid_namespace_of_their_own_are_not_cloned(backend: str) -> None:
    """Their parent is nobody there, and the pids that they see are other processes' here: so by exec."""
    source = """
        import ctypes, logging, sys
        import spawnx
        from multiprocessing import resource_tracker
        from tests import ranks

        assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID: for the children, not for this process
        resource_tracker.ensure_running()  # the first process there, with which all others end
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """
    told = "ranks are started by exec, not cloned: ProcessLookupError: the supervisor is seen as 0, not as "
    printed = output(source, "env", f"SPAWNX_BACKEND={backend}", "SPAWNX_LAUNCHER=auto")

    assert printed.startswith(told if backend == "native" else "exec")
    assert printed.endswith("exec [0, 0, 0]\n")


@needs_root
def test_supervisor_that_is_the_first_of_its_pid_namespace_has_clones() -> None:
    """As in a container: its pid is 1, which is nobody's mark of an orphan."""
    source = """
        import os, spawnx
        from tests import ranks

        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(os.getpid(), context.launcher, [process.exitcode for process in context.processes])
    """

    assert "1 clone [0, 0, 0]\n" == output(source, "unshare", "--pid", "--mount-proc", "--fork")


@x86_64_only
def test_sandbox_that_forbids_to_adopt_gets_its_ranks_by_exec() -> None:
    """What was forked is ended, and nothing is tried in the next call."""
    source = """
        import errno, logging, sys
        import spawnx
        from tests import ranks, sandbox

        sandbox.deny("prctl", errno.EPERM, only_with=0x20)  # PR_SET_CHILD_SUBREAPER and others, not PR_SET_PDEATHSIG
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        for _ in range(2):
            context = spawnx.spawn(ranks.nothing, (), 2, join=False)
            while not context.join():
                pass
            print(context.launcher, [process.exitcode for process in context.processes])
    """
    lines = output(source).splitlines()
    why = "this process can't adopt the ranks: [Errno 1] Operation not permitted"
    told = f"ranks are started by exec, not cloned: {why}"

    assert lines[0].startswith(f"{told}; so each rank imports everything for itself")
    assert ["exec [0, 0]", told, "exec [0, 0]"] == lines[1:]


def test_process_whose_first_thread_has_ended_gets_its_ranks_by_exec() -> None:
    """The kernel gives orphans to the next thread, and sends them SIGINT when that one ends."""
    source = """
        import ctypes, logging, os, sys, threading
        import spawnx
        from tests import ranks

        def go_on():
            first = f"/proc/self/task/{os.getpid()}/stat"
            while open(first).read().rpartition(")")[2].split()[0] != "Z":
                os.sched_yield()
            started = spawnx.spawn(ranks.stay_as_rank, (), 2, join=False)
            end.set()
            older.join()
            for process in started.processes:
                process.terminate()
                process.join()
            print(started.launcher, [process.exitcode for process in started.processes], flush=True)
            os._exit(0)

        if __name__ == "__main__":
            logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
            end = threading.Event()
            older = threading.Thread(target=end.wait)
            older.start()
            threading.Thread(target=go_on).start()
            ctypes.CDLL(None).pthread_exit(None)
    """
    told = "ranks are started by exec, not cloned: the first thread of this process has ended"
    printed = output(source)

    assert printed.startswith(told)
    assert printed.endswith("exec [-15, -15]\n")


# Before the clone


def test_signals_do_not_disturb_a_template(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole group: it would leave the clones half-made. It reaches each of them, once all exist."""
    code = """
        import signal
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM):
            os.kill(os.getpid(), signum)
    """
    source = """
        import spawnx
        from tests import ranks

        if __name__ == "__main__":
            context = spawnx.spawn(ranks.do, (ranks.stay,), 4, join=False)
            for process in context.processes:
                process.join()
            print(context.launcher, *(process.exitcode for process in context.processes))
    """

    assert "clone -1 -1 -1 -1\n" == run_with_template_that(code, source, tmp_path).stdout


def test_what_a_preload_prints_is_printed_once(
    module: Callable[[str], str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's buffers are flushed before the clone, or each rank would do it."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    name = module("print('printed', end=' ')\nVALUE = 7")

    assert [(True, 7)] * 3 == told(interpreter.put_value, 3, name, preload=[name])
    assert "printed " == capfd.readouterr().out


def test_preload_that_makes_a_semaphore_uses_the_supervisors_tracker(
    module: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A tracker of its own would be a process, and so a reason to give the preload up."""
    name = module("import multiprocessing\nVALUE = multiprocessing.get_context('spawn').Lock().acquire()")

    assert [(True, True)] * 2 == told(interpreter.put_value, 2, name, preload=[name])
    assert [] == caplog.records


def test_what_the_template_has_is_frozen_in_clones() -> None:
    """A collection in a rank would copy every page that has an object of the template's."""
    assert [True, True] == told(interpreter.put_whether_frozen, 2)


def test_audit_hooks_are_told_of_the_clones(tmp_path: Path) -> None:
    """As of forks, which they are."""
    seen = tmp_path / "seen"
    code = f"""
        def hook(event, arguments):
            if event == "os.fork":
                with open({str(seen)!r}, "a") as file:
                    file.write("x")
        sys.addaudithook(hook)
        os.environ["SPAWNX_PRELOAD"] = "off"
    """
    done = run_with_template_that(code, SHOW.replace(", join=False", ", join=False, preload=()"), tmp_path)

    assert [["clone", [0] * 4], 0] == served(done)
    assert "x" * 4 == seen.read_text(encoding="utf-8")


# Between the fork and the adoption

WRAPPED = """
    import ctypes
    from spawnx.remote import adoption
    real = adoption.Unadopted.pass_gate

    def armed():
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0)  # PR_GET_PDEATHSIG
        return found.value

    def wrapped(self, gate, parent):
        {then}

    adoption.Unadopted.pass_gate = wrapped
"""


def test_clone_ends_with_its_template_until_it_is_adopted(tmp_path: Path) -> None:
    """A supervisor that is killed while clones are made leaves none; from the gate on SIGINT tells of its end."""
    then = f"""
        before, template = armed(), os.getppid()
        real(self, gate, parent)
        with open({str(tmp_path / "signals")!r}, "a") as file:
            file.write(f"{{before}} {{armed()}} {{template != os.getppid() == parent}}\\n")
    """
    done = run_with_template_that(WRAPPED.format(then=then.strip()), SHOW, tmp_path)

    assert [["clone", [0] * 4], 0] == served(done)
    assert "9 2 True\n" * 4 == (tmp_path / "signals").read_text(encoding="utf-8")


def test_clone_whose_parent_is_not_the_supervisor_leaves(tmp_path: Path) -> None:
    """It was not adopted: here, as it is told of another supervisor."""
    done = run_with_template_that(WRAPPED.format(then="real(self, gate, 1)"), SHOW, tmp_path)
    kind, text = served(done)[0]

    assert ("ProcessExitedException", True) == (kind, text.endswith("terminated with exit code 1"))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("who", ["template", "supervisor"])
def test_nobody_is_left_of_clones_that_wait_for_their_adoption(who: str, method: str, tmp_path: Path) -> None:
    """Their template or the supervisor is killed when all wait at the gate, whose other end a bystander holds."""
    source = f"""
        import ctypes, os, signal
        import spawnx
        from spawnx.launchers import template
        from tests import ranks

        def adopt(self, child):
            bystander = ctypes.CDLL(None).fork()  # not Python's fork, after which it would close the gate
            if bystander == 0:
                gate = self.guard._resources.gate
                os.closerange(0, gate)
                os.closerange(gate + 1, 4096)
                signal.pause()
            print(bystander, *self._table.pids, flush=True)
            if {who!r} == "supervisor":
                os.kill(os.getpid(), signal.SIGKILL)
            child.kill()
            child.wait()
            real(self, child)

        if __name__ == "__main__":
            real, template.Template._adopt = template.Template._adopt, adopt
            try:
                spawnx.start_processes(ranks.nothing, (), 3, start_method={method!r})
            except RuntimeError as error:
                print(error)
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True, text=True, timeout=LONG_S, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    bystander, *pids = (int(pid) for pid in done.stdout.splitlines()[0].split())
    _, left = psutil.wait_procs(
        [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=LONG_S
    )
    os.kill(bystander, signal.SIGKILL)

    assert (3, []) == (len(pids), left)
    if who == "supervisor":
        assert -signal.SIGKILL == done.returncode
    else:
        assert "while it made rank 3 of 3; no rank is left" in done.stdout


def test_libcs_fork_handlers_are_called_in_clones(module: Callable[[str], str]) -> None:
    """A library that named ones use has given them to libc: a lock that is taken over the fork is free in each rank."""
    name = module(
        """
        import ctypes

        libc = ctypes.CDLL(None)
        KIND = ctypes.CFUNCTYPE(None)
        calls = {"prepare": 0, "parent": 0, "child": 0}
        mutex = ctypes.create_string_buffer(64)

        def handler(name):
            def call():
                calls[name] += 1
                (libc.pthread_mutex_lock if name == "prepare" else libc.pthread_mutex_unlock)(mutex)
            return KIND(call)

        handlers = [handler(name) for name in calls]
        # What C calls pthread_atfork; in glibc a dynamic linker finds it by the first name only.
        register = getattr(libc, "__register_atfork", None) or libc.pthread_atfork
        register(*handlers, None)

        class Told:
            def __eq__(self, other):
                return False

            def __reduce__(self):
                taken = libc.pthread_mutex_trylock(mutex)
                return tuple, ([calls["child"], calls["prepare"] - calls["parent"], taken],)

        VALUE = Told()
        """
    )

    found = told(interpreter.put_value, 3, name, preload=[name])

    assert [(True, (1, 1, 0))] * 3 == found


def test_ranks_that_the_kernel_gives_to_another_process_are_ended() -> None:
    """It takes the request to adopt orphans, and ignores it: ranks by exec take their places, and their gate."""
    source = """
        import logging, sys
        import spawnx, spawnx.backends.native, spawnx.guard
        from tests import ranks

        def hold(guard, some):
            print("held", len(some))
            return real(guard, some)

        real, spawnx.guard.Guard._hold = spawnx.guard.Guard._hold, hold
        spawnx.backends.native.adopt_orphans = lambda *, on: False
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        context = spawnx.spawn(ranks.nothing, (), 4, join=False)
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """
    told = "ranks are started by exec, not cloned: the kernel gave the ranks to another process\n"

    # And the guardian holds these: it held only those that are gone.
    assert f"{told}held 4\nexec [0, 0, 0, 0]\n" == output(source)


def test_a_stray_is_reaped_and_not_touched(tmp_path: Path) -> None:
    """An orphan of somebody else's that is adopted together with the ranks: the kernel can't tell them apart."""
    source = """
        import os, psutil, signal, subprocess
        import spawnx
        from spawnx.backends import native
        from tests import ranks

        def children():
            return [child.pid for child in psutil.Process().children()]

        if __name__ == "__main__":
            parent = subprocess.Popen(
                ["sh", "-c", "sleep 60 & echo $!; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stray = int(parent.stdout.readline())
            stop = native.adopt_orphans

            def stop_late(*, on):
                if not on:
                    parent.stdin.close()
                    parent.wait()
                return stop(on=on)

            native.adopt_orphans = stop_late
            spawnx.spawn(ranks.nothing, (), 2)
            print(stray in children(), psutil.Process(stray).status())
            os.kill(stray, signal.SIGKILL)
            os.waitid(os.P_PID, stray, os.WEXITED | os.WNOWAIT)
            native.adopt_orphans = stop
            spawnx.spawn(ranks.nothing, (), 2)
            print(stray in children())
            parent.stdout.close()
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True, text=True, timeout=LONG_S, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert "True sleeping\nFalse\n" == done.stdout, done.stderr


# Kills the template of each call: before the supervisor adopts, or while it does.
KILLED = """
    import sys
    import psutil
    import spawnx
    from spawnx.backends import native
    from spawnx.launchers import template
    from tests import ranks

    def serve(self, child):
        helpers.append(child)
        if {when!r} == "before":
            kill()
        return real(self, child)

    def adopt_orphans(*, on):
        did = stop(on=on)
        if on:
            kill()
        return did

    def kill():
        helpers[-1].kill()
        helpers[-1].wait()

    helpers, real, stop = [], template.Template._adopt, native.adopt_orphans
    template.Template._adopt, native.adopt_orphans = serve, adopt_orphans
    try:
        spawnx.start_processes(ranks.nothing, (), 3, start_method={method!r})
    except RuntimeError as error:
        print(error)
    print([child.name() for child in psutil.Process().children() if child.status() == "zombie"])
"""
NONE_LEFT = "while it made rank 3 of 3; no rank is left\n[]\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_template_that_is_killed_while_the_supervisor_adopts_leaves_no_zombie(method: str) -> None:
    """The kernel gives its ranks to the supervisor all the same: nobody else reaps them."""
    assert output(KILLED.format(when="while", method=method)).endswith(NONE_LEFT)


@needs_root
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_template_that_is_killed_under_the_first_of_a_pid_namespace_leaves_no_zombie(method: str) -> None:
    """Which adopts all orphans, at any time."""
    printed = output(
        KILLED.format(when="before", method=method), "unshare", "--pid", "--mount-proc", "--fork"
    )

    assert printed.endswith(NONE_LEFT)


def test_child_that_a_reading_omits_is_not_taken_for_a_stray() -> None:
    """proc_pid_task(5): a child may be omitted while others are reaped. Its exit code is the program's own."""
    source = """
        import subprocess
        import spawnx
        from spawnx.launchers import adoption
        from tests import ranks

        readings = []

        def children():
            readings.append(real())
            return readings[-1] - {child.pid} if len(readings) == 1 else readings[-1]

        child = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
        real, adoption._children = adoption._children, children
        spawnx.spawn(ranks.nothing, (), 2)
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        spawnx.spawn(ranks.nothing, (), 2)
        print(child.wait())
    """

    assert "7\n" == output(source.replace("import subprocess", "import os, subprocess"))


def test_program_that_adopts_orphans_goes_on_to_do_so() -> None:
    """What it has asked for (PR_SET_CHILD_SUBREAPER) stands after the call as before; and what it hasn't, doesn't."""
    source = """
        import ctypes
        import spawnx
        from tests import ranks

        libc, found = ctypes.CDLL(None), ctypes.c_int()
        for asked in (0, 1):
            libc.prctl(36, asked, 0, 0, 0)
            spawnx.spawn(ranks.nothing, (), 2)
            libc.prctl(37, ctypes.byref(found), 0, 0, 0)
            print(found.value)
    """

    assert "0\n1\n" == output(source)


def test_threads_that_launch_end_with_the_launch() -> None:
    """Adopted ranks are children of the main thread: unshare(2), and who counts threads, find none of ours."""
    source = """
        import threading
        import spawnx
        from tests import interpreter, ranks

        if __name__ == "__main__":
            context = spawnx.get_context("spawn")
            gate = ranks.Gate(context)
            for method in ("spawn", "forkserver"):
                started = spawnx.start_processes(ranks.wait_at, (gate,), 2, join=False, start_method=method)
                gate.wait_for(2)
                print(started.launcher, threading.active_count())
                gate.opened.release()
                gate.opened.release()
                while not started.join():
                    pass
    """

    assert "clone 1\nforkserver 1\n" == output(source)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which has a system call fail")
def test_no_clone_is_made_after_one_that_failed(tmp_path: Path) -> None:
    """A later one might succeed, and be a rank behind a gap, of which nobody knows."""
    script = tmp_path / "python"
    calls = "clone,?fork"  # fork() of musl makes the latter, where the machine has it
    strace = f"strace -D -o {tmp_path / 'calls'} -e trace={calls} -e inject={calls}:error=EAGAIN:when=3"
    lines = [
        "#!/bin/sh",
        f'case "$*" in *remote.template*) exec {strace} "{sys.executable}" "$@";; esac',
        f'exec "{sys.executable}" "$@"',
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    script.chmod(0o755)
    source = f"""
        import multiprocessing
        import spawnx
        from tests import ranks

        multiprocessing.set_executable({str(script)!r})
        try:
            spawnx.spawn(ranks.stay_as_rank, (), 6, preload=())
        except OSError as error:
            print(str(error).partition(";")[0])
    """
    told = "[Errno 11] rank 2 of 6 could not be started: Resource temporarily unavailable\n"

    assert told == output(source)
    made = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert 3 == sum(line.startswith(("clone(", "fork(")) for line in made)


def test_robust_mutex_of_a_clone_that_died_is_given_to_the_next() -> None:
    """The kernel knows the list of those that it holds: else the next one would wait for ever."""
    memory = SharedMemory(create=True, size=256)
    libc = ctypes.CDLL(None)
    attributes, mutex = ctypes.create_string_buffer(64), ctypes.c_char.from_buffer(memory.buf)
    try:
        libc.pthread_mutexattr_init(attributes)
        libc.pthread_mutexattr_setpshared(attributes, 1)
        libc.pthread_mutexattr_setrobust(attributes, 1)
        assert libc.pthread_mutex_init(ctypes.byref(mutex), attributes) == 0
        locked = told(interpreter.lock_and_die, 1, memory)
        result = libc.pthread_mutex_trylock(ctypes.byref(mutex))
    finally:
        del mutex
        memory.close()
        memory.unlink()

    assert ([0], errno.EOWNERDEAD) == (locked, result)


# After it


@needs_root
def test_rank_that_has_given_up_its_rights_ends_with_its_supervisor() -> None:
    """Its death signal is gone with them (prctl(2)); the guardian, which has its own, ends it."""
    source = """
        import sys
        import spawnx
        from tests import interpreter, ranks

        if __name__ == "__main__":
            context = spawnx.get_context("spawn")
            gate, queue = ranks.Gate(context), context.SimpleQueue()
            started = spawnx.spawn(interpreter.give_up_rights_and_stay, (gate, queue), 2, join=False)
            gate.wait_for(2)
            print(started.launcher, queue.get(), queue.get(), *started.pids(), flush=True)
            started.join()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "SPAWNX_ORPHAN_GRACE": "1"},
    ) as supervisor:  # fmt: skip
        assert supervisor.stdout is not None
        launcher, *signals, first, second = supervisor.stdout.readline().split()
        orphans = [psutil.Process(int(pid)) for pid in (first, second)]
        uids = [orphan.uids().real for orphan in orphans]
        supervisor.kill()
    _, left = psutil.wait_procs(orphans, timeout=LONG_S)

    assert ("clone", ["0", "0"], [65534, 65534]) == (launcher, signals, uids)
    assert [] == left

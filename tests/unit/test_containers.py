"""Containers, each thing that they lack or limit by itself: what serves in each, and what `python -m spawnx` says.

See docs/containers.md. Denied system calls are in test_sandboxes.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from spawnx import backends, container
from tests import containers
from tests.support import HAS_PIDFD, LONG_S, ROOT, linux_only

pytestmark = linux_only

METHODS = ("spawn", "fork", "forkserver")
# Who serves each of them.
SERVE = {
    "native": ("clone", "fork", "forkserver"),
    "python": ("exec", "fork", "stdlib") if HAS_PIDFD else ("stdlib",) * 3,
}


@pytest.fixture(params=containers.ALL)
def name(request: pytest.FixtureRequest) -> str:
    """Which container."""
    return str(request.param)


@pytest.fixture
def inside(name: str) -> Iterator[Callable[[list[str]], list[str]]]:
    """What turns a command into one that runs in the container."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(containers.container(name))
        except OSError as error:
            pytest.skip(f"{name}: {error}")
        yield made


def environment(**variables: str) -> dict[str, str]:
    """Of a program that is run from another folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and to that of all who have its streams."""
    return subprocess.run(
        command, cwd="/", env=environment(**variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip


CALLS = """
import json, sys
from tests import ranks
from tests.campaigns.denied_supervisor import call

told = {}
for method in sys.argv[1:]:
    good = call(method, ranks.nothing)
    told[method] = good, call(method, ranks.one_does_others_wait, 1, ranks.raise_value_error, "broken")
sys.stdout.write(json.dumps(told))
"""


@pytest.mark.parametrize("backend", backends.available())
def test_each_start_method_serves_and_tells_the_failing_ranks_traceback(
    name: str, inside: Callable[[list[str]], list[str]], backend: str
) -> None:
    """Every rank is guarded, and none is left; where another launcher serves, one warning says so."""
    done = run(inside([sys.executable, "-c", CALLS, *METHODS]), SPAWNX_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    serve = dict(zip(METHODS, SERVE[backend], strict=True))
    if name == "no /proc" and backend == "native":
        serve.update(spawn="exec", forkserver="exec")
        assert 1 == done.stderr.count("ranks are started by exec, not cloned: there is no /proc")
    if name in ("read-only root", "restricted") and serve["forkserver"] == "stdlib":
        # multiprocessing's own server needs a temporary directory.
        del serve["forkserver"]
        for one in told.pop("forkserver"):
            assert one["raised"].startswith(
                "FileNotFoundError: [Errno 2] rank 0 of 2 could not be started: No usable"
            )

    assert {method: [by, by] for method, by in serve.items()} == {
        method: [one["by"] for one in both] for method, both in told.items()
    }
    for good, bad in told.values():
        assert (None, 0, 0) == (good["raised"], good["left"], bad["left"])
        assert bad["raised"].startswith("ProcessRaisedException")
        assert "ValueError: broken" in bad["raised"]
    assert "guardian" not in done.stderr
    assert "Traceback" not in done.stderr


STACKS = """
import os, signal
import spawnx
from tests import ranks

def crash(rank):
    os.kill(os.getpid(), signal.SIGSEGV)

try:
    spawnx.start_processes(crash, (), 1, start_method="fork")
except spawnx.ProcessExitedException as error:
    print(error.failures[0].traceback)
try:
    spawnx.start_processes(ranks.stay_as_rank, (), 1, start_method="fork", timeout=0.3)
except spawnx.ProcessTimeoutError as error:
    print(error)
"""


def test_stacks_are_told(inside: Callable[[list[str]], list[str]]) -> None:
    """Of a rank that crashes, and of one that is in the middle when the time is over."""
    done = run(inside([sys.executable, "-c", STACKS]))
    crashed, _, late = done.stdout.partition("have not ended within")

    assert ("crash" in crashed, "in stay" in late) == (True, True), (done.stdout, done.stderr)


SUPERVISOR = """
import sys
import time
import spawnx
from tests import containers

contexts = [
    spawnx.start_processes(getattr(containers, sys.argv[1]), (), 2, join=False, daemon=True, start_method=method)
    for method in sys.argv[2:]
]
for context in contexts:
    context.join_all()
"""


@pytest.mark.parametrize("backend", backends.available())
def test_killed_supervisor_leaves_nobody(
    name: str, inside: Callable[[list[str]], list[str]], backend: str
) -> None:
    """Not even ranks that ignore signals: whoever lives has the standard output open."""
    command = inside([sys.executable, "-c", SUPERVISOR, "be_deaf", "spawn", "fork"])
    with started(command, 4, backend) as (process, supervisor):
        supervisor.kill()
        out, err = process.communicate(timeout=LONG_S)
    folders = Path(os.environ["TMPDIR"])
    # Where the supervisor's end is that of its pid namespace, no guardian is left to remove them, and without pidfds
    # there is none. Elsewhere it does so after the end of the last rank, which is what was waited for.
    removes = HAS_PIDFD and name not in ("pid 1", "all namespaces")
    deadline = time.monotonic() + (LONG_S if removes else 0)
    while (left := list(folders.glob("spawnx-*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    for folder in left:
        shutil.rmtree(folder)

    assert ("", False) == (out, "Traceback" in err)
    assert not removes or not left


@pytest.mark.parametrize("name", containers.AS_PID_1, indirect=True)
@pytest.mark.parametrize("backend", backends.available())
def test_pid_1_is_ended_by_ctrl_c_and_not_by_sigterm(
    inside: Callable[[list[str]], list[str]], backend: str
) -> None:
    """The kernel spares pid 1 every signal that it doesn't handle; Python handles SIGINT. Nobody is left."""
    with started(inside([sys.executable, "-c", SUPERVISOR, "be_there", "fork"]), 2, backend) as (
        process,
        supervisor,
    ):
        supervisor.terminate()
        supervisor.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LONG_S)

    assert "KeyboardInterrupt" in err
    assert process.returncode != -signal.SIGTERM


STRANGERS = """
import os, sys
import spawnx
from tests import containers

for method in sys.argv[1:]:
    reads, writes = os.pipe()
    spawnx.start_processes(containers.leave_an_orphan, (os.getpid(), writes), 2, start_method=method)
    os.close(writes)
    with open(reads) as answers:
        pids = [int(line) for line in answers]
    print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""


@pytest.mark.parametrize("name", containers.AS_PID_1, indirect=True)
@pytest.mark.parametrize("backend", backends.available())
def test_orphans_of_ranks_become_children_of_pid_1_and_are_left_alone(
    inside: Callable[[list[str]], list[str]], backend: str
) -> None:
    """Their ends are no rank's, and their statuses are left to the program: each is a zombie until it asks."""
    done = run(inside([sys.executable, "-c", STRANGERS, "spawn", "fork"]), SPAWNX_BACKEND=backend)

    assert ("[7, 7]\n[7, 7]\n", "") == (done.stdout, done.stderr)


LACKS = {
    "no /proc": {"no /proc"},
    "small /dev/shm": {"64 MiB /dev/shm"},
    "read-only /dev/shm": {"no writable /dev/shm"},
    "pid 1": {"no init"},
    "read-only root": {"no temporary folder"},
    "noexec /tmp": {"noexec TMPDIR"},
    "pids.max": {f"pids.max of {containers.PROCESSES}"},
    "restricted": {"64 MiB /dev/shm", "no init", "no temporary folder"},
}


def test_self_test_names_what_is_missing(name: str, inside: Callable[[list[str]], list[str]]) -> None:
    """And what that costs, and what to do."""
    command = [sys.executable, "-m", "spawnx", "--ranks", "8", "--start-method", "fork", "--json"]
    done = run(inside(command))
    if name == "read-only /dev/shm":  # multiprocessing's own queue, through which the ranks answer
        assert (1, True) == (done.returncode, "FAILED: the ranks did not run" in done.stderr)
        return
    assert (0, "") == (done.returncode, done.stderr)
    missing = json.loads(done.stdout)["missing"]
    found = {what.replace(os.environ["TMPDIR"], "TMPDIR") for what in missing}
    # What this machine lacks itself is missing everywhere.
    outside = {lack[0] for lack in container.lacks(8, len(os.sched_getaffinity(0)))}

    assert LACKS.get(name, set()) == found - outside
    assert all(lack["cost"] and lack["cure"] for lack in missing.values())


@pytest.mark.parametrize("name", ["pids.max"], indirect=True)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", backends.available())
def test_limit_that_is_too_low_is_one_error_that_names_it(
    inside: Callable[[list[str]], list[str]], method: str, backend: str
) -> None:
    """All or nothing: no rank is left."""
    source = f"""
import spawnx
from tests import ranks

try:
    spawnx.start_processes(ranks.stay_as_rank, (), 20, start_method={method!r})
except OSError as error:
    print(error)
"""
    done = run(inside([sys.executable, "-c", source]), SPAWNX_BACKEND=backend)
    if (method, backend) == ("forkserver", "python"):
        assert "multiprocessing's forkserver has ended" in done.stdout
    else:
        assert f"or the container's pids limit (pids.max, now {containers.PROCESSES})\n" in done.stdout


OVERFULL = """
import spawnx
from tests import containers

try:
    spawnx.start_processes(containers.fill_shared_memory, (), 2, start_method="fork")
except spawnx.ProcessExitedException as error:
    print(error, error.failures[0].traceback)
"""


@pytest.mark.parametrize("name", ["small /dev/shm", "restricted"], indirect=True)
@pytest.mark.parametrize("backend", backends.available())
def test_rank_that_fills_shared_memory_is_told_with_its_stack(
    inside: Callable[[list[str]], list[str]], backend: str
) -> None:
    """It dies by SIGBUS, which by itself says nothing. What spawnx needs isn't there: the scoreboard has room."""
    done = run(inside([sys.executable, "-c", OVERFULL]), SPAWNX_BACKEND=backend)

    assert "terminated with signal SIGBUS" in done.stdout, done.stderr
    assert "in fill_shared_memory" in done.stdout


REFERENCE = """
import sys
import time
import {package} as mp
from tests import ranks

if __name__ == "__main__":
    mp.spawn(ranks.nothing, (), 1)
"""


@pytest.mark.torch
@pytest.mark.parametrize("name", ["read-only root"], indirect=True)
@pytest.mark.parametrize(
    ("package", "told"),
    [("spawnx", ""), ("torch.multiprocessing", "FileNotFoundError: [Errno 2] No usable temporary directory")],
)
def test_no_temporary_directory_is_a_difference(
    inside: Callable[[list[str]], list[str]], package: str, told: str
) -> None:
    """The reference makes its error files there."""
    done = run(inside([sys.executable, "-c", REFERENCE.format(package=package)]))

    assert (bool(told), told in done.stderr) == (done.returncode != 0, True)


@contextlib.contextmanager
def started(
    command: list[str], ranks: int, backend: str
) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Start a supervisor, and wait until its ranks are there; gives what is around it, and itself."""
    process = subprocess.Popen(
        command, cwd="/", env=environment(SPAWNX_BACKEND=backend, SPAWNX_ORPHAN_GRACE="0.5"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for _ in range(ranks):
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(process.communicate(timeout=LONG_S))
        around = psutil.Process(process.pid)
        interpreter = psutil.Process().exe()
        # The container's own processes are around it, its children below it.
        everybody = [around, *around.children(recursive=True)]
        yield process, next(one for one in everybody if one.exe() == interpreter)
    finally:
        process.kill()
        process.communicate(timeout=LONG_S)

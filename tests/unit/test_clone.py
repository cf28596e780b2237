"""Ranks cloned from a template: whose children they are, what they share, and what happens when it fails."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import psutil
import pytest

import spawnx
from spawnx import backends
from spawnx.remote import preload
from tests import abilities, ranks
from tests.support import LONG_S, ROOT, finish, take
from tests.unit.test_core import with_answer

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)


ROUNDS = 10


@pytest.fixture(autouse=True)
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone")


def told(fn: Any, count: int, *args: Any, **options: Any) -> list[Any]:
    """What ranks put into a queue, which they are given before all else, and that they were cloned."""
    queue = spawnx.get_context("spawn").SimpleQueue()
    context = spawnx.spawn(fn, (queue, *args), count, join=False, **options)
    assert context is not None
    finish(context)
    found = take(queue, count)
    queue.close()
    assert context.launcher == "clone"
    return found


def run_with_template_that(code: str, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program whose template, and nobody else, runs some code when its interpreter starts."""
    site = folder / "site"
    site.mkdir()
    text = "import os, sys\nif b'spawnx.remote.template' in open('/proc/self/cmdline', 'rb').read():\n"
    (site / "sitecustomize.py").write_text(
        text + textwrap.indent(textwrap.dedent(code), "    "), encoding="utf-8"
    )
    program = folder / "program.py"
    program.write_text(textwrap.dedent(source), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(program)],
        # Start-up code is a reason not to clone, unless that is insisted on.
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "SPAWNX_LAUNCHER": "clone"},
        capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip


SHOW = """
    import json, logging, multiprocessing, sys
    import spawnx
    from tests import ranks

    if __name__ == "__main__":
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
        try:
            context = spawnx.spawn(ranks.nothing, (), 4, join=False)
            while not context.join():
                pass
            print(json.dumps([context.launcher, [process.exitcode for process in context.processes]]))
        except Exception as error:
            print(json.dumps([type(error).__name__, str(error)]))
        print(len(multiprocessing.active_children()))
"""


# What a clone is


def test_clones_are_the_supervisors_children_and_the_template_is_gone() -> None:
    """Siblings of the template, not its children: real exit codes, a real parent."""
    gate = ranks.Gate(spawnx.get_context("spawn"))
    context = spawnx.spawn(ranks.wait_at, (gate,), 3, join=False)
    assert context is not None
    gate.wait_for(3)
    children = {child.pid for child in psutil.Process().children() if "spawnx-guardian" not in child.name()}
    templates = [
        child for child in psutil.Process().children() if "template" in " ".join(child.cmdline()[:4])
    ]
    parents = {psutil.Process(pid).ppid() for pid in context.pids()}
    gate.let(3)
    finish(context)

    assert set(context.pids()) <= children
    assert {os.getpid()} == parents
    assert set() == {template.pid for template in templates} - set(context.pids())


@pytest.mark.parametrize(("fn", "code"), [(ranks.exit_7, 7), (ranks.kill_self, -9)])
def test_exit_codes_are_the_clones_own(fn: Any, code: int) -> None:
    """As after an exec."""
    with pytest.raises(spawnx.ProcessExitedException) as raised:
        spawnx.spawn(fn, (), 2)

    assert code == raised.value.exit_code


def test_clone_has_its_death_signal() -> None:
    """SIGKILL until the guardian holds it, then SIGINT."""
    assert [signal.SIGINT] * 2 == told(ranks.put_death_signal, 2)


def test_thread_of_a_clone_is_known_by_its_own_number() -> None:
    """To libc, by which a process-shared lock knows its owner, and to Python."""
    assert [(True, True)] * 3 == told(ranks.put_thread_numbers, 3)


PRELOADS = [(), pytest.param(("numpy", "torch"), marks=pytest.mark.torch)]


@pytest.mark.parametrize("preload", PRELOADS, ids=["nothing", "torch"])
def test_clones_can_do_what_processes_do(preload: tuple[str, ...]) -> None:
    """Threads, pools, subprocesses, forks, asyncio, locks."""
    works = ["forked", "pool", "process pool", "subprocess", "task", "thread"]

    assert [(bool(preload), works)] * 2 == told(abilities.put_what_works, 2, preload=preload)


@pytest.mark.torch
@pytest.mark.parametrize("preload", PRELOADS, ids=["nothing", "torch"])
def test_clones_can_do_what_torch_does(
    preload: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenBLAS and OpenMP by several threads, autograd, DDP over gloo, loaders with forked and spawned workers."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else in the temporary directory, for ever
    threads = "threads" if len(os.sched_getaffinity(0)) > 1 else "one thread"
    works = [f"openblas, {threads}", "openmp, 2 more", "autograd, 6.0", "ddp, 1.5", "loader, [15, 15]"]
    found = told(abilities.put_what_works_of_torch, 2, str(tmp_path), 2, preload=preload)

    assert [(bool(preload), works)] * 2 == found


def test_clones_can_have_clones() -> None:
    """A rank may be a supervisor, whose ranks may be, each with a template and a guardian of its own."""
    queue = spawnx.get_context("spawn").SimpleQueue()
    spawnx.spawn(abilities.put_ranks_of_ranks, (queue, 2), 2)
    found = [queue.get() for _ in range(2 + 4 + 8)]
    queue.close()
    pids = {depth: {pid for one, _, pid, *_ in found if one == depth} for depth in range(3)}
    parents = {depth: {parent for one, _, _, parent, _ in found if one == depth} for depth in range(3)}

    assert [8, 4, 2] == [len(pids[depth]) for depth in range(3)]
    assert [pids[1], pids[2], {os.getpid()}] == [parents[depth] for depth in range(3)]
    assert 14 == len({name for *_, name in found})


def test_clones_of_clones_end_with_the_first_supervisor() -> None:
    """Each that ends is a supervisor whose ranks end: the check after each test sees that none is left."""
    source = """
        import sys
        import spawnx
        from tests import abilities, ranks

        if __name__ == "__main__":
            gate = ranks.Gate(spawnx.get_context("spawn"))
            context = spawnx.spawn(abilities.stay_with_ranks, (gate, 2), 2, join=False)
            gate.wait_for(2)
            print(flush=True)
            context.join()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, cwd=ROOT
    ) as supervisor:
        assert supervisor.stdout is not None
        assert b"\n" == supervisor.stdout.readline()
        below = psutil.Process(supervisor.pid).children(recursive=True)
        pids = [one.pid for one in below if "multiprocessing-fork" in " ".join(one.cmdline())]
        supervisor.kill()
    _, left = psutil.wait_procs(below, timeout=LONG_S)

    assert (6, []) == (len(pids), left)


def test_mask_and_handlers_are_those_of_a_fresh_interpreter() -> None:
    """All signals are blocked in the template."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        masks = told(ranks.put_mask, 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert [{signal.SIGUSR2} | before] * 2 == masks


def test_no_fd_of_the_template_is_left_in_a_clone() -> None:
    """Standard streams, the resource tracker, the queue's, the scoreboard; and what `parent_process()` waits on."""
    cloned = told(ranks.put_fds, 2)
    os.environ["SPAWNX_LAUNCHER"] = "exec"
    queue = spawnx.get_context("spawn").SimpleQueue()
    spawnx.spawn(ranks.put_fds, (queue,), 1)
    by_exec = queue.get()
    queue.close()

    assert [by_exec, by_exec] == cloned


def test_clones_share_the_hash_seed() -> None:
    """A difference: each of the reference's ranks has its own, unless PYTHONHASHSEED says one."""
    assert 1 == len(set(told(ranks.put_hash, 3)))


def test_random_draws_differ_in_all_ranks() -> None:
    """The standard library's generators, uuid, secrets, ssl and names of temporary files."""
    drawn = told(ranks.put_random_draws, 64, preload=["random", "uuid", "secrets", "ssl", "tempfile"])
    kinds = list(zip(*drawn, strict=True))

    assert all(already for already, *_ in drawn)  # imported before the clone
    assert [64] * 5 == [len(set(kind)) for kind in kinds[1:]]


@pytest.mark.torch
def test_whatever_64_clones_draw_is_drawn_once() -> None:
    """All that draws was imported before the clones were made; torch's and numpy's global generators are renewed."""
    names = ["numpy", "numpy.random", "random", "secrets", "ssl", "tempfile", "torch", "uuid"]
    drawn = told(abilities.put_all_draws, 64, preload=names)
    kinds = {kind: len({one[kind] for _, one in drawn}) for kind in drawn[0][1]}

    assert [True] * 64 == [before for before, _ in drawn]
    assert dict.fromkeys(kinds, 64) == kinds


def test_contexts_of_several_threads_at_once_are_all_served() -> None:
    """Each has a template of its own."""
    codes: list[list[int]] = []

    def call() -> None:
        context = spawnx.spawn(ranks.nothing, (), 2, join=False)
        assert context is not None
        finish(context)
        codes.append([process.exitcode for process in context.processes])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [[0, 0]] * 4 == codes


# Preload


def test_auto_is_what_is_vetted_and_imported_and_what_the_module_uses_of_the_standard_library() -> None:
    """By modules and by names imported from them."""
    source = "import json\nfrom collections import OrderedDict\nimport spawnx\nimport pytest\n"
    module = type(sys)("of_a_user")
    exec(source, vars(module))  # noqa: S102
    chosen = preload.chosen([module])

    assert {"json", "collections"} <= set(chosen)
    assert not {"spawnx", "pytest"} & set(chosen)


def test_module_that_stands_before_the_standard_librarys_is_not_preloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """User code doesn't run in a template."""
    shadow = tmp_path / "colorsys.py"
    shadow.write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    module = type(sys)("of_a_user")
    exec("import colorsys", vars(module))  # noqa: S102
    chosen = preload.chosen([module])
    del sys.modules["colorsys"]

    assert "colorsys" not in chosen


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('not today')", "the import of bad raised ValueError: not today"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "a thread runs after the import of bad",
        ),
        (
            "import subprocess\nprocess = subprocess.Popen(['sleep', '600'])",
            "the import of bad started a process",
        ),
        ("import os\nfd = os.open(os.devnull, os.O_RDONLY)", "the import of bad left /dev/null open"),
    ],
    ids=["raises", "thread", "process", "file"],
)
def test_preload_that_can_not_be_cloned_is_given_up_not_the_call(
    source: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, also for several calls; the ranks are cloned without."""
    name = f"bad_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    contexts = [spawnx.spawn(ranks.nothing, (), 2, join=False, preload=[name]) for _ in range(2)]
    for context in contexts:
        finish(context)
    for process in psutil.process_iter():  # of the module that starts one
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", "600"]:
                process.kill()

    assert ["clone", "clone"] == [context.launcher for context in contexts if context is not None]
    assert 1 == len(caplog.records)
    assert reason.replace("bad", name) in caplog.records[0].message


@pytest.mark.parametrize("value", ["torch", 3, [3]])
def test_preload_that_is_no_list_of_names_is_refused(value: Any) -> None:
    """Before anything is started."""
    with pytest.raises(TypeError):
        spawnx.spawn(ranks.nothing, (), 1, preload=value)


# When a template can't serve


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(3)", "the template ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "the template ended by signal 9"),
        (
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "OSError: [Errno 16]",
        ),
        (
            "import spawnx.backends.native as n; n.get_ready_to_fork = lambda: n._checked(-1)",
            "PermissionError: [Errno 1] Operation not permitted",
        ),
    ],
    ids=["exits", "is killed", "second thread", "forbidden"],
)
def test_template_that_can_not_serve_gives_way_to_exec(code: str, reason: str, tmp_path: Path) -> None:
    """One line at INFO says why; nobody notices but by the time."""
    done = run_with_template_that(code, SHOW, tmp_path)

    assert [["exec", [0] * 4], 0] == [json.loads(line) for line in done.stdout.splitlines()[-2:]], done.stderr
    assert f"ranks are started by exec, not cloned: {reason}" in done.stdout


HALF = """
    real, made = os.fork, 0

    def fork():
        global made
        if made == 2:
            {then}
        made += 1
        return real()

    os.fork = fork
"""


def test_system_that_forbids_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call starts no template."""
    monkeypatch.setattr("spawnx.launchers.clone._never", {"spawn": "the system forbids it"})
    monkeypatch.setattr("spawnx.launchers.clone.Template", None)
    context = spawnx.spawn(ranks.nothing, (), 2, join=False)
    finish(context)

    assert context is not None
    assert "exec" == context.launcher


@pytest.mark.parametrize(("name", "answer"), [("clone3", errno.ENOSYS), ("unshare", errno.EPERM)])
def test_sandbox_that_hides_a_call_gets_its_clones_by_another(name: str, answer: int) -> None:
    """As containers do: clone3, whose flags their filter can't see; unshare, by whose error threads are known."""
    source = """
        import spawnx
        from tests import ranks

        deny()
        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """

    assert "clone [0, 0, 0]\n" == with_answer(name, answer, source)


def test_template_that_dies_half_way_is_an_error_that_says_so(tmp_path: Path) -> None:
    """The clones that it had made are found in the table, and ended."""
    done = run_with_template_that(HALF.format(then="os.kill(os.getpid(), 9)"), SHOW, tmp_path)

    assert [
        "RuntimeError",
        "the template of the ranks ended by signal 9 while it made rank 2 of 4; no rank is left",
    ] == json.loads(done.stdout.splitlines()[-2]), done.stderr
    assert "0" == done.stdout.splitlines()[-1]


def test_clone_that_can_not_be_made_is_an_error_that_names_the_limit(tmp_path: Path) -> None:
    """As by exec: all or nothing."""
    then = "import errno; raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))"
    done = run_with_template_that(HALF.format(then=then), SHOW, tmp_path)
    kind, text = json.loads(done.stdout.splitlines()[-2])

    assert ("BlockingIOError", "0") == (kind, done.stdout.splitlines()[-1]), done.stderr
    assert "rank 2 of 4 could not be started" in text
    assert "RLIMIT_NPROC" in text


def test_payload_that_counts_its_readers_is_sent_by_exec(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank needs a pickle of its own, and one template has one."""
    reducers = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    monkeypatch.setitem(reducers, ranks.Registered, lambda _: (ranks.rebuild_registered, ()))
    with caplog.at_level(logging.INFO, logger="spawnx"):
        context = spawnx.spawn(ranks.take_argument, (ranks.Registered(),), 2, join=False)
        finish(context)

    assert context is not None
    assert "exec" == context.launcher
    assert any(
        "the arguments must be pickled once for each rank" in record.message for record in caplog.records
    )


def test_interrupt_while_the_template_boots_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends it; what it has made is ended."""
    source = """
        import multiprocessing, os, psutil, signal, threading
        import spawnx
        from tests import ranks

        def interrupt():
            while not [one for one in psutil.Process().children() if "template" in " ".join(one.cmdline())]:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        if __name__ == "__main__":
            threading.Thread(target=interrupt, daemon=True).start()
            try:
                spawnx.spawn(ranks.nothing, (), 4)
            except KeyboardInterrupt:
                left = [" ".join(one.cmdline()) for one in psutil.Process().children()]
                print([one for one in left if "resource_tracker" not in one])
    """
    done = run_with_template_that("import time; time.sleep(5)", source, tmp_path)

    assert "[]\n" == done.stdout, done.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_launch_leaves_no_thread(method: str, on_one_processor: None) -> None:
    """An `os.fork` of the user's would warn of it (CPython 3.12), or copy a process with several threads."""
    before = sorted(os.listdir("/proc/self/task"))
    left = []
    for _ in range(ROUNDS):
        context = spawnx.start_processes(ranks.nothing, nprocs=2, start_method=method, join=False)
        left.append(sorted(os.listdir("/proc/self/task")))
        finish(context)

    assert [before] * ROUNDS == left

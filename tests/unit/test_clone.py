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
from tests import ranks
from tests.support import LONG_S, ROOT, finish, take
from tests.unit.test_core import with_answer

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)


@pytest.fixture(autouse=True)
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone")


def told(fn: Any, count: int, **options: Any) -> list[Any]:
    """What ranks put into a queue, and that they were cloned."""
    queue = spawnx.get_context("spawn").SimpleQueue()
    context = spawnx.spawn(fn, (queue,), count, join=False, **options)
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
        [sys.executable, str(program)], env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
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


def test_clones_can_do_what_processes_do() -> None:
    """Threads, pools, subprocesses, forks, asyncio, locks."""
    assert [["forked", "pool", "process pool", "subprocess", "task", "thread"]] * 2 == told(
        ranks.put_what_works, 2
    )


def test_mask_and_handlers_are_those_of_a_fresh_interpreter() -> None:
    """All signals are blocked in the template."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        masks = told(ranks.put_mask, 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert [{signal.SIGUSR2} | before] * 2 == masks


def test_no_fd_of_the_template_is_left_in_a_clone() -> None:
    """Standard streams, the resource tracker, the queue's, the board; and what `parent_process()` waits on."""
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
def test_random_draws_of_preloaded_torch_and_numpy_differ_in_all_ranks() -> None:
    """Both have a global generator, which is renewed in every clone."""
    drawn = told(ranks.put_torch_draws, 64, preload=["numpy", "torch"])
    kinds = list(zip(*drawn, strict=True))

    assert all(already for already, *_ in drawn)
    assert [64, 64] == [len(set(kind)) for kind in kinds[1:]]


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
            "1 threads run",
        ),
        ("import subprocess\nprocess = subprocess.Popen(['sleep', '600'])", "the imports started a process"),
        ("import os\nfd = os.open(os.devnull, os.O_RDONLY)", "the imports left 1 files open"),
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
            "import spawnx.backends.native as n; n.clone_siblings = lambda *_: n._checked(-1)",
            "PermissionError: [Errno 1] Operation not permitted",
        ),
    ],
    ids=["exits", "is killed", "second thread", "forbidden"],
)
def test_template_that_can_not_serve_gives_way_to_exec(code: str, reason: str, tmp_path: Path) -> None:
    """One line at INFO says why; nobody notices but by the time."""
    done = run_with_template_that(code, SHOW, tmp_path)

    assert [["exec", [0] * 4], 0] == [json.loads(line) for line in done.stdout.splitlines()[-2:]], done.stderr
    assert f"INFO ranks are started by exec, not cloned: {reason}" in done.stdout


HALF = """
    import spawnx.backends.native as native
    real = native.clone_siblings

    def half(memory, pids_at, count, parent, signum):
        position = real(memory, pids_at, 2, parent, signum)
        if position == 0:
            {then}
        return position

    native.clone_siblings = half
"""


def test_system_that_forbids_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call starts no template."""
    monkeypatch.setattr("spawnx.launchers.clone._never", "the system forbids it")
    monkeypatch.setattr("spawnx.launchers.clone._Template", None)
    context = spawnx.spawn(ranks.nothing, (), 2, join=False)
    finish(context)

    assert context is not None
    assert "exec" == context.launcher


def test_sandbox_that_hides_clone3_gets_its_clones_by_clone() -> None:
    """As containers do, whose filter can't see the flags of the newer call."""
    source = """
        import spawnx
        from tests import ranks

        deny()
        context = spawnx.spawn(ranks.nothing, (), 3, join=False)
        while not context.join():
            pass
        print(context.launcher, [process.exitcode for process in context.processes])
    """

    assert "clone [0, 0, 0]\n" == with_answer(435, errno.ENOSYS, source)


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


def test_clones_that_became_children_of_their_template_are_no_ranks(tmp_path: Path) -> None:
    """A kernel that takes CLONE_PARENT and ignores it: here, a parent's number that is not right says the same."""
    code = """
        import spawnx.backends.native as native
        from spawnx.backends._native import lib

        def ignore(memory, pids_at, count, parent, signum):
            memory[pids_at : pids_at + 4] = lib.SPX_NO_SIBLING.to_bytes(4, sys.byteorder, signed=True)
            return 0

        native.clone_siblings = ignore
    """
    done = run_with_template_that(code, SHOW, tmp_path)

    assert [["exec", [0] * 4], 0] == [json.loads(line) for line in done.stdout.splitlines()[-2:]], done.stderr
    assert "the kernel ignores CLONE_PARENT" in done.stdout


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
    assert any("each rank needs a pickle of its own" in record.message for record in caplog.records)


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

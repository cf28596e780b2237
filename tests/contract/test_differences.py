"""Where spawnx differs from the reference on purpose. Each test shows both sides: what torch does, what spawnx does.

More of them stand where their subject is: bad input in `test_bad_input.py`, an argument that its caller drops in
`test_arguments.py`, `numa_options` in `test_call_sites.py`, lazy names in `test_namespace.py`.
"""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from spawnx import backends
from tests import ranks
from tests.ranks import Gate
from tests.support import (
    HAS_PIDFD,
    QUICK,
    QUICK_PICKLING,
    Impl,
    Program,
    finish,
    linux_only,
    needs_fork,
    posix_only,
    take,
    wait_ended,
)

CONTEXT = multiprocessing.get_context(QUICK)
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def _told(failures: list[Any]) -> list[tuple[str, int]]:
    """The class of each failure and its rank."""
    return [(type(failure).__name__, failure.error_index) for failure in failures]


def _temporary_files() -> list[str]:
    """What is in the temporary directory of this test."""
    return sorted(str(path) for path in Path(os.environ["TMPDIR"]).rglob("*"))


# A rank that is interrupted


@posix_only
@pytest.mark.parametrize(
    "how", [(ranks.raise_keyboard_interrupt,), (ranks.send_self, 2)], ids=["KeyboardInterrupt", "SIGINT"]
)
def test_interrupted_rank(impl: Impl, start_method: str, how: tuple[Any, ...]) -> None:
    """torch: a success. spawnx: a failure, "terminated with signal SIGINT", after the rank's finalizers have run."""
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    context = impl.start(ranks.interrupted_with_finalizer, (queue, *how), 1, start_method)
    failures = [failure.__reduce__()[1] for failure in impl.every_failure(context)]

    assert (
        impl.differs(
            torch=[], spawnx=[("process 0 terminated with signal SIGINT", 0, context.pids()[0], -2, "SIGINT")]
        )
        == failures
    )
    assert "finalized" == queue.get()
    assert impl.differs(torch=0, spawnx=-2) == context.processes[0].exitcode
    queue.close()


@posix_only
def test_interrupted_rank_is_quiet(impl: Impl, program: Program) -> None:
    """Neither prints a traceback for an interrupted rank, and what was printed before comes out."""
    done = program.run(
        f"""
        from tests import ranks

        if __name__ == "__main__":
            try:
                mp.start_processes(ranks.print_and_do, (ranks.raise_keyboard_interrupt,), start_method={QUICK!r})
            except mp.ProcessExitedException as error:
                print(error)
        """
    )

    assert ["printed", *impl.differs(torch=[], spawnx=["process 0 terminated with signal SIGINT"])] == (
        done.stdout.splitlines()
    )
    assert "" == done.stderr


@posix_only
def test_interrupted_rank_ends_the_others(impl: Impl) -> None:
    """torch: the others run on, with a peer missing. spawnx: they are ended."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.one_does_others_stay, (1, gate, ranks.raise_keyboard_interrupt), 3)
    gate.wait_for(2)
    gate.let()
    wait_ended(context.processes[1:2])
    try:
        context.join(0)
    except impl.mp.ProcessExitedException as error:
        found = [str(error)]
    else:
        found = []

    assert impl.differs(torch=[], spawnx=["process 1 terminated with signal SIGINT"]) == found
    assert impl.differs(torch=[True, True], spawnx=[False, False]) == [
        process.is_alive() for process in (context.processes[0], context.processes[2])
    ]
    for process in context.processes:
        process.kill()
    impl.every_failure(context)


@posix_only
def test_interrupted_process_by_hand(impl: Impl, tmp_path: Path) -> None:
    """torch's `_wrap` swallows KeyboardInterrupt; spawnx's lets it through, and the process has failed."""
    path = str(tmp_path / "report")
    process = CONTEXT.Process(
        target=impl.module._wrap, args=(ranks.do, 0, (ranks.raise_keyboard_interrupt,), path)
    )
    process.start()
    context = impl.mp.ProcessContext([process], [path])

    assert impl.differs(torch=[], spawnx=[1]) == [
        failure.exit_code for failure in impl.every_failure(context)
    ]
    process.close()


# Failures that would be lost


@posix_only
def test_rank_that_raised_and_then_exits_with_zero(impl: Impl, start_method: str) -> None:
    """torch: a success, as the exit code is 0. spawnx: a rank that reported has failed."""
    context = impl.start(ranks.do, (ranks.raise_but_exit_well, "no good"), 1, start_method)
    failures = impl.every_failure(context)

    assert impl.differs(torch=[], spawnx=[("ProcessRaisedException", 0)]) == _told(failures)
    assert impl.differs(torch=[], spawnx=[True]) == [
        str(failure).endswith("\nValueError: no good\n") for failure in failures
    ]
    assert 0 == context.processes[0].exitcode


@needs_fork
def test_grandchild_that_raises(impl: Impl) -> None:
    """torch: what a process forked by the rank raises is told as the rank's. spawnx: the rank speaks for itself."""
    context = impl.start(ranks.do, (ranks.raise_in_grandchild, "from below"))
    (failure,) = impl.every_failure(context)

    assert (
        impl.differs(torch="ProcessRaisedException", spawnx="ProcessExitedException")
        == type(failure).__name__
    )
    assert impl.differs(
        torch="ValueError: from below", spawnx="process 0 terminated with exit code 3"
    ) in str(failure)
    assert 3 == context.processes[0].exitcode


@linux_only
def test_first_failure_to_be_raised(impl: Impl) -> None:
    """torch: the one with the lowest index among those that are known. spawnx: the one that happened first."""
    queue = CONTEXT.SimpleQueue()
    hows = (ranks.raise_value_error, "first"), (ranks.raise_value_error, "second")
    context = impl.start(ranks.end_one_after_the_other, (1, queue, *hows), 2)
    wait_ended(context.processes)
    failures = impl.every_failure(context)

    assert impl.differs(torch=[0, 1], spawnx=[1, 0]) == [failure.error_index for failure in failures]
    assert impl.differs(torch="second", spawnx="first") == str(failures[0]).split()[-1]
    queue.close()


@linux_only
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((ranks.raise_value_error, "cause"), (ranks.raise_connection_reset,)),
        ((ranks.die_by, signal.SIGKILL), (ranks.raise_value_error, "consequence")),
        ((ranks.die_by, signal.SIGKILL), (ranks.raise_connection_reset,)),
    ],
    ids=["raise, then reset", "signal, then raise", "signal, then reset"],
)
def test_cause_before_its_consequence(impl: Impl, first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    """torch: the lower index first. spawnx: the cause first, that rank 1 died; rank 0 only missed its peer."""
    queue = CONTEXT.SimpleQueue()
    context = impl.start(ranks.end_one_after_the_other, (1, queue, first, second), 2)
    wait_ended(context.processes)

    assert impl.differs(torch=[0, 1], spawnx=[1, 0]) == [
        failure.error_index for failure in impl.every_failure(context)
    ]
    queue.close()


@linux_only
def test_consequence_before_its_cause(impl: Impl) -> None:
    """torch: the lower index first. spawnx: a reset connection is a consequence, even if it came first."""
    queue = CONTEXT.SimpleQueue()
    hows = (ranks.raise_connection_reset,), (ranks.raise_value_error, "cause")
    context = impl.start(ranks.end_one_after_the_other, (0, queue, *hows), 2)
    wait_ended(context.processes)

    assert impl.differs(torch=[0, 1], spawnx=[1, 0]) == [
        failure.error_index for failure in impl.every_failure(context)
    ]
    queue.close()


@linux_only
def test_rank_that_raised_and_hangs(impl: Impl) -> None:
    """torch: noticed when it ends, so never. spawnx: told when it happens, and the rank is ended."""
    context = impl.start(ranks.do, (ranks.raise_but_stay, "no good"))
    while not Path(context.error_files[0]).exists() or not Path(context.error_files[0]).stat().st_size:
        threading.Event().wait(0.01)
    try:
        context.join(timeout=1)
    except impl.mp.ProcessRaisedException as error:
        found = [str(error).endswith("ValueError: no good\n")]
    else:
        found = []
    context.processes[0].kill()
    impl.every_failure(context)

    assert impl.differs(torch=[], spawnx=[True]) == found


@posix_only
def test_ignored_sigchld(impl: Impl, program: Program) -> None:
    """Where the kernel reaps ranks itself: torch fails in its own code. spawnx still tells success from failure."""
    assert impl.differs(
        torch=["TypeError: '<' not supported between instances of 'NoneType' and 'int'"],
        spawnx=["nothing raised"],
    ) == program.output(
        f"""
        import signal
        from tests import ranks

        if __name__ == "__main__":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            try:
                mp.start_processes(ranks.nothing, start_method={QUICK!r})
                print("nothing raised")
            except Exception as error:
                print(f"{{type(error).__name__}}: {{error}}")
        """
    )


# Files


def test_error_files(impl: Impl) -> None:
    """torch: they stay in the temporary directory for ever. spawnx: they can be read until `join` raises."""
    context = impl.start(ranks.one_does, (1, ranks.raise_value_error, "no good"), 2)
    wait_ended(context.processes)
    text = pickle.loads(Path(context.error_files[1]).read_bytes())
    before = [Path(path).exists() for path in context.error_files]
    (failure,) = impl.every_failure(context)

    assert text.endswith("\nValueError: no good\n")
    assert text in str(failure)
    assert [False, True] == before
    assert [False, impl.differs(torch=True, spawnx=False)] == [
        Path(path).exists() for path in context.error_files
    ]
    assert impl.differs(torch=[context.error_files[1]], spawnx=[]) == _temporary_files()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")
def test_folder_of_error_files(impl: Impl) -> None:
    """torch: no folder of its own. spawnx: one that nobody else can enter."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    folder = Path(context.error_files[0]).parent
    gate.wait_for()

    assert impl.differs(torch=Path(os.environ["TMPDIR"]), spawnx=folder) == folder
    assert impl.differs(torch=[], spawnx=[str(folder)]) == _temporary_files()
    if not impl.is_torch:
        assert 0o700 == folder.stat().st_mode & 0o777
    gate.let()
    finish(context)
    assert [] == _temporary_files()


def test_context_that_is_dropped(impl: Impl) -> None:
    """Whoever drops a context without joining it leaves no file, on both sides, as long as no rank fails."""
    gate = Gate(CONTEXT)
    context = impl.start(ranks.wait_at, (gate,))
    processes = context.processes
    gate.wait_for()
    del context
    gate.let()
    processes[0].join()
    del processes
    gc.collect()

    assert [] == _temporary_files()


# The thread that starts ranks


@linux_only
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_thread_that_started_ranks_ends(impl: Impl, start_method: str) -> None:
    """torch: the kernel interrupts the ranks, and that is a success with no work done. spawnx: they are unharmed.

    By "forkserver" there is no difference: it starts these ranks itself, whatever thread asked for them.
    """
    queue = multiprocessing.get_context(start_method).SimpleQueue()
    gate = Gate(multiprocessing.get_context(start_method))
    contexts = []

    def start() -> None:
        contexts.append(impl.start(ranks.wait_at_then_put, (gate, queue), 2, start_method))
        gate.wait_for(2)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{thread.native_id}").exists():  # the kernel is about to end it
        threading.Event().wait(0.01)
    (context,) = contexts
    if not impl.is_torch:
        gate.let(2)
    finish(context)

    assert [0, 0] == [process.exitcode for process in context.processes]
    assert impl.differs(torch=True, spawnx=False) is queue.empty()
    assert impl.differs(torch=[], spawnx=[0, 1]) == take(queue, impl.differs(torch=0, spawnx=2))
    queue.close()


# Ranks that can't be started


def _fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, count: int, error: OSError) -> None:
    """Let a function raise when it is called for the `count`-th time, from 0, and later."""
    real = getattr(owner, name)
    calls = iter(range(1000))

    def limited(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= count:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, limited)


def _creator(impl: Impl, start_method: str) -> tuple[Any, str]:
    """The function that creates a process."""
    if start_method == "fork":
        return os, "fork"
    if impl.name == "native":
        return type(backends.named("native")), "launch"
    return multiprocessing.util, "spawnv_passfds"


@linux_only
@pytest.mark.parametrize(
    ("number", "limit"),
    [(errno.EAGAIN, "RLIMIT_NPROC"), (errno.ENOMEM, "overcommit_memory")],
    ids=["EAGAIN", "ENOMEM"],
)
@pytest.mark.parametrize(
    "start_method", [method for method in ("fork", "spawn") if method in ("spawn", QUICK)]
)
def test_rank_that_can_not_be_started(
    impl: Impl, monkeypatch: pytest.MonkeyPatch, start_method: str, number: int, limit: str
) -> None:
    """torch: ranks run on without an owner, fds are lost. spawnx: nothing is left; rank, errno, limit are named."""
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")  # clones are made elsewhere: see tests/unit/test_clone.py
    owner, name = _creator(impl, start_method)
    # Where ranks have no guardian, multiprocessing makes them: its fork loses its four pipe ends there, too.
    by_multiprocessing = impl.is_torch or not HAS_PIDFD
    gate = Gate(multiprocessing.get_context(start_method))
    told = []
    with monkeypatch.context() as patch:
        # With two ranks there: after the launch of the guardian, if it is by the same means.
        _fail_at(
            patch,
            owner,
            name,
            2 if by_multiprocessing or start_method == "fork" else 3,
            OSError(number, os.strerror(number)),
        )
        try:
            impl.mp.start_processes(ranks.wait_at, (gate,), 4, start_method=start_method)
        except OSError as error:
            told = [
                error.errno,
                *(word in str(error) for word in (os.strerror(number), "rank 2 of 4", limit)),
            ]
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
        process.join()
        process.close()
    gc.collect()
    lost = set(os.listdir("/proc/self/fd")) - before
    for fd in lost:
        os.close(int(fd))

    assert [number, True, *impl.differs(torch=[False, False], spawnx=[True, True])] == told
    assert impl.differs(torch=2, spawnx=0) == len(left)
    assert (4 if by_multiprocessing and start_method == "fork" else 0) == len(lost)
    assert [] == _temporary_files()


@linux_only
@needs_fork
@pytest.mark.skipif(not IS_ROOT, reason="needs root, to become a user without processes")
def test_rank_beyond_the_limit_of_processes(impl: Impl, program: Program) -> None:
    """The same at a real limit: torch's ranks are left, spawnx names the rank and the limit."""
    assert impl.differs(
        torch=["3 left", "[Errno 11] Resource temporarily unavailable", "False"],
        spawnx=[
            "0 left",
            "[Errno 11] rank 3 of 8 could not be started: Resource temporarily unavailable",
            "True",
        ],
    ) == program.output(
        f"""
        import multiprocessing, os, resource, tempfile
        from tests import ranks

        if __name__ == "__main__":
            try:  # all that is imported on the way must be, before this user can't read it
                mp.start_processes(ranks.do, (ranks.die_by, 9), start_method="fork")
            except mp.ProcessExitedException:
                pass
            gate = ranks.Gate(multiprocessing.get_context("fork"))
            tempfile.tempdir = "/tmp"
            os.environ["SPAWNX_ORPHAN_GRACE"] = "off"  # a guardian would be one more process
            os.setuid(2**16 + {os.getpid()})
            resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))  # with this process itself
            try:
                mp.start_processes(ranks.wait_at, (gate,), 8, start_method="fork")
            except OSError as error:
                left = multiprocessing.active_children()
                print(len(left), "left")
                for process in left:
                    process.kill()
                    process.join()
                head, _, limit = str(error).partition("; ")
                print(head)
                print("RLIMIT_NPROC" in limit and "now 4" in limit)
        """
    )


@linux_only
@needs_fork
def test_ranks_beyond_the_limit_of_fds(impl: Impl, program: Program) -> None:
    """torch: the ranks up to the limit run on, and nobody holds them. spawnx: all ranks run, and are joined.

    Without pidfds it holds them by multiprocessing's pipes, too, and then tells which one there was no room for.
    """
    no_room = "rank 0 of 50 could not be started: Too many open files, none left"
    assert impl.differs(
        torch=["Too many open files, some left"],
        spawnx=["all joined, none left" if HAS_PIDFD else no_room],
    ) == program.output(
        """
        import ctypes, multiprocessing, os, resource  # ctypes: some builds of libffi keep a file of their own open
        from tests import ranks

        if __name__ == "__main__":
            gate = ranks.Gate(multiprocessing.get_context("fork"))
            used = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 6, used + 6))
            try:
                context = mp.start_processes(ranks.wait_at, (gate,), 50, join=False, start_method="fork")
                gate.let(50)
                while not context.join():
                    pass
                told = "all joined"
            except OSError as error:
                told = error.strerror.partition(";")[0]
            left = multiprocessing.active_children()
            for process in left:
                process.kill()
                process.join()
            print(f"{told}, {'some' if left else 'none'} left")
        """
    )


# One pickle


@pytest.mark.parametrize("start_method", [QUICK_PICKLING])
def test_arguments_are_pickled(impl: Impl, monkeypatch: pytest.MonkeyPatch, start_method: str) -> None:
    """torch: once for each rank. spawnx: once."""
    monkeypatch.setattr(ranks.CountsPickles, "pickles", 0)
    context = impl.start(ranks.accept, (ranks.CountsPickles(),), 3, start_method)
    finish(context)

    assert impl.differs(torch=3, spawnx=1) == ranks.CountsPickles.pickles


def test_iterator_of_arguments(impl: Impl, start_method: str) -> None:
    """torch: it is handed to each rank, and read there. spawnx: it is read once, to the same effect."""
    context = multiprocessing.get_context(start_method)
    receiver, sender = context.Pipe(duplex=False)
    arguments = iter([sender, "x"])
    finish(impl.start(ranks.send_args, arguments, 2, start_method))

    assert [(0, ("x",)), (1, ("x",))] == sorted(receiver.recv() for _ in range(2))
    assert impl.differs(torch=[sender, "x"], spawnx=[]) == list(arguments)
    receiver.close()
    sender.close()


# Warnings


@posix_only
def test_many_terminated_ranks_are_logged(impl: Impl, caplog: pytest.LogCaptureFixture) -> None:
    """torch: one WARNING for each of 9 ranks and more. spawnx: one that sums up."""
    gate = Gate(CONTEXT)
    with caplog.at_level(logging.WARNING):
        context = impl.start(ranks.one_does_others_ignore_sigterm, (0, gate, ranks.exit_with, 3), 10)
        gate.wait_for(9)
        gate.let()
        impl.every_failure(context, grace_period=0)
    texts = [record.getMessage() for record in caplog.records if record.name == impl.logger]

    assert impl.differs(torch=[9, 9], spawnx=[1, 1]) == [
        sum(word in text for text in texts) for word in ("Terminating", "Unable to shutdown")
    ]
    assert impl.differs(torch=[], spawnx=[True, True]) == [
        "9 processes" in text for text in texts if not impl.is_torch
    ]


# What ranks hold


@linux_only
@needs_fork
def test_fds_of_other_ranks(impl: Impl) -> None:
    """torch: each forked rank inherits pipes of all ranks before it. spawnx: none."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    finish(impl.start(ranks.put_number_of_fds, (queue,), 8, "fork"))
    numbers = [number for _, number in sorted(queue.get() for _ in range(8))]

    assert impl.differs(torch=True, spawnx=False) is (numbers[-1] > numbers[0])
    queue.close()


# Additions


def test_launcher_is_told(impl: Impl, start_method: str) -> None:
    """spawnx says how it started the ranks; the reference has one way only."""
    context = impl.start(ranks.nothing, nprocs=0, start_method=start_method)

    assert impl.differs(torch=False, spawnx=True) is hasattr(context, "launcher")

"""What a rank has made lives on: the resource tracker of the supervisor knows it, and nobody else removes it."""

from __future__ import annotations

import os
import textwrap
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from spawnx import backends
from tests.support import HAS_PIDFD, ROOT, Impl, Program, linux_only

pytestmark = linux_only

# As CPython 3.13.18, 3.14.10 and 3.15.2 have it (gh-146313): a forked child closes the fd of its parent's tracker.
NEWER_HOOK = """
    import os, threading
    from multiprocessing import resource_tracker

    def close_unless_preserved(tracker=resource_tracker._resource_tracker):
        tracker._pid = None
        if tracker._fd is not None and not getattr(resource_tracker._fork_intent, "preserve_fd", False):
            os.close(tracker._fd)
            tracker._fd = None

    if not hasattr(resource_tracker, "_fork_intent"):
        resource_tracker._fork_intent = threading.local()
        os.register_at_fork(after_in_child=close_unless_preserved)
"""

# A rank makes things, and ends; its tracker, if it has one, ends after it. Then the supervisor uses the things.
PROGRAM = """
    import multiprocessing, os, sys
    from multiprocessing import resource_tracker, shared_memory

    method = sys.argv[1]

    def make(rank, queue):
        forked = os.fork()  # by the rank itself: expects what it always does
        if not forked:
            os._exit(0)
        os.waitpid(forked, 0)
        memory = shared_memory.SharedMemory(create=True, size=64)
        memory.buf[0] = 42
        semaphore = multiprocessing.get_context(method).Semaphore(3)
        queue.put((memory.name, semaphore._semlock.name))
        memory.close()

    if __name__ == "__main__":
        resource_tracker.ensure_running()  # forked ranks have it only if it runs
        queue = multiprocessing.get_context(method).SimpleQueue()
        context = mp.start_processes(make, (queue,), 2, join=False, start_method=method)
        while not context.join():
            pass
        for _ in range(2):
            name, _ = queue.get()
            memory = shared_memory.SharedMemory(name)
            print(memory.buf[0])
            memory.close()
            memory.unlink()
        print(context.launcher)
"""

WAYS = [
    ("native", "auto", "spawn", "clone"),
    ("native", "exec", "spawn", "exec"),
    ("native", "stdlib", "spawn", "stdlib"),
    ("native", "auto", "forkserver", "forkserver"),
    ("native", "auto", "fork", "fork"),
    ("python", "auto", "spawn", "exec" if HAS_PIDFD else "stdlib"),
    ("python", "auto", "fork", "fork" if HAS_PIDFD else "stdlib"),
    ("python", "auto", "forkserver", "stdlib"),
]


@pytest.mark.parametrize(("backend", "launcher", "method", "served"), WAYS)
def test_shared_memory_of_a_rank_outlives_it(
    backend: str, launcher: str, method: str, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by multiprocessing: a rank returns the name of what it has made, and the supervisor opens it."""
    if backend not in backends.available():
        pytest.skip("this installation has no C core")
    site = tmp_path / "site"
    site.mkdir()
    # What multiprocessing forks itself knows its own hook, and not this one.
    if (method, served) != ("fork", "stdlib"):
        (site / "sitecustomize.py").write_text(textwrap.dedent(NEWER_HOOK), encoding="utf-8")
    monkeypatch.setenv("SPAWNX_BACKEND", backend)
    # A template that has start-up code makes clones only if that is insisted on.
    monkeypatch.setenv("SPAWNX_LAUNCHER", "clone" if launcher == "auto" else launcher)
    program = Program(Impl(backend), tmp_path)
    places = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = program.run_command(program.command(PROGRAM, method), env={**program.environment, **places})

    assert (["42", "42", served], "") == (done.stdout.splitlines(), done.stderr)


def test_child_that_a_rank_forks_itself_has_no_tracker_of_its_parents(tmp_path: Path) -> None:
    """The flag holds for ranks alone: what these fork by os.fork closes the fd, where the interpreter has it so."""
    if not hasattr(resource_tracker, "_fork_intent"):
        pytest.skip("this interpreter keeps it: CPython before 3.13.18, 3.14.10 and 3.15.2")
    source = """
        import multiprocessing, os
        from multiprocessing import resource_tracker

        def look(rank, queue):
            reader, writer = os.pipe()
            if not os.fork():
                os.write(writer, str(resource_tracker._resource_tracker._fd).encode())
                os._exit(0)
            os.wait()
            queue.put(os.read(reader, 99).decode())

        if __name__ == "__main__":
            for method in ("spawn", "fork", "forkserver"):
                queue = multiprocessing.get_context(method).SimpleQueue()
                mp.start_processes(look, (queue,), 1, start_method=method)
                print(queue.get())
    """

    assert ["None"] * 3 == Program(Impl("native"), tmp_path).output(source)

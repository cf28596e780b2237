"""What ranks have from the thread that asks for them: all that any child of it has, one thing at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spawnx import backends
from tests.support import Impl, Program, linux_only

pytestmark = linux_only

# What a thread does to itself -> how, by the calls of `tests.interpreter`. Those that can't be taken back come last.
# What this system doesn't allow changes nothing, and is told.
CHANGES = {
    "nothing": "pass",
    "I/O priority": "check(syscall(251, 30, 1, 0, (3 << 13) | 5))",
    "memory policy": "check(syscall(238, 237, 2, ctypes.byref(ctypes.c_ulong(1)), 64))",
    "nice": "os.nice(2)",
    "batch scheduling": "interpreter.schedule_as_batch()",
    "clamped utilization": "check(syscall(314, 274, 0, (ctypes.c_uint * 14)(56, 3, 104, 0, 2, *[0] * 7, 9, 800), 0))",
    "timer slack": "check(libc.prctl(29, 70000, 0, 0, 0))",
    "personality": "check(interpreter.call('personality', 0x0040000))",
    "session keyring": "check(interpreter.call('keyctl', 1, None))",
    "core dumps": "open('/proc/thread-self/coredump_filter', 'w').write('0x3')",
    "out-of-memory score": "open('/proc/thread-self/oom_score_adj', 'w').write('9')",
    "no large pages": "check(libc.prctl(41, 1, 0, 0, 0))",
    "memory merge": "check(libc.prctl(67, 1, 0, 0, 0))",
    "machine checks": "check(libc.prctl(33, 1, 1, 0, 0))",
    "host's name": "check(libc.unshare(0x04000000))",
    "groups": "check(libc.setgroups(1, ctypes.byref(ctypes.c_uint(12))))",
    "bounding set": "check(libc.prctl(24, 30, 0, 0, 0))",
    "secure bits": "check(libc.prctl(28, 1 << 2, 0, 0, 0))",
    "speculation": "check(libc.prctl(53, 0, 4, 0, 0))",
    "core scheduling": "check(libc.prctl(62, 1, 0, 1, 0))",
    "no new rights": "check(libc.prctl(38, 1, 0, 0, 0))",
    "no new code": "check(libc.prctl(65, 1, 0, 0, 0))",
}
if sys.implementation.name == "pypy":
    del CHANGES["no new code"]  # without which its JIT ends the process
EACH_CHANGE = """
    import ctypes, json, multiprocessing, os, sys, threading
    from tests import interpreter

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(on_x86_64, elsewhere, *arguments):
        return libc.syscall(on_x86_64 if os.uname().machine == "x86_64" else elsewhere, *arguments)

    def check(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def of_rank(method):
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        context = mp.start_processes(interpreter.put_inherited, (queue,), 1, join=False, start_method=method)
        found = queue.get()
        while not context.join():
            pass
        return found

    def of_process(method):
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        context = multiprocessing.get_context("fork" if method == "fork" else "spawn")
        process = context.Process(target=interpreter.put_inherited, args=(0, queue))
        process.start()
        found = queue.get()
        process.join()
        return found

    def change_and_compare(method):
        for name, change in json.loads(sys.argv[2]).items():
            try:
                exec(change, globals())
            except OSError as error:
                told[name] = f"not here: {error}"
                continue
            found, expected = of_rank(method), of_process(method)
            told[name] = repr({key: [found[key], expected[key]] for key in expected if found[key] != expected[key]})

    if __name__ == "__main__":
        told = {}
        if sys.argv[3] == "the main thread":
            change_and_compare(sys.argv[1])
        else:
            of_rank(sys.argv[1])
            thread = threading.Thread(target=change_and_compare, args=(sys.argv[1],))
            thread.start()
            thread.join()
        with open(sys.argv[4], "w") as file:
            json.dump(told, file)
"""


# Not multiprocessing's own forkserver: its ranks are children of a process that was started earlier.
@pytest.mark.parametrize("thread", ["the main thread", "another thread"])
@pytest.mark.parametrize(
    ("backend", "launcher", "method"),
    [
        ("native", "auto", "spawn"),
        ("native", "exec", "spawn"),
        ("native", "auto", "forkserver"),
        ("native", "auto", "fork"),
        ("python", "exec", "spawn"),
    ],
)
def test_rank_has_what_a_child_of_the_calling_thread_has(
    backend: str, launcher: str, method: str, thread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when the ranks are asked for, not as it was at an earlier call, nor as it is in another thread."""
    if backend not in backends.available():
        pytest.skip("this installation has no C core")
    monkeypatch.setenv("SPAWNX_BACKEND", backend)
    monkeypatch.setenv("SPAWNX_LAUNCHER", launcher)
    program = Program(Impl(backend), tmp_path)
    out = tmp_path / "out"
    done = program.run_command(
        program.command(EACH_CHANGE, method, json.dumps(CHANGES), thread, str(out)), timeout=140
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text(encoding="utf-8"))

    assert dict.fromkeys(CHANGES, "{}") == {
        name: "{}" if what.startswith("not here") else what for name, what in told.items()
    }
    assert "{}" == told["I/O priority"] == told["timer slack"]

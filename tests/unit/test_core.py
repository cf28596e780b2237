"""The C core by itself: what each call returns, and what it never does."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawnx import backends
from spawnx.backends.contract import Program
from tests.support import ROOT

if "native" not in backends.available():
    pytest.skip("this installation has no C core", allow_module_level=True)

from spawnx.backends._native import ffi, lib
from spawnx.backends.native import NativeBackend

NATIVE = NativeBackend()
# A fresh interpreter, also for what a shell could do: under TSan a shell crashes.
PYTHON = [sys.executable, "-S", "-E", "-c"]
EXIT_7 = [*PYTHON, "import sys; sys.exit(7)"]

UNDER_TSAN = "tsan" in os.environ.get("LD_PRELOAD", "")
needs_vfork = pytest.mark.skipif(UNDER_TSAN, reason="TSan makes a fork of vfork")


@pytest.fixture
def child() -> Iterator[int]:
    """A child that waits for ever; its pid. It is gone at the end."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the test has ended and reaped it
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def pidfd(child: int) -> Iterator[int]:
    """A pidfd of that child."""
    opened = NATIVE.open_pidfd(child)
    yield opened
    os.close(opened)


def program(argv: list[str], **options: object) -> Program:
    """What to launch, with no special wishes."""
    return Program(argv, **{"keep": (), "death_signal": 0, "mask": (), **options})  # type: ignore[arg-type]


def ended(pidfd: int) -> int:
    """Wait for a child to end, reap it and close its pidfd; returns its exit code."""
    watch = NATIVE.open_watch()
    watch.add(pidfd, 0)
    ((_, code, _),) = watch.wait(60)
    watch.close()
    NATIVE.reap([pidfd])
    os.close(pidfd)
    assert code is not None
    return code


def output(argv: list[str], **options: object) -> str:
    """Launch a program that must end well, and read what it writes to fd 3 or above, passed as `{fd}`."""
    read, write = os.pipe()
    keep = [write, *options.pop("keep", ())]  # type: ignore[misc]
    _, pidfd = NATIVE.launch(program([word.format(fd=write) for word in argv], keep=keep, **options))
    os.close(write)
    with open(read, encoding="utf-8") as file:
        text = file.read()
    assert ended(pidfd) == 0
    return text


# The surface


def header() -> tuple[set[str], set[str]]:
    """The functions and the constants that the header declares."""
    text = re.sub(
        r"/\*.*?\*/", "", Path(ROOT, "csrc", "spawnx.h").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return set(re.findall(r"(?:int|void) (spx_\w+)\(", text)), set(re.findall(r"(SPX_\w+) =", text))


def test_header_stub_and_library_agree() -> None:
    """What the type checker believes is what was compiled, and all of it."""
    functions, constants = header()
    stub = ast.parse(Path(backends.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
    (members,) = (node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "_Lib")
    methods = [node for node in members.body if isinstance(node, ast.FunctionDef)]
    stubbed = {node.name: len(node.args.posonlyargs + node.args.args) - 1 for node in methods}
    compiled = {name: len(ffi.typeof(getattr(lib, name)).args) for name in functions}

    assert compiled == stubbed
    variables = {"environ"}  # libc's
    assert constants | variables == {
        node.target.id  # type: ignore[union-attr]
        for node in members.body
        if isinstance(node, ast.AnnAssign)
    }
    assert functions | constants | variables == set(dir(lib))


def test_header_has_no_preprocessor_line() -> None:
    """cffi reads it as it is."""
    lines = Path(ROOT, "csrc", "spawnx.h").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line.lstrip().startswith("#")] == []


# Errors


def test_bad_fds_give_minus_errno() -> None:
    """No exception comes out of the core, and nothing is written on failure."""
    code, watch = ffi.new("int *", 77), ffi.new("struct spx_watch *", {"fd": -1})

    assert -errno.EBADF == lib.spx_peek(9999, code)
    assert -errno.EBADF == lib.spx_fan_out([-1], 1, signal.SIGTERM)
    assert -errno.EBADF == lib.spx_watch_add(watch, 0, 0)
    assert -errno.EBADF == lib.spx_watch_wait(watch, 0, 1, 0)
    assert -errno.EINVAL == lib.spx_open_pidfd(-1)
    assert 77 == code[0]


def test_error_of_the_core_is_an_oserror_of_that_number() -> None:
    """The border is crossed once."""
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        NATIVE.peek(9999)

    assert errno.EBADF == raised.value.errno


def test_unknown_signal_is_told_after_all_were_tried(pidfd: int) -> None:
    """The first other error than "it has ended"."""
    assert -errno.EINVAL == lib.spx_fan_out([pidfd, pidfd], 2, 9999)


def with_answer(name: str, answer: int, source: str) -> str:
    """What a program prints whose system call of that name is answered by an errno: see `tests.sandbox`.

    The program finds `deny`, which installs the filter, and `launch`, which launches a program and prints how it ended.
    """
    if os.uname().machine != "x86_64":
        pytest.skip("the filter has the numbers of x86_64")
    preamble = f"""
        import errno, os, sys
        from spawnx.backends.contract import Program
        from spawnx.backends.native import NativeBackend
        from spawnx.backends._native import ffi, lib
        from tests import sandbox
        from tests.unit.test_core import PYTHON, ended

        def deny():
            sandbox.deny({name!r}, {answer})

        def launch(*argv, keep=(), death_signal=0):
            program = Program(argv, keep=keep, death_signal=death_signal, mask=())
            try:
                print(ended(NativeBackend().launch(program)[1]))
            except OSError as error:
                print(errno.errorcode[error.errno])
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(source)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("pidfd_open", "lib.spx_open_pidfd(os.getpid())"),
        ("waitid", "lib.spx_sweep([os.getpid()], 1, ffi.new('struct spx_seen[]', 1), 1)"),
        ("pidfd_send_signal", "lib.spx_fan_out([0], 1, 0)"),
    ],
)
def test_kernel_that_lacks_a_call_answers_enosys(name: str, call: str) -> None:
    """A filter stands for it; the pure backend's probe takes the same answer for "no"."""
    source = f"own = NativeBackend().has_pidfd(); deny(); print(own, {call} == -errno.ENOSYS)"

    assert "True True\n" == with_answer(name, errno.ENOSYS, source)


def test_sandbox_that_forbids_the_death_signal_still_gets_its_ranks() -> None:
    """Armed before the exec or by the rank itself: they then live as on systems that have no such signal."""
    source = "deny(); launch(*PYTHON, '', death_signal=2); print(NativeBackend().arm(2, os.getppid()))"

    assert "0\nTrue\n" == with_answer("prctl", errno.EPERM, source)


# Watch, peek, reap


def test_child_is_seen_until_it_is_discarded_and_reaped_once(child: int, pidfd: int) -> None:
    """A look consumes nothing; reaping twice is reaping once."""
    watch = NATIVE.open_watch()
    watch.add(pidfd, 5)
    before = (watch.wait(0), NATIVE.peek(pidfd))
    NATIVE.fan_out([pidfd], signal.SIGKILL)
    first, again = watch.wait(60), watch.wait(0)
    NATIVE.reap([pidfd])
    NATIVE.reap([pidfd])
    watch.discard([pidfd])
    watch.discard([pidfd])
    after = watch.wait(0)
    watch.close()

    assert ([], None, []) == (*before, after)
    assert [(5, -signal.SIGKILL)] == [seen[:2] for seen in first] == [seen[:2] for seen in again]
    assert first[0][2] > 0  # KiB of peak memory


def test_more_children_than_a_batch_are_all_seen() -> None:
    """What doesn't fit is ready at the next call."""
    count = lib.SPX_BATCH + 44
    read, write = os.pipe()
    pidfds = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        pidfds.append(NATIVE.open_pidfd(pid))
    watch = NATIVE.open_watch()
    for rank, pidfd in enumerate(pidfds):
        watch.add(pidfd, rank)
    os.close(write)
    os.close(read)
    ranks: set[int] = set()
    while len(ranks) < count:
        seen = [rank for rank, _, _ in watch.wait(60)]
        assert 0 < len(seen) <= lib.SPX_BATCH
        watch.discard([pidfds[rank] for rank in seen])
        NATIVE.reap([pidfds[rank] for rank in seen])
        ranks.update(seen)
    watch.close()
    for pidfd in pidfds:
        os.close(pidfd)

    assert ranks == set(range(count))


@pytest.mark.parametrize(("code", "count"), [(0, 3), (7, 1)])
def test_ends_in_a_row_are_gathered_up_to_one_that_failed(code: int, count: int) -> None:
    """Who waits for all three is told of three that end well in one call, of a failure while two still live."""
    watch = ffi.new("struct spx_watch *")
    lib.spx_watch_open(watch)
    (first, let), ends, pidfds = os.pipe(), [], []
    before = first
    for _ in range(3):  # each ends when the one before has: that held the other end of its pipe
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(let)
            os.read(before, 1)
            os._exit(code)
        if code == 0:
            os.close(write)
        else:  # so the others live
            ends.append(write)
        ends.append(before)
        before = read
        pidfds.append(NATIVE.open_pidfd(pid))
        lib.spx_watch_add(watch, pidfds[-1], 0)
    os.close(let)
    told = lib.spx_watch_wait(watch, -1, 3, 60_000)
    NATIVE.fan_out(pidfds, signal.SIGKILL)
    for pidfd in pidfds:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    for fd in (watch.fd, before, *ends, *pidfds):
        os.close(fd)

    assert count == told


@pytest.mark.parametrize("name", backends.available())
def test_fd_that_is_no_childs_is_told_as_long_as_it_is_readable(name: str, pidfd: int) -> None:
    """What was read from it is gone; the child is watched beside it, and who is discarded is told no longer."""
    (read, write), watch = os.pipe(), backends.named(name).open_watch()
    watch.add(pidfd, 0)
    watch.add(read, -2)
    before = watch.wait(0)
    os.write(write, b"..")
    told = [[rank for rank, _, _ in watch.wait(60, 5)]]
    for _ in range(2):
        os.read(read, 1)
        told.append([rank for rank, _, _ in watch.wait(0)])
    os.write(write, b".")
    NATIVE.fan_out([pidfd], signal.SIGKILL)
    wait_ended = select.poll()
    wait_ended.register(pidfd, select.POLLIN)
    wait_ended.poll()
    told.append(sorted(rank for rank, _, _ in watch.wait(60)))
    watch.discard([read])
    told.append([rank for rank, _, _ in watch.wait(60)])
    watch.close()
    os.close(read)
    os.close(write)

    assert [] == before
    assert [[-2], [-2], [], [-2, 0], [0]] == told


def test_fd_that_is_no_childs_ends_the_gathering_of_ends(pidfd: int) -> None:
    """A report is told at once, also to who waits for all."""
    (read, write), watch = os.pipe(), NATIVE.open_watch()
    watch.add(pidfd, 0)
    watch.add(read, -2)
    os.write(write, b".")
    start = time.monotonic()
    seen = watch.wait(60, 2)
    took = time.monotonic() - start
    watch.close()
    os.close(read)
    os.close(write)

    assert [-2] == [rank for rank, _, _ in seen]
    assert took < 30


def test_signal_whose_handler_returns_does_not_end_a_wait(pidfd: int) -> None:
    """-EINTR is waited through, with the time that is left."""
    watch = NATIVE.open_watch()
    watch.add(pidfd, 0)
    calls: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    start = time.monotonic()
    try:
        seen = watch.wait(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    took = time.monotonic() - start
    watch.close()

    assert ([], True, True) == (seen, took >= 0.1, len(calls) > 1)


def test_interrupt_ends_a_blocking_wait(pidfd: int) -> None:
    """Ctrl-C works while the core waits for ever."""
    watch = NATIVE.open_watch()
    watch.add(pidfd, 0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()
    timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            watch.wait(None)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
        watch.close()


def test_child_that_was_seen_is_told_before_an_error(child: int, pidfd: int) -> None:
    """What was written is never thrown away; the error is found again."""
    read, write = os.pipe()
    os.write(write, b".")
    seen, watch = ffi.new("struct spx_seen[]", 2), ffi.new("struct spx_watch *")
    lib.spx_watch_open(watch)
    lib.spx_watch_add(watch, pidfd, 5)
    lib.spx_fan_out([pidfd], 1, signal.SIGKILL)
    lib.spx_watch_wait(watch, -1, 1, 0)
    lib.spx_watch_add(watch, read, 6)
    watched = lib.spx_watch_wait(watch, -1, 2, 0), watch.seen[0].rank
    lib.spx_watch_discard(watch, [pidfd], 1)
    after = lib.spx_watch_wait(watch, -1, 1, 0), lib.spx_watch_wait(watch, -1, 1, 0)
    swept = lib.spx_sweep([child, 0], 2, seen, 2), seen[0].code, lib.spx_sweep([0], 1, seen, 2)
    for fd in (read, write, watch.fd):
        os.close(fd)

    assert ((1, 5), (-errno.EBADF,) * 2) == (watched, after)
    assert (1, -signal.SIGKILL, -errno.EINVAL) == swept


def test_children_of_others_are_never_reaped(child: int, pidfd: int) -> None:
    """A child that was not given to the watch stays a zombie for whoever waits for it."""
    other = subprocess.Popen([*PYTHON, ""])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    watch = NATIVE.open_watch()
    watch.add(pidfd, 0)
    NATIVE.fan_out([pidfd], signal.SIGKILL)
    watch.wait(60)
    NATIVE.reap([pidfd])
    watch.close()

    assert 0 == other.wait()


def test_recycled_pid_is_never_signalled() -> None:
    """A pidfd of a dead child refers to no process that got its number: forced by `ns_last_pid`."""
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last_pid, os.W_OK):
        pytest.skip("needs the right to choose pids (CAP_CHECKPOINT_RESTORE)")
    pid, pidfd = NATIVE.launch(program(EXIT_7))
    stranger = None
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    for _ in range(200):
        last_pid.write_text(str(pid - 1), encoding="ascii")
        stranger = os.fork()
        if stranger == 0:
            signal.pause()
            os._exit(0)
        if stranger == pid:
            break
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
    else:
        os.close(pidfd)
        pytest.skip("another process takes the numbers faster")
    NATIVE.fan_out([pidfd], signal.SIGKILL)
    alive = os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    os.close(pidfd)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)

    assert alive


# Launch


def test_launched_program_ends_with_its_exit_code() -> None:
    """From the launch to the reaping."""
    pid, pidfd = NATIVE.launch(program(EXIT_7))

    assert (True, 7) == (pid > 0, ended(pidfd))


@pytest.mark.parametrize(
    ("path", "number"), [("/nowhere", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/", errno.EACCES)]
)
def test_failed_exec_is_told_by_its_errno(path: str, number: int) -> None:
    """And leaves no child."""
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        NATIVE.launch(program([path]))

    assert number == raised.value.errno


def test_launched_program_has_the_kept_fds_and_no_others() -> None:
    """Whatever is inheritable otherwise."""
    leaking = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaking, True)
    high = os.open("/dev/null", os.O_RDONLY)
    kept = os.dup2(high, 200, inheritable=False)
    code = "import os; os.write({fd}, ' '.join(sorted(os.listdir('/proc/self/fd'), key=int)).encode())"
    fds = output([*PYTHON, code], keep=[kept]).split()
    for fd in (leaking, high, kept):
        os.close(fd)

    assert {"0", "1", "2", "200"} < set(fds)
    assert 6 == len(fds)  # those, the pipe, and the folder that was listed


def test_kept_fds_among_the_standard_streams_close_none_of_the_others() -> None:
    """A supervisor without streams gets such numbers for its own files."""
    kept = os.dup(0)
    _, pidfd = NATIVE.launch(program([*PYTHON, "import os; os.fstat(2)"], keep=[0, 1, kept]))
    os.close(kept)

    assert 0 == ended(pidfd)


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1)])
def test_caller_without_standard_streams_hands_on_what_it_has(closed: tuple[int, ...]) -> None:
    """There, the pipe of the core itself gets their numbers."""
    source = f"""
        import os
        from tests.unit.test_core import NATIVE, PYTHON, ended, program
        for fd in {closed}:
            os.close(fd)
        _, pidfd = NATIVE.launch(program([*PYTHON, "import os; os.write(2, b'heard')"]))
        os._exit(ended(pidfd))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert (0, "heard") == (done.returncode, done.stderr)


@pytest.mark.parametrize("which", ["far", "pipe's first", "pipe's second", "negative"])
def test_kept_fd_that_is_not_open_is_told(which: str) -> None:
    """Also if the pipe of the core itself gets its number; nobody waits for the end of a program that holds it."""
    free = [os.dup(0), os.dup(0)]
    for fd in free:
        os.close(fd)
    missing = {"far": 900, "pipe's first": free[0], "pipe's second": free[1], "negative": -1}[which]
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        NATIVE.launch(program(["/bin/sleep", "600"], keep=[missing]))

    assert errno.EBADF == raised.value.errno


def test_kernel_without_close_range_closes_fds_one_by_one() -> None:
    """Before Linux 5.9."""
    source = """
        leaking = os.dup2(0, 300, inheritable=True)
        kept = os.dup2(0, 301)
        deny()
        code = "import os, sys; sys.exit([os.path.exists(f'/proc/self/fd/{fd}') for fd in (300, 301)] != [False, True])"
        launch(*PYTHON, code, keep=[kept])
        """

    assert "0\n" == with_answer("close_range", errno.ENOSYS, source)


@needs_vfork
def test_sandbox_that_forbids_vfork_launches_by_fork() -> None:
    """With the same fds, mask and exit code; an exec that fails is known, too."""
    source = "deny(); launch(*PYTHON, 'import sys; sys.exit(7)', death_signal=9); launch('/nowhere')"

    assert "7\nENOENT\n" == with_answer("vfork", errno.EPERM, source)


@pytest.mark.parametrize(
    ("name", "answer"),
    [pytest.param("vfork", errno.EAGAIN, marks=needs_vfork), ("pidfd_open", errno.EMFILE)],
)
def test_launch_that_fails_leaves_no_child(name: str, answer: int) -> None:
    """Neither where there is none, nor where it can't be held."""
    source = """
        deny()
        launch("/bin/sleep", "600")
        print(open(f"/proc/self/task/{os.getpid()}/children").read())
        """

    assert f"{errno.errorcode[answer]}\n\n" == with_answer(name, answer, source)


def test_unknown_death_signal_is_told() -> None:
    """As any other failure before the exec."""
    with pytest.raises(OSError, match="Invalid argument"):
        NATIVE.launch(program(EXIT_7, death_signal=999))


@needs_vfork
def test_launch_is_not_held_up_by_what_another_thread_forks() -> None:
    """A child that is forked in the middle of a launch has the pipe of the core, for as long as it lives."""
    forked: list[int] = []
    launched = threading.Event()

    def fork() -> None:
        while not launched.is_set() and len(forked) < 200:
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            forked.append(pid)

    thread = threading.Thread(target=fork)
    thread.start()
    codes = [ended(NATIVE.launch(program(["/bin/true"]))[1]) for _ in range(20)]
    launched.set()
    thread.join()
    for pid in forked:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    assert [0] * 20 == codes


@pytest.mark.parametrize("path", ["/bin/true", "/nowhere"])
def test_callers_mask_is_what_it_was_after_a_launch(path: str) -> None:
    """Everything is blocked only until the program runs, or could not."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        with contextlib.suppress(FileNotFoundError):
            ended(NATIVE.launch(program([path]))[1])
        after = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert before | {signal.SIGUSR2} == after


def test_launched_program_has_the_mask_that_was_asked_for() -> None:
    """Not the one that is in force while it is launched."""
    code = "import os, signal; os.write({fd}, repr(sorted(signal.pthread_sigmask(0, ()))).encode())"
    mask = output([*PYTHON, code], mask=[signal.SIGUSR1, signal.SIGTERM])

    assert repr(sorted([signal.SIGUSR1, signal.SIGTERM])) == mask


def test_launched_program_has_default_handlers() -> None:
    """Ours are not its own; what is ignored stays so, as after any exec."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None), signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    code = "import os, signal; os.write({fd}, repr([signal.getsignal(s) for s in (10, 12)]).encode())"
    try:
        handlers = output([*PYTHON, code])
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])

    assert repr([signal.SIG_DFL, signal.SIG_IGN]) == handlers


def test_launched_program_has_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """As os.environ has it."""
    monkeypatch.setenv("SPAWNX_TEST_VALUE", "grün=1")
    code = "import os; os.write({fd}, os.environ['SPAWNX_TEST_VALUE'].encode())"

    assert "grün=1" == output([*PYTHON, code])


def test_launched_program_is_armed_before_the_exec() -> None:
    """The death signal is there before the program's first instruction."""
    code = "import ctypes, os; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); "
    code += "os.write({fd}, b'%d' % n.value)"

    assert str(int(signal.SIGUSR2)) == output([*PYTHON, code], death_signal=signal.SIGUSR2)


def test_arming_compares_the_parent() -> None:
    """Who was orphaned before is told so; a parent in an outer pid namespace is 0 and can't be compared."""
    pid = os.fork()
    if pid == 0:
        parent = os.getppid()
        os._exit(10 * lib.spx_arm(0, parent) + lib.spx_arm(0, parent + 1))
    _, status = os.waitpid(pid, 0)

    assert lib.SPX_ORPHAN == os.waitstatus_to_exitcode(status)

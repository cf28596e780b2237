"""What stands behind the ranks of a call: the gate, the guardian, and what is left when it is over."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import spawnx
from spawnx import backends
from spawnx import orphans as orphaned
from spawnx.backends.contract import Backend
from spawnx.guard import Guard
from spawnx.ipc import gate, protocol
from spawnx.remote.rank import OFF
from tests import ranks
from tests.campaigns import orphans
from tests.support import LONG_S, finish, linux_only, needs_pidfds

pytestmark = linux_only

# Not an interpreter: by SIGINT it ends late, and a fifth of the grace after that, which may be 40 ms, comes SIGTERM.
SLEEP = ["sleep", "600"]
_IGNORE = "import signal, time; signal.signal(2, signal.SIG_IGN); signal.signal(15, signal.SIG_IGN)"
DEAF = [sys.executable, "-S", "-c", f"{_IGNORE}; print(flush=True); time.sleep(600)"]


# What there may be in a folder, and what has no business there.
OURS = ("0.pickle", "1.pickle.part", "17.pickle.ended", "scoreboard")
THEIRS = ("precious", "pickle", ".pickle", "x.pickle", "1.pickle.old", "1pickle", "scoreboard.1", "1")


@pytest.fixture(params=backends.available())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each backend that works here, in use."""
    monkeypatch.setenv("SPAWNX_BACKEND", request.param)
    return backends.named(request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def guardian_of_this_process() -> psutil.Process:
    """The one guardian that there is."""
    (found,) = [one for one in psutil.Process().children() if "spawnx-guardian" in one.name()]
    return found


def start_staying(count: int = 2, **options: Any) -> Any:
    """Ranks that stay until they are ended."""
    return spawnx.start_processes(ranks.stay_as_rank, (), count, join=False, start_method="fork", **options)


def end(context: Any) -> None:
    """End all ranks, and join."""
    for process in context.processes:
        process.kill()
    with contextlib.suppress(spawnx.ProcessExitedException):
        finish(context)
    context._join_procs_with_timeout(LONG_S)


# Starts the command line that it is given, with its own pid in it, says which pid that has, and sleeps.
_PARENT = """
import os, sys, time
pid = os.posix_spawn(sys.argv[1], [str(os.getpid()) if word == "PARENT" else word for word in sys.argv[1:]], os.environ)
print(pid, flush=True)
time.sleep(600)
"""


class Alone:
    """A guardian by itself, as the child of a process that this test can end."""

    def __init__(self, backend: Backend, folder: Path, grace_ms: int) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = theirs.fileno(), os.open(folder, os.O_RDONLY)
        steps = orphaned.to_argument(orphaned.ladder(grace_ms / 1000))
        command = backend.guardian_command(*fds, 0, steps, str(folder))
        command[command.index("0")] = "PARENT"
        self.parent = subprocess.Popen(
            [sys.executable, "-S", "-c", _PARENT, *command],
            pass_fds=fds, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        os.close(fds[1])
        assert self.parent.stdout is not None
        self.process = psutil.Process(int(self.parent.stdout.readline()))
        self._pidfd = os.pidfd_open(self.process.pid)

    def hold(self, word: bytes, *pids: int) -> int:
        """Have it hold processes; how many it says."""
        pidfds = [os.pidfd_open(pid) for pid in pids]
        socket.send_fds(self.channel, [word], pidfds)
        for pidfd in pidfds:
            os.close(pidfd)
        return int.from_bytes(self.channel.recv(4), sys.byteorder)

    def wait(self) -> None:
        """Wait until it has ended; its zombie is for the system to reap."""
        assert select.select([self._pidfd], [], [], LONG_S)[0]

    def close(self) -> None:
        """End what there is."""
        self.channel.close()
        self.parent.kill()
        self.parent.communicate()
        self.wait()
        os.close(self._pidfd)


@pytest.fixture
def alone(backend: Backend, tmp_path: Path) -> Iterator[Alone]:
    """A guardian with a folder and a grace of 200 ms."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in OURS:
        (folder / name).write_bytes(b"")
    made = Alone(backend, folder, 200)
    yield made
    made.close()


# The guardian by itself


@needs_pidfds
def test_orphans_are_ended_by_the_ladder_and_the_folder_is_removed(
    alone: Alone, child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """One that the kernel tells nothing gets SIGINT; one that is deaf gets SIGKILL when the grace is over."""
    with subprocess.Popen(DEAF, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        held = alone.hold(protocol.HOLD_UNARMED, child.pid, deaf.pid)
        began = time.monotonic()
        alone.parent.kill()
        codes = child.wait(LONG_S), deaf.wait(LONG_S)
        took = time.monotonic() - began
    alone.wait()

    assert (2, (-signal.SIGINT, -signal.SIGKILL)) == (held, codes)
    assert took >= 0.19
    assert [] == list(tmp_path.iterdir())


@needs_pidfds
def test_folder_of_orphans_is_emptied_of_what_is_ours(alone: Alone, tmp_path: Path) -> None:
    """What somebody else has put there stays, and the folder with it."""
    for name in THEIRS:
        (tmp_path / "folder" / name).write_bytes(b"")
    alone.parent.kill()
    alone.wait()

    assert sorted(THEIRS) == sorted(path.name for path in (tmp_path / "folder").iterdir())


@needs_pidfds
@pytest.mark.parametrize("by", ["link", "folder"])
def test_folder_that_has_got_the_name_of_the_orphans_is_left_alone(
    alone: Alone, tmp_path: Path, by: str
) -> None:
    """Where another user may rename, the path says nothing: what the guardian was given is emptied."""
    others = put_in_the_place_of(tmp_path / "folder", tmp_path, by)
    alone.parent.kill()
    alone.wait()

    assert [*OURS] == sorted(path.name for path in others.iterdir())
    assert [] == list((tmp_path / "moved").iterdir())


def put_in_the_place_of(folder: Path, place: Path, by: str) -> Path:
    """Rename a folder, and put another one with the same names of files, or a link to it, there; returns that one."""
    folder.rename(place / "moved")
    others = folder if by == "folder" else place / "others"
    others.mkdir()
    for name in OURS:
        (others / name).write_bytes(b"precious")
    if by == "link":
        folder.symlink_to(others)
    return others


@needs_pidfds
def test_armed_orphan_is_not_interrupted_twice(alone: Alone, child: subprocess.Popen[bytes]) -> None:
    """The kernel sends SIGINT; the guardian begins with SIGTERM."""
    alone.hold(protocol.HOLD_ARMED, child.pid)
    alone.parent.kill()

    assert -signal.SIGTERM == child.wait(LONG_S)


@needs_pidfds
def test_program_that_the_supervisor_has_become_is_told_by_the_closed_channel(
    alone: Alone, child: subprocess.Popen[bytes]
) -> None:
    """The kernel sends nothing at an exec, so the guardian interrupts the armed ones as well."""
    alone.hold(protocol.HOLD_ARMED, child.pid)
    alone.channel.close()

    assert -signal.SIGINT == child.wait(LONG_S)
    assert alone.parent.poll() is None


@needs_pidfds
def test_dismissed_guardian_leaves_all_alone(
    alone: Alone, child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Also if the supervisor ends right after."""
    alone.hold(protocol.HOLD_UNARMED, child.pid)
    alone.channel.send(protocol.DISMISS)
    alone.channel.close()
    alone.parent.kill()
    alone.wait()

    assert child.poll() is None
    assert [tmp_path / "folder"] == list(tmp_path.iterdir())


@needs_pidfds
def test_ranks_announced_right_before_the_end_are_held(alone: Alone, child: subprocess.Popen[bytes]) -> None:
    """What the supervisor sent is read, also after it has died, and although it has not read an answer."""
    alone.channel.send(protocol.HOLD_ARMED)
    select.select([alone.channel], [], [])
    alone.process.suspend()
    pidfd = os.pidfd_open(child.pid)
    socket.send_fds(alone.channel, [protocol.HOLD_UNARMED], [pidfd])
    os.close(pidfd)
    alone.parent.kill()
    alone.parent.wait()
    alone.channel.close()
    alone.process.resume()

    assert -signal.SIGINT == child.wait(LONG_S)


@needs_pidfds
def test_guardian_whose_supervisor_is_gone_before_it_starts_ends(backend: Backend, tmp_path: Path) -> None:
    """The number may be somebody else's by then: here it is that of a process that is no parent."""
    with subprocess.Popen(SLEEP) as stranger, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lonely:
        fds = lonely.fileno(), os.open(tmp_path, os.O_RDONLY)
        steps = orphaned.to_argument(orphaned.ladder(0.1))
        command = backend.guardian_command(*fds, stranger.pid, steps, str(tmp_path / "none"))
        done = subprocess.run(command, pass_fds=fds, timeout=LONG_S, check=False)
        alive = stranger.poll() is None
        stranger.kill()
        os.close(fds[1])

    assert (0, True) == (done.returncode, alive)


@needs_pidfds
def test_guardian_has_nothing_of_the_supervisors(alone: Alone) -> None:
    """No stream, no folder, no session; every signal is blocked; and it is little."""
    alone.hold(protocol.HOLD_ARMED)  # it is up
    pid = alone.process.pid
    streams = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)}
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    )
    blocked = int(status["SigBlk"], 16)

    assert ({"/dev/null"}, "/", pid) == (streams, alone.process.cwd(), os.getsid(pid))
    assert all(blocked >> (signum - 1) & 1 for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    assert "spawnx-guardian" == alone.process.name()
    assert alone.process.memory_full_info().uss < 8 * 2**20


@needs_pidfds
def test_recycled_pid_is_not_signalled(alone: Alone, child: subprocess.Popen[bytes]) -> None:
    """The process that got a dead rank's number outlives the supervisor of that rank."""
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last_pid, os.W_OK):
        pytest.skip("needs the right to choose pids (CAP_CHECKPOINT_RESTORE)")
    alone.hold(protocol.HOLD_UNARMED, child.pid)
    child.kill()
    child.wait()
    for _ in range(100):
        last_pid.write_text(str(child.pid - 1), encoding="ascii")
        stranger = subprocess.Popen(SLEEP)
        if stranger.pid == child.pid:
            break
        stranger.kill()
        stranger.wait()
    alone.parent.kill()
    alone.wait()
    spared = stranger.pid == child.pid and stranger.poll() is None
    stranger.kill()
    stranger.wait()

    assert spared


# The guardian of a context


@needs_pidfds
@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
def test_context_has_one_guardian_and_leaves_none(backend: Backend, start_method: str) -> None:
    """A process while ranks live; nothing, not even a zombie, when they have been joined."""
    gate_of_test = ranks.Gate(spawnx.get_context(start_method))
    context = spawnx.start_processes(ranks.wait_at, (gate_of_test,), 2, join=False, start_method=start_method)
    gate_of_test.wait_for(2)
    guardian = guardian_of_this_process()
    gate_of_test.let(2)
    finish(context)

    assert not psutil.pid_exists(guardian.pid)


@needs_pidfds
def test_failure_that_is_kept_keeps_no_guardian(backend: Backend) -> None:
    """The context lives on in the traceback of what `join` raised; its guardian does not."""
    with pytest.raises(spawnx.ProcessExitedException) as raised:
        spawnx.start_processes(ranks.exit_7, (), 2, start_method="fork")

    assert [] == [one for one in psutil.Process().children() if "spawnx" in one.name()]
    assert raised.value.__traceback__ is not None


@needs_pidfds
def test_killed_guardian_is_replaced_and_the_new_one_holds_the_ranks(backend: Backend) -> None:
    """`join` notices it, as it would notice a rank's end, and waits on."""
    context = start_staying()
    first = guardian_of_this_process()
    first.kill()
    returned = context.join(timeout=1)
    second = guardian_of_this_process()
    open_in_second = [
        os.readlink(f"/proc/{second.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{second.pid}/fd")
    ]
    end(context)

    assert (False, True) == (returned, first.pid != second.pid)
    assert 3 == sum("pidfd" in name for name in open_in_second)  # the supervisor and two ranks


@needs_pidfds
def test_guardian_that_can_not_be_replaced_is_told(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; the ranks run on."""
    context = start_staying()
    guardian_of_this_process().kill()
    monkeypatch.setattr(type(backend), "guardian_command", lambda *_: ["/nowhere/guardian"])
    returned = context.join(timeout=0.5)
    alive = [process.is_alive() for process in context.processes]
    end(context)

    assert (False, [True, True]) == (returned, alive)
    assert 1 == sum("no guardian for these ranks" in record.message for record in caplog.records)


@needs_pidfds
def test_stopped_guardian_does_not_hold_up_the_end_for_long(backend: Backend) -> None:
    """It is ended by the one signal that a stopped process takes."""
    context = start_staying()
    guardian_of_this_process().suspend()
    began = time.monotonic()
    end(context)

    assert time.monotonic() - began < 10


@needs_pidfds
def test_guardian_that_can_not_be_started_is_told_and_ranks_keep_sigkill(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on."""
    monkeypatch.setattr(type(backend), "guardian_command", lambda *_: ["/nowhere/guardian"])
    queue = spawnx.get_context("fork").SimpleQueue()
    spawnx.start_processes(ranks.put_death_signal, (queue,), 1, start_method="fork")
    signum = queue.get()
    queue.close()

    assert signal.SIGKILL == signum
    assert 1 == sum("no guardian for these ranks" in record.message for record in caplog.records)


def test_off_starts_no_guardian_and_leaves_it_to_the_kernel(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the reference: SIGINT."""
    monkeypatch.setenv("SPAWNX_ORPHAN_GRACE", "off")
    queue = spawnx.get_context("fork").SimpleQueue()
    spawnx.start_processes(ranks.put_death_signal, (queue,), 1, start_method="fork")
    signum = queue.get()
    queue.close()
    guard = Guard(backend, 1)
    guard.close()

    assert (OFF, signal.SIGINT) == (guard.kind, signum)


@needs_pidfds
def test_forked_child_of_the_users_keeps_nothing_of_the_guard_open(backend: Backend) -> None:
    """Or the guardian would not be told that the supervisor has become another program."""
    before = _open_fds()
    context = start_staying()
    ours = [fd for fd in _open_fds() - before if _is_of_guard(fd)]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, bytes([sum(map(_is_open, ours))]))
        os._exit(0)
    os.waitpid(pid, 0)
    kept = os.read(read, 1)
    os.close(read)
    os.close(write)
    end(context)

    # The folder, the scoreboard, both ends of the notices, the channel. The gate is closed: all ranks exist.
    assert (5, b"\0") == (len(ours), kept)


def _is_of_guard(fd: int) -> bool:
    """Whether an fd that a call has opened is neither a selector nor a pidfd, which a child has, too."""
    with contextlib.suppress(OSError):
        return "anon_inode" not in os.readlink(f"/proc/self/fd/{fd}")
    return False


def _open_fds() -> set[int]:
    """All but the one by which they are listed."""
    return set(filter(_is_open, map(int, os.listdir("/proc/self/fd"))))


def _is_open(fd: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(fd)
        return True
    return False


@pytest.mark.parametrize("by", ["link", "folder"])
def test_folder_that_has_got_the_name_of_the_contexts_is_left_alone(
    backend: Backend, tmp_path: Path, by: str
) -> None:
    """By the supervisor: what it has made is emptied, and no other."""
    guard = Guard(backend, 1)
    others = put_in_the_place_of(Path(guard.folder), tmp_path, by)
    for name in OURS:
        (tmp_path / "moved" / name).write_bytes(b"")
    guard.close()
    left = sorted(path.name for path in others.iterdir())
    moved = list((tmp_path / "moved").iterdir())
    if by == "folder":
        shutil.rmtree(others)
    else:
        Path(guard.folder).unlink()

    assert ([*OURS], []) == (left, moved)


@needs_pidfds
def test_guardian_is_renewed_when_the_folder_has_been_removed(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure was told, and a rank lives still."""
    guard = Guard(backend, 1)
    guard.remove_folder()
    guard.renew([])
    there = guard.sentinel >= 0
    reported = guard.report(0)
    guard.close()

    assert (True, None, []) == (there, reported, caplog.records)


@needs_pidfds
def test_what_ranks_are_given_is_out_of_the_way(backend: Backend) -> None:
    """Who closes a range of fds and opens files gets other numbers, also from ranks of many calls."""
    guards = [Guard(backend, 1) for _ in range(3)]
    numbers = [fd for guard in guards for fd in guard.ends.fds]
    for guard in guards:
        guard.close()

    assert 9 == len(set(numbers))
    assert all(256 < fd < 1024 for fd in numbers)


@needs_pidfds
def test_context_that_nobody_joins_gives_its_guardian_back(backend: Backend) -> None:
    """When the last Process of it is forgotten."""
    context = spawnx.start_processes(ranks.nothing, (), 2, join=False, start_method="fork")
    assert context is not None
    for process in context.processes:
        process.join()
    guardian = guardian_of_this_process()
    del context, process
    gc.collect()

    assert not psutil.pid_exists(guardian.pid)


@needs_pidfds
def test_more_ranks_than_one_message_carries_are_all_held(backend: Backend) -> None:
    """In several messages, under a soft limit that is the least."""
    count = protocol.MAX_SENT + 20
    context = start_staying(count)
    guardian = guardian_of_this_process()
    held = sum(
        "pidfd" in os.readlink(f"/proc/{guardian.pid}/fd/{fd}")
        for fd in os.listdir(f"/proc/{guardian.pid}/fd")
    )
    end(context)

    assert count + 1 == held


# The gate


def test_rank_whose_supervisor_is_gone_does_not_pass() -> None:
    """What was written is there for who comes later; then the end of the file is told."""
    theirs, ours = gate.make()
    late = [os.dup(theirs) for _ in range(3)]
    gate.let(ours, 2, gate.HELD)
    os.close(ours)
    os.close(theirs)

    assert [gate.HELD, gate.HELD, b""] == [gate.wait(fd) for fd in late]


@needs_pidfds
@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_no_rank_runs_user_code_before_all_exist(
    backend: Backend, start_method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last rank can't be started: those before it have not written a line."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "exec")
    done = tmp_path / "done"
    calls = 0
    owner, name = (os, "fork") if start_method == "fork" else (type(backend), "launch")
    create = getattr(owner, name)

    def fail(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4 + (start_method == "spawn"):
            time.sleep(0.3)  # what the others would need
            raise BlockingIOError(11, "no more")
        return create(*args)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match="rank 3 of 4"):
        spawnx.start_processes(ranks.do, (ranks.touch, str(done)), 4, start_method=start_method)

    assert not done.exists()


# All of it


@needs_pidfds
def test_campaign_of_random_ends_leaves_nobody_and_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `python -m tests.campaigns.orphans`."""
    seed = secrets.randbelow(2**32)
    good = orphans.campaign(40, seed, 3)

    assert good, f"seed {seed}:\n{capsys.readouterr().out}"

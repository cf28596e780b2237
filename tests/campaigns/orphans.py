"""Does any rank outlive its supervisor, however that ends, and is any other process harmed?

A campaign of random runs: `python -m tests.campaigns.orphans --runs 1000`. In each run, a supervisor starts ranks, and
ends at a point, which is an event and not a delay:

- before the first rank, or before rank k is created;
- while ranks are adopted;
- when all ranks exist but the guardian doesn't hold them, or it holds them but the gate is shut;
- while ranks boot, run, or end.

A mark in the environment identifies survivors. A short form is in the suite: tests/unit/test_guard.py.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from spawnx import backends
from tests.campaigns.orphan_supervisor import BYSTANDER
from tests.support import ROOT

POINTS = ("before", "starting", "adopting", "started", "held", "booting", "running", "finishing")
# How the supervisor ends: the signals that are sent to it, and what it does itself.
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}
ENDINGS = (*SIGNALS, "exit", "exception", "exec")
METHODS = ("spawn", "fork", "forkserver")
BEHAVIOURS = ("sleeps", "deaf", "busy", "stopped", "setsid")
# Where the supervisor runs: in the foreground; in the background of a shell, which ignores SIGINT; or as the first
# process of a pid namespace.
PLACES = ("foreground", "background", "first")
GRACE_S = 0.5
# Seconds that the end of the ranks may take beyond the grace, on a busy machine.
SLACK_S = 10.0
# Seconds that a supervisor may take to reach its point.
PATIENCE_S = 60.0
_MARK = "SPAWNX_CAMPAIGN"


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw one run. Impossible draws are changed: a supervisor that ends by an exception joins its ranks first."""
    what: dict[str, Any] = {
        "point": rng.choice(POINTS),
        "ending": rng.choice(ENDINGS),
        "method": rng.choice(METHODS),
        "launcher": rng.choice(("auto", "clone", "stdlib")),
        "backend": rng.choice(backends.available()),
        "behaviour": rng.choice(BEHAVIOURS),
        "place": rng.choice(PLACES) if os.geteuid() == 0 else rng.choice(PLACES[:2]),
        "ranks": rng.choice((1, 2, 3, 5)),
        "thread": rng.random() < 0.2,
    }
    if what["launcher"] == "clone":
        what["backend"] = "native" if "native" in backends.available() else "python"
    what["k"] = rng.randrange(what["ranks"])
    clones = what["method"] != "fork" and what["launcher"] != "stdlib" and what["backend"] == "native"
    if what["point"] == "adopting" and not clones:
        what["point"] = "held"
    if what["point"] == "finishing":
        what["behaviour"] = "ends"
        what["ranks"] += 1
    if what["ending"] == "exception":
        # An exception in a thread doesn't end the process. Ranks that ignore SIGTERM block multiprocessing's exit.
        what["thread"] = False
        what["behaviour"] = "ends" if what["point"] == "finishing" else rng.choice(("sleeps", "setsid"))
    return what


def run(what: dict[str, Any], mark: str) -> dict[str, Any]:
    """Run one supervisor until it ends.

    Returns:
        "survivors" and "harmed", lists of text that should be empty; "seconds" from the end of the supervisor to that
        of the last rank; "recycled", whether a bystander got the pid of a reaped rank.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        neighbour = stack.enter_context(_bystander())
        supervisor = subprocess.Popen(
            _command(what), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True, env=_environment(what, mark, folder), stderr=stack.enter_context(_errors(folder)),
        )  # fmt: skip
        stack.callback(_end_group, supervisor)
        assert supervisor.stdout is not None
        told = _wait_for_point(supervisor, Path(folder, "stderr"))
        waits = what["ending"] in SIGNALS or what["ending"] == "exec"
        pid = _pid_of(supervisor, what) if waits else supervisor.pid
        if what["ending"] in SIGNALS:
            os.kill(pid, SIGNALS[what["ending"]])
        began = time.monotonic()
        if what["ending"] == "exec":
            _wait_for_exec(pid)
        else:
            supervisor.wait(PATIENCE_S)
        survivors, seconds = _survivors(
            mark, {pid, supervisor.pid} if what["ending"] == "exec" else set(), began
        )
        harmed = _harmed(what, supervisor, neighbour, told)
        # The kernel kills all processes of a namespace with its first one, so no process is left to remove the folder.
        left = [
            name for name in os.listdir(folder) if name.startswith("spawnx-") and what["place"] != "first"
        ]
    return {
        "survivors": survivors + left,
        "harmed": harmed,
        "seconds": seconds,
        "recycled": "recycled" in told,
    }


def _command(what: dict[str, Any]) -> list[str]:
    """Return the command: a shell that starts a bystander in its group and session, and then execs the supervisor."""
    program = [sys.executable, "-m", "tests.campaigns.orphan_supervisor", json.dumps(what)]
    if what["place"] == "first":
        return ["unshare", "--pid", "--mount-proc", "--fork", *program]
    ignore = "trap '' INT; " if what["place"] == "background" else ""
    bystander = f'env -u {_MARK} "$0" -S -c "import time; time.sleep(600)" </dev/null >/dev/null &'
    script = f'{ignore}{bystander} echo $!; exec "$@"'
    return ["sh", "-c", script, sys.executable, *program]


def _environment(what: dict[str, Any], mark: str, folder: str) -> dict[str, str]:
    return {
        **os.environ,
        _MARK: mark,
        "TMPDIR": folder,
        "SPAWNX_BACKEND": what["backend"],
        "SPAWNX_LAUNCHER": what["launcher"],
        "SPAWNX_ORPHAN_GRACE": str(GRACE_S),
    }


def _errors(folder: str) -> BinaryIO:
    """Open the file for the supervisor's stderr, which is shown only if it ends before its point."""
    return Path(folder, "stderr").open("wb")


@contextlib.contextmanager
def _bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that is unrelated to the run."""
    with subprocess.Popen(BYSTANDER, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _end_group(supervisor: subprocess.Popen[str]) -> None:
    """Kill the processes that a run leaves on purpose: bystanders, and the program that the supervisor has executed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    for stream in (supervisor.stdin, supervisor.stdout):
        if stream is not None:
            stream.close()


def _wait_for_point(supervisor: subprocess.Popen[str], errors: Path) -> dict[str, int]:
    """Read the supervisor's lines until it reaches its point. Return the pids of bystanders: kind -> pid."""
    told = {}
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        said = json.loads(line)
        if isinstance(said, int):
            told["child"] = said
        elif "at" in said:
            return told
        else:
            told.update(said)
    said = errors.read_text(encoding="utf-8")
    raise RuntimeError(f"the supervisor has ended before it came to its point: {said}")


def _pid_of(supervisor: subprocess.Popen[str], what: dict[str, Any]) -> int:
    """Return the pid of the supervisor, which may be a child of `unshare`."""
    if what["place"] != "first":
        return supervisor.pid
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text(encoding="ascii")
    return int(children.split()[0])


def _wait_for_exec(pid: int) -> None:
    while BYSTANDER[-1] not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
        time.sleep(0.001)


def _survivors(mark: str, spared: set[int], began: float) -> tuple[list[str], float]:
    """Kill the marked processes that live when the time is over. Return their names, and when the last was seen."""
    looks = 0  # without a marked process, in a row: one look may miss a process during its exec, without environment
    while looks < 3:
        left = {pid for pid in _marked(mark) if pid not in spared}
        if left or not looks:
            seconds = time.monotonic() - began
        looks = 0 if left else looks + 1
        if seconds > GRACE_S + SLACK_S:
            break
        time.sleep(0.01)
    names = []
    for pid in left:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " "))
            os.kill(pid, signal.SIGKILL)
    return names, seconds


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{_MARK}={mark}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    yield int(name)


def _harmed(
    what: dict[str, Any],
    supervisor: subprocess.Popen[str],
    neighbour: subprocess.Popen[bytes],
    told: dict[str, int],
) -> list[str]:
    harmed = [] if neighbour.poll() is None else ["a process that has nothing to do with it"]
    if what["ending"] == "exec" and supervisor.poll() is not None:
        harmed.append("the program that the supervisor has become")
    if what["place"] != "first":  # the kernel ends a namespace with its first process
        harmed += [f"{who} {pid}" for who, pid in told.items() if not _lives(pid)]
    return harmed


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def bend(what: dict[str, Any]) -> dict[str, Any]:
    """Change combinations that the system doesn't allow."""
    if what["place"] == "first" and what["ending"] in SIGNALS:
        what["ending"] = "SIGKILL"  # the first process of a namespace takes no other signal
    if (what["point"], what["method"], what["ending"]) == ("starting", "fork", "exception"):
        what["ending"] = "exit"  # Python ignores an exception of a before-fork hook
    return what


def main() -> None:
    """Do the runs and print the results. Exit with 1 if a rank survived or a process was harmed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="how many runs (default: 1000)")
    parser.add_argument("--seed", type=int, help="of the draw (default: a new one, which is printed)")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="how many at once (default: 4)")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    sys.exit(not campaign(arguments.runs, seed, arguments.jobs))


def campaign(runs: int, seed: int, jobs: int) -> bool:
    """Do `runs` runs. Return whether no rank survived and no process was harmed."""
    rng = random.Random(seed)
    drawn = [bend(draw(rng)) for _ in range(runs)]
    good, seconds, kinds = True, [], collections.Counter[str]()
    with ThreadPoolExecutor(jobs) as pool:
        for number, (what, result) in enumerate(
            zip(drawn, pool.map(_numbered, enumerate(drawn)), strict=True)
        ):
            for key in ("point", "ending", "method", "launcher", "behaviour", "place", "backend"):
                kinds[f"{key} {what[key]}"] += 1
            kinds["recycled pids"] += result["recycled"]
            seconds.append(result["seconds"])
            if result["survivors"] or result["harmed"]:
                good = False
                print(
                    f"run {number}: {what}\n    survivors {result['survivors']}, harmed {result['harmed']}",
                    flush=True,
                )
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {runs}", end="", file=sys.stderr)
    print(f"{runs} runs: {'nobody' if good else 'somebody'} survived or was harmed")
    print(
        f"seconds from the supervisor's end to the last rank's: median {statistics.median(seconds):.2f},",
        end=" ",
    )
    print(f"most {max(seconds):.2f}, with a grace of {GRACE_S}")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    return good


def _numbered(one: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    number, what = one
    try:
        return run(what, f"{os.getpid()}-{number}")
    except Exception as error:  # noqa: BLE001 - reported, and the campaign goes on
        return {
            "survivors": [],
            "harmed": [f"the campaign itself: {error!r}"],
            "seconds": 0.0,
            "recycled": False,
        }


if __name__ == "__main__":
    main()

"""Is the right cause raised in bounded time, whatever fails, and does nothing leak?

A campaign of random runs: `python -m tests.campaigns.failures --runs 1000`. In each run, every rank has a role.

- Causes, one or several, raise, exit, or die by a signal. Some hang after they raised, can't report because the disk is
  full, or are killed while they report.
- Peers raise the error of a lost peer, sometimes before the cause is known.
- Others stay, ignore SIGTERM, are stopped, or end well.

Causes and peers note what they are about to do, and when. The expected result follows from the draw and those notes
alone. A short form is in the suite: tests/unit/test_every_failure.py.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from spawnx import backends
from tests.support import ROOT

# Pairs of start method and launcher.
WAYS = (
    ("spawn", "clone"), ("spawn", "exec"), ("spawn", "stdlib"), ("fork", "auto"), ("fork", "stdlib"),
    ("forkserver", "auto"),
)  # fmt: skip
SIGNALS = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGKILL", "SIGTERM", "SIGINT")
WITH_STACK = SIGNALS[:5]
# Ways in which causes raise -> the reported type.
RAISES = {
    "raise": "ValueError",
    "chained": "ValueError",
    "unpicklable": "tests.ranks.endings.UnpicklableError",
    "5 MB": "ValueError",
    "hangs": "ValueError",
    "exits 0": "ValueError",
    "del": "ValueError",
    "disk full": "ValueError",
}
HOWS = (*RAISES, "killed", "exit 3", "_exit 7", *SIGNALS)
# Causes whose processes run on for a while after the note, until their interpreters end.
TAKES_A_WHILE = ("exit 3", "_exit 7", "SIGINT")
OTHERS = ("stays", "deaf", "stopped", "ends", "del", "forks")
KILL_AFTER_S = 1.5
# Two failures that are no further apart, in seconds, may be raised in either order. A rank notes its failure a moment
# before it happens, and its death is seen a moment after. The watcher and the verdict allow for the same uncertainty.
CLOSE_S = 0.35
# Seconds that a run may take in addition to its own waits, on a busy machine.
SLACK_S = 10.0
# Seconds without an answer after which a run has hung.
HUNG_S = 90.0


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw one run."""
    method, launcher = rng.choice(WAYS)
    count = rng.randint(2, 6)
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    what: dict[str, Any] = {
        "kind": kind, "method": method, "roles": [rng.choice(OTHERS) for _ in range(count)], "causes": {}, "hub": -1,
        "closes first": False, "consequence": rng.choice(("reset", "pipe", "eof", "gloo")), "deaf causes": False,
        "breaks": False, "timeout": None, "grace": 0.0, "full": "",
    }  # fmt: skip
    KINDS[kind][1](rng, what)
    if any(how == "disk full" for how, _ in what["causes"].values()):
        what["full"] = "yes"
    native = launcher == "clone" and "native" in backends.available()
    what["environment"] = {
        "SPAWNX_BACKEND": "native" if native else rng.choice(backends.available()),
        "SPAWNX_LAUNCHER": launcher,
        "SPAWNX_KILL_AFTER": str(KILL_AFTER_S),
        "SPAWNX_GRACE": str(what["grace"]),
    }
    return what


def _one(rng: random.Random, what: dict[str, Any]) -> None:
    """Let one rank fail."""
    cause = rng.randrange(len(what["roles"]))
    what["roles"][cause] = "cause"
    what["causes"][cause] = (rng.choice(HOWS), rng.choice((0, 0, 0.1)))
    what["grace"] = rng.choice((0.0, 0.0, 0.3))


def _cascade(rng: random.Random, what: dict[str, Any]) -> None:
    """Let one rank fail, and its peers raise: when it is gone, or while it is about to fail."""
    _one(rng, what)
    ((cause, (how, _)),) = what["causes"].items()
    others = [rank for rank in range(len(what["roles"])) if rank != cause]
    for peer in rng.sample(others, rng.randint(1, len(others))):
        what["roles"][peer] = "peer"
    what["hub"] = cause
    what["closes first"] = rng.random() < 0.5
    if what["closes first"]:  # within `verdict.PATIENCE`
        what["causes"][cause] = (how, rng.choice((0.02, 0.2, 0.4)))


def _several(rng: random.Random, what: dict[str, Any]) -> None:
    """Let several ranks fail: all at once, or one after the other while the teardown tries to end them."""
    some = rng.sample(range(len(what["roles"])), rng.randint(2, len(what["roles"])))
    apart = rng.choice((0, 0, 0.6))
    what["deaf causes"] = apart > 0
    for place, cause in enumerate(some):
        what["roles"][cause] = "cause"
        what["causes"][cause] = (rng.choice(HOWS), place * apart)


def _breaks(rng: random.Random, what: dict[str, Any]) -> None:
    """Give all ranks an argument that can't be unpickled."""
    what["breaks"] = True
    if what["method"] == "fork":
        what["method"] = "forkserver"


def _none(rng: random.Random, what: dict[str, Any]) -> None:
    """Let no rank fail."""
    what["roles"] = [rng.choice(("ends", "del", "forks")) for _ in what["roles"]]


def _timeout(rng: random.Random, what: dict[str, Any]) -> None:
    """Let the time limit pass before all ranks have ended."""
    what["roles"][0] = rng.choice(("stays", "deaf", "stopped"))
    what["timeout"] = 3.0


# Kind of run -> its weight in the draw, and the function that makes a run of it.
KINDS = {
    "one": (35, _one),
    "cascade": (25, _cascade),
    "several": (25, _several),
    "breaks": (4, _breaks),
    "none": (5, _none),
    "timeout": (6, _timeout),
}


# The expected results


def faults(what: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return what is wrong with the answer to a run; nothing if it is right."""
    found = [f"left: {one}" for one in told["left"]]
    if what["kind"] == "none":
        return found + ([f"raised {told['raised']}"] if told["raised"] else [])
    if what["kind"] == "timeout":
        living = [i for i, role in enumerate(what["roles"]) if role in {"stays", "deaf", "stopped"}]
        right = told["raised"] == "ProcessTimeoutError" and set(living) <= set(told["alive"])
        return found if right else [*found, f"expected a time limit that names {living}"]
    if told["raised"] not in {"ProcessRaisedException", "ProcessExitedException"}:
        return [*found, "no failure was raised"]
    if told["told twice"]:
        found.append("a failure was told twice")
    if told["failures"][0]["rank"] != told["index"]:
        found.append("the first failure is not the one that was raised")
    if what["kind"] == "breaks":
        stage = told["failures"][0]["stage"]
        return found if stage == "unpickle" else [*found, f"stage {stage}"]
    return found + _faults_of_cause(what, told)


def may_be_told(told: dict[str, Any]) -> set[int]:
    """Return the ranks that may be raised as the cause: no other one has certainly failed before them.

    A rank that raises, or sends itself a deadly signal, fails when it notes that. One that exits fails when its process
    ends: an interpreter takes 20 ms for that, and 600 ms if 20 others use its processor. Only the supervisor knows that
    time. So, when such a rank is raised itself, the time of its note counts. When another rank is raised, the time at
    which the end of this one was seen counts.
    """
    causes = {note["rank"]: note for note in told["notes"] if note["how"] != "consequence"}
    failed_by = {rank: note["time"] for rank, note in causes.items()}
    failed_by |= {rank: end for rank, end in _ends_seen(told).items() if causes[rank]["how"] in TAKES_A_WHILE}
    first = min(failed_by.values())
    return {rank for rank, note in causes.items() if note["time"] - first <= CLOSE_S}


def _ends_seen(told: dict[str, Any]) -> dict[int, float]:
    """Return the times at which the ends of causes that raised nothing were seen."""
    noted = {note["rank"] for note in told["notes"] if note["how"] != "consequence"}
    return {
        one["rank"]: told["began"] + one["seconds"]
        for one in told["failures"]
        if one["type_name"] is None and one["rank"] in noted
    }


def _faults_of_cause(what: dict[str, Any], told: dict[str, Any]) -> list[str]:
    causes = {note["rank"]: note for note in told["notes"] if note["how"] != "consequence"}
    expected = may_be_told(told)
    if told["index"] not in expected:
        return [f"told rank {told['index']}, expected one of {sorted(expected)}"]
    late = [rank for rank, end in _ends_seen(told).items() if end - causes[rank]["time"] > SLACK_S]
    if late:
        return [f"the ends of {late} were seen late"]
    cause = told["failures"][0]
    how = causes[told["index"]]["how"]
    found = [f"{how}: {wrong}" for wrong in _faults_of_how(how, cause, told)]
    if cause["signalled"]:
        found.append("the cause is said to have been signalled by us")
    if how in WITH_STACK and not cause["stack"] and not what["full"]:  # a full disk may have no room for one
        found.append(f"{how}: no stack")
    kinds = [_kind(one) for one in told["failures"]]
    if kinds != sorted(kinds):
        found.append(f"the order of the failures is {kinds}")
    return found


def _kind(failure: dict[str, Any]) -> int:
    """Return 0 for a genuine failure, 1 for the error of a peer, 2 for a rank that the teardown has ended."""
    if failure["signalled"]:
        return 2
    gone = {"ConnectionResetError", "BrokenPipeError", "EOFError", "RuntimeError"}
    return 1 if failure["type_name"] in gone else 0


def _faults_of_how(how: str, cause: dict[str, Any], told: dict[str, Any]) -> Iterator[str]:
    if how in RAISES:
        if told["raised"] != "ProcessRaisedException" or cause["type_name"] != RAISES[how]:
            yield f"told as {told['raised']}, {cause['type_name']}"
        if not told["head"].startswith(
            f"\n\n-- Process {told['index']} terminated with the following error:\n"
        ):
            yield f"the message begins with {told['head'][:60]!r}"
        if cause["stage"] != "run":
            yield f"stage {cause['stage']}"
        return
    name = "SIGKILL" if how == "killed" else how if how in SIGNALS else None
    code = int(how.split()[1]) if name is None else -signal.Signals[name]
    end = f"signal {name}" if name is not None else f"exit code {code}"
    if told["text"] != f"process {told['index']} terminated with {end}":
        yield f"the message is {told['text'][:80]!r}"
    if (cause["exit_code"], cause["signal_name"], cause["type_name"]) != (code, name, None):
        yield f"told as {cause['exit_code']}, {cause['signal_name']}, {cause['type_name']}"
    if how == "killed" and "report" not in cause["remark"]:
        yield "nothing is said of the report"


def seconds_until_told(what: dict[str, Any], told: dict[str, Any]) -> float:
    """Return the seconds from the first failure of any rank, even a consequence, until `join` had raised."""
    return float(told["ended"] - min((note["time"] for note in told["notes"]), default=told["ended"]))


def seconds_allowed(what: dict[str, Any]) -> float:
    """Return how long that may take: patience, grace, wait before SIGKILL, and the time for which ranks are spared."""
    return 1.0 + float(what["grace"]) + KILL_AFTER_S + 0.5 + SLACK_S


# Running the campaign


class Worker:
    """A supervisor that does runs, one after the other."""

    def __init__(self, folder: str) -> None:
        """Start the supervisor."""
        self._folder = tempfile.mkdtemp(dir=folder)
        self._errors = Path(self._folder, "stderr")
        self.full = _place_to_mount(self._folder)
        self._start()

    def _start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPAWNX_")}
        temporary = Path(self._folder, "tmp")
        temporary.mkdir(exist_ok=True)
        command = [*_mounting(self.full), sys.executable, "-m", "tests.campaigns.failure_supervisor"]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**environment, "TMPDIR": str(temporary), "SPAWNX_ORPHAN_GRACE": "1"},
            )  # fmt: skip

    def run(self, what: dict[str, Any]) -> dict[str, Any]:
        """Do a run, and return the answer; if there was none, the stderr of the supervisor as "hung"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if what["full"]:
            what = {**what, "full": self.full}
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as reader:
            reader.submit(lambda: answers.put(self._process.stdout.readline()))  # type: ignore[union-attr]
            try:
                answer = answers.get(timeout=HUNG_S)
            except queue.Empty:
                answer = ""
            if not answer:
                stack = self._errors.read_text(encoding="utf-8", errors="replace")[-2000:]
                self.end()
                self._start()
                return {"hung": stack}
        told: dict[str, Any] = json.loads(answer)
        return told

    def end(self) -> None:
        """Close the supervisor's input, and kill it if it doesn't end in 5 s."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            for one in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                with contextlib.suppress(psutil.Error, ProcessLookupError):
                    one.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


def _mounting(place: str) -> list[str]:
    """Return a command prefix that gives a program a file system of 1 MiB of its own, which disappears with it."""
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, place] if place else []


def _place_to_mount(folder: str) -> str:
    """Return the folder for that mount; "" if this user may not mount, so that a limit on file sizes is used."""
    place = Path(folder, "small")
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run([*_mounting(str(place)), "true"], check=False).returncode:
        return ""
    return str(place)


def campaign(runs: int, seed: int, jobs: int) -> bool:
    """Do `runs` runs. Return whether every verdict was right, nothing hung and nothing was left."""
    rng = random.Random(seed)
    drawn = [draw(rng) for _ in range(runs)]
    wrong, hung, seconds, kinds = 0, 0, [], collections.Counter[str]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for _ in range(jobs):
            workers.put(Worker(folder))

        def take(what: dict[str, Any]) -> dict[str, Any]:
            worker = workers.get()
            try:
                return worker.run(what)
            finally:
                workers.put(worker)

        with ThreadPoolExecutor(jobs) as pool:
            for number, (what, told) in enumerate(zip(drawn, pool.map(take, drawn), strict=True)):
                _count(kinds, what)
                if "hung" in told:
                    hung += 1
                    print(f"run {number} has hung: {what}\n{told['hung']}", flush=True)
                    continue
                found = faults(what, told)
                took = seconds_until_told(what, told)
                if took > seconds_allowed(what):
                    found.append(f"it took {took:.1f} s")
                seconds.append(took)
                if found:
                    wrong += 1
                    print(f"run {number}: {'; '.join(found)}\n    {what}\n    {told}", flush=True)
                if sys.stderr.isatty() or number % 100 == 99:
                    print(f"\r{number + 1} of {runs}", end="", file=sys.stderr, flush=True)
        for _ in range(jobs):
            workers.get().end()
    print(f"\n{runs} runs: {wrong} wrong, {hung} hung")
    if seconds:
        print(
            f"seconds from the first failure until it was raised: median {statistics.median(seconds):.2f},",
            end=" ",
        )
        print(f"most {max(seconds):.2f}, with {KILL_AFTER_S} between SIGTERM and SIGKILL")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    return not wrong and not hung


def _count(kinds: collections.Counter[str], what: dict[str, Any]) -> None:
    kinds[what["kind"]] += 1
    kinds[f"by {what['method']} {what['environment']['SPAWNX_LAUNCHER']}"] += 1
    kinds[f"on {what['environment']['SPAWNX_BACKEND']}"] += 1
    kinds["consequence first"] += what["closes first"]
    for how, _ in what["causes"].values():
        kinds[f"cause: {how}"] += 1
    for role in what["roles"]:
        kinds[f"role: {role}"] += role != "cause"


def main() -> None:
    """Do the runs and print the results. Exit with 1 if anything was wrong."""
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


if __name__ == "__main__":
    main()

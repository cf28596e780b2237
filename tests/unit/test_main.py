"""`python -m spawnx`: what it shows, what it checks, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import spawnx
from spawnx import __main__ as command
from spawnx import backends, launchers, selftest, settings
from tests.support import LONG_S, QUICK, ROOT, START_METHODS, linux_only, posix_only


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with every warning an error, and only the settings given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPAWNX_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "spawnx", *arguments],
        cwd=ROOT,
        env={**inherited, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def _run_json(*arguments: str, **variables: str) -> dict[str, Any]:
    done = _run("--json", *arguments, **variables)
    assert (0, "") == (done.returncode, done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# What it does


@pytest.mark.parametrize("method", START_METHODS)
def test_each_start_method_counts_every_prime_once(method: str) -> None:
    """Both ways find the known number, and each has its times."""
    result = _run_json("--ranks", "3", "--start-method", method)

    assert (3, method) == (result["ranks"], result["start_method"])
    assert {"spawnx": 17984, "multiprocessing": 17984} == result["primes"]
    for medians in result["medians"].values():
        assert ["start", "join", "total"] == list(medians)
        assert all(seconds > 0 for seconds in medians.values())


def test_json_tells_what_is_in_use_and_why() -> None:
    """The facts are those that the package itself gives."""
    result = _run_json("--ranks", "1", "--start-method", QUICK, SPAWNX_BACKEND="python")

    assert spawnx.__version__ == result["version"]
    assert {"name": "python", "reason": "SPAWNX_BACKEND=python"} == result["backend"]
    assert backends.named("python").features() == result["features"]
    assert sorted(START_METHODS) == sorted(result["launchers"])
    assert all({"name", "reason"} == set(launcher) for launcher in result["launchers"].values())
    assert {setting.name for setting in settings.ALL} == set(result["settings"])
    assert {"value": "python", "set": True} == result["settings"]["SPAWNX_BACKEND"]
    assert {"value": "auto", "set": False} == result["settings"]["SPAWNX_LAUNCHER"]


def test_setting_in_force_is_used_and_shown() -> None:
    """What a variable decides is seen in the launchers, with the variable as the reason."""
    result = _run_json("--ranks", "1", "--start-method", QUICK, SPAWNX_LAUNCHER="stdlib")

    assert {"name": "stdlib", "reason": "SPAWNX_LAUNCHER=stdlib"} == result["launchers"][QUICK]


def test_text_shows_the_facts_and_both_times() -> None:
    """Without --json, people read the same."""
    done = _run("--ranks", "2", "--start-method", QUICK)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"spawnx {spawnx.__version__} on ")
    launcher = launchers.choose(QUICK, backends.choose()[0]).name
    served = f"\n2 ranks by {QUICK}, served by {launcher}, counted 17984 primes below 200000.\n"
    assert served in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert {"backend", "launchers", "features", "settings"} <= {line[0] for line in lines}
    assert ["SPAWNX_LAUNCHER", "auto", "(default)"] in lines
    assert ["start", "join", "total"] in lines
    assert ["spawnx", "multiprocessing"] == [line[0] for line in lines if line.count("ms") == 3]


@linux_only
@pytest.mark.skipif(
    "native" not in backends.available(), reason="needs the C core: without it none is cloned"
)
def test_launcher_that_served_is_shown_not_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where ranks can't be cloned, each place says "exec", and why; what that costs is said once."""
    from spawnx.launchers import clone

    def refuse(*_: object) -> None:
        raise clone.CantServe("this is a test", for_good=True)

    monkeypatch.setenv("SPAWNX_BACKEND", "native")
    monkeypatch.setattr(clone.CloneLauncher, "_clone", refuse)
    monkeypatch.setattr(clone, "_never", {})
    code = command.main(["--ranks", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    exec_ = {"name": "exec", "reason": "ranks can't be cloned: this is a test"}

    assert 0 == code
    assert [exec_, exec_] == [result["launcher"], result["launchers"]["spawn"]]
    assert ["ranks are started by exec, not cloned: this is a test; " + clone._COST] == result["warnings"]


def test_start_method_that_fails_is_shown_with_its_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are shown, and that which was asked for is timed."""

    def fail(start_method: str) -> tuple[str, str]:
        raise OSError(11, "no process")

    monkeypatch.setattr(selftest, "who_serves", fail)
    code = command.main(["--ranks", "1", "--start-method", QUICK, "--json"])
    result = json.loads(capsys.readouterr().out)
    name = "BlockingIOError: [Errno 11] no process"

    assert (0, {"name": "none", "reason": name}) == (code, result["launchers"][QUICK])
    assert result["launcher"]["name"] == spawnx.launcher


def test_version_is_told() -> None:
    """As other programs do it."""
    done = _run("--version")

    assert (0, f"spawnx {spawnx.__version__}\n", "") == (done.returncode, done.stdout, done.stderr)


@posix_only
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_reader_that_leaves_ends_it_quietly(options: list[str]) -> None:
    """As with `| head`: no traceback, and the exit code of a program that SIGPIPE has ended."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "spawnx", "--ranks", "1", "--start-method", QUICK, *options],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=LONG_S, check=False,
        )  # fmt: skip

    assert (141, b"") == (done.returncode, done.stderr)


def test_one_rank_is_no_ranks() -> None:
    """The text is right at one rank, too."""
    done = _run("--ranks", "1", "--start-method", QUICK)

    assert f"\n1 rank by {QUICK}, served by " in done.stdout


@pytest.mark.parametrize(
    ("ours", "theirs", "launcher", "told"),
    [
        (0.1, 0.25, "clone", "spawnx was 2.5 times as fast."),
        (0.1, 0.11, "clone", "The difference is within the noise of so few runs."),
        (0.11, 0.1, "fork", "The difference is within the noise of so few runs."),
        (
            0.1,
            0.05,
            "clone",
            "spawnx took 50 ms longer, 2.0 times as long. Each call starts one interpreter more",
        ),
        (
            0.1,
            0.05,
            "forkserver",
            "spawnx took 50 ms longer, 2.0 times as long. Each call clones an interpreter",
        ),
        (0.1, 0.05, "exec", "spawnx took 50 ms longer, 2.0 times as long. Each call starts a guardian"),
        (
            0.1,
            0.05,
            "stdlib",
            "spawnx took 50 ms longer, 2.0 times as long. The ranks were started by multiproc",
        ),
    ],
)
def test_verdict_names_what_few_light_ranks_pay_for(
    ours: float, theirs: float, launcher: str, told: str
) -> None:
    """A fixed cost is told in time, with what it is for: a factor alone would be that of these ranks."""
    medians = {"spawnx": {"total": ours}, "multiprocessing": {"total": theirs}}

    assert command._compared(medians, launcher).startswith(told)


def test_ranks_are_two_to_eight_unless_asked_for() -> None:
    """A first run neither floods a small machine nor shows a single rank."""
    result = _run_json("--start-method", QUICK)

    assert 2 <= result["ranks"] <= 8


def test_help_names_every_option() -> None:
    """--help ends well and tells what may be asked for."""
    done = _run("--help")

    assert 0 == done.returncode
    assert all(option in done.stdout for option in ("--ranks N", "--start-method", "--json", *START_METHODS))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 300])
def test_slices_have_every_prime_once(ranks: int) -> None:
    """Where the slices are cut makes no difference: there are 62 primes below 300."""
    counts = [
        selftest.primes_between(300 * rank // ranks, 300 * (rank + 1) // ranks) for rank in range(ranks)
    ]

    assert 62 == sum(counts)


def test_progress_is_shown_on_a_terminal_after_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line counts the runs, and is gone at the end."""
    clock = iter([0.0, 0.9, 1.1, 1.2])
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = command._progress_line()
    for done in (1, 2, 3):
        show(done, 3)

    assert "\r2 of 3 runs\r\x1b[K" == capsys.readouterr().err


# What it refuses, and what it finds


@pytest.mark.parametrize("text", ["0", "-3", "two", "1.5", "", "5000"])
def test_bad_number_of_ranks_is_refused_with_what_to_give(text: str) -> None:
    """The usage error says what was given and what may be."""
    done = _run("--ranks", text)

    assert (2, "") == (done.returncode, done.stdout)
    assert f"argument --ranks: give a whole number from 1 to 4096, not {text!r}\n" in done.stderr


def test_unknown_start_method_is_refused_with_the_known_ones() -> None:
    """So is a start method that doesn't exist."""
    done = _run("--start-method", "clone")

    assert (2, "") == (done.returncode, done.stdout)
    assert all(method in done.stderr.splitlines()[-1] for method in START_METHODS)


def test_setting_without_meaning_is_refused_by_its_name() -> None:
    """A variable that can't be read ends the command with one line that names it."""
    done = _run(SPAWNX_BACKEND="rust")

    assert (2, "") == (done.returncode, done.stdout)
    assert "error: SPAWNX_BACKEND='rust'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_wrong_sum_is_told_and_fails(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The check is one: where another number is expected, it fails and names both numbers and who was wrong."""
    code = command.main(["--ranks", "2", "--start-method", QUICK, *options], expected=17983)

    assert 1 == code
    assert (
        "FAILED: there are 17983 primes below 200000, "
        "but spawnx's ranks counted 17984 and multiprocessing's ranks counted 17984\n"
    ) == capsys.readouterr().err


def test_failed_rank_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a rank raises is shown with its traceback instead of a result."""

    def fail(ranks: int, start_method: str) -> selftest.Run:
        return selftest.by_spawnx(ranks, start_method, limit="not a number")  # type: ignore[arg-type]

    monkeypatch.setitem(selftest.WAYS, "spawnx", fail)
    code = command.main(["--ranks", "2", "--start-method", QUICK])

    told = capsys.readouterr().err
    assert 1 == code
    assert told.startswith("FAILED: the ranks did not run to their end: ")
    assert "TypeError" in told

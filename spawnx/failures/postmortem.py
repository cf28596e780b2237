"""The post-mortem of a failed rank: its report, its line on the scoreboard, its stack, signs of an OOM kill."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal

from spawnx import backends, cgroup
from spawnx.failure import Failure, signal_name
from spawnx.ipc import scoreboard
from spawnx.memory import to_memory
from spawnx.mp import interpreter
from spawnx.remote.rank import SIGKILL
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from spawnx.ipc.scoreboard_reader import Line, Scoreboard
    from spawnx.watch.ended import Ended

# The signals for which faulthandler writes a stack.
_WITH_STACK = {
    -getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
    if hasattr(signal, name)
}
# How many seconds a trial of an interpreter may take, and how many characters of its stderr are quoted, from the end.
_TRY_S = 10.0
_SAID = 4000
_TORN = "Process {} had raised, and was ended before its report was whole: what it raised is not known."


class PostMortem:
    """Collects what is known of the failed ranks of a context. Made before ranks reach user code: it counts OOM kills.

    Args:
        scoreboard: the scoreboard of the ranks.
        began: `clock.monotonic()` when their start began.
        fresh: whether each rank is an interpreter of its own.
    """

    def __init__(self, scoreboard: Scoreboard, began: float, *, fresh: bool) -> None:
        self._scoreboard, self._began, self._fresh = scoreboard, began, fresh
        self._tried: str | None = None
        self._oom_kills = oom_kills()
        self._lines: Sequence[Line] = ()

    def failing(self) -> list[int]:
        """Return the ranks that have caught an exception, whether they have reported it yet or not."""
        return self._scoreboard.failing()

    def read(self) -> None:
        """Read the scoreboard once, for all later calls of `failure`; to be called before the scoreboard is closed."""
        self._lines = self._scoreboard.lines()

    def failure(self, ended: Ended, when: float, *, signalled: bool, lives: bool) -> Failure:
        """Return all that is known of a failed rank.

        Args:
            ended: how it ended.
            when: the time when it failed.
            signalled: whether it ended because the supervisor had signalled it.
            lives: whether the teardown could not end it.
        """
        line = self._lines[ended.rank] if self._lines else None
        report, code = ended.report, ended.exit_code
        stack = ""
        if report is None and code in _WITH_STACK:
            stack = self._scoreboard.stack(ended.rank)
        return Failure(
            ended.rank,
            ended.pid,
            report.stage if report is not None else line.stage if line is not None else scoreboard.RUN,
            None if lives or ended.status_lost else code,
            signal_name(-code) if code < 0 and not lives else None,
            max(0.0, when - self._began),
            report.type_name if report is not None else None,
            report.text if report is not None else stack,
            ended.peak_kib or (report.peak_kib if report is not None else None),
            signalled,
            self._remark(ended, line, signalled=signalled),
        )

    def _remark(self, ended: Ended, line: Line | None, *, signalled: bool) -> str:
        if ended.report is None and line is not None and line.failing:
            return _TORN.format(ended.rank)
        if signalled:
            return ""
        if ended.exit_code == -SIGKILL:
            return self._describe_oom(ended.rank)
        if self._fresh and line is not None and line.stage == scoreboard.BOOT:
            self._tried = self._tried or try_interpreter()
            return (
                f"The interpreter of process {ended.rank} ended before it ran the main module. {self._tried}"
            )
        return ""

    def _describe_oom(self, rank: int) -> str:
        now = oom_kills()
        if now is None or self._oom_kills is None or now <= self._oom_kills:
            return ""
        return (
            f"The kernel has killed {now - self._oom_kills} of the processes in this cgroup since the ranks were"
            f" started, because memory ran out: process {rank} may be one of them."
        )


def try_interpreter() -> str:
    """Start the interpreter of ranks again, and describe how it ends. Used if a rank ended before it could report.

    The rank's own standard error was the supervisor's. To read it, that of every rank would have to be diverted.
    The trial begins as a rank of spawnx's launchers does, and ends before it would read arguments of its own.
    """
    with standard_library():
        import subprocess

    with contextlib.ExitStack() as opened:
        command, keep, what = _beginning(opened)
        try:
            done = subprocess.run(  # noqa: S603 - as the ranks were started
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TRY_S,
                check=False,
                pass_fds=keep,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Tried again, {what}: {error}"
    if done.returncode == 0:
        return f"Tried again, {what}, {command[0]} ends well."
    said = done.stderr.decode(errors="replace").strip()[-_SAID:]
    how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {signal_name(-done.returncode)}"
    says = f"says:\n{said}" if said else "says nothing."
    return f"Tried again, {what}, {command[0]} ends with {how} and {says}"


def _beginning(opened: contextlib.ExitStack) -> tuple[list[str], list[int], str]:
    """Return a command line that begins as that of a rank, the fds that it needs, and what it tries, in words."""
    if not hasattr(os, "memfd_create"):
        return interpreter.bare_command(), [], "with nothing to do"
    arguments = pickle.dumps({"path": interpreter.path_to_send(), "backend": backends.choose()[0].name})
    file = to_memory("spawnx-trial", memoryview(arguments))
    opened.callback(os.close, file)
    command = interpreter.command("spawnx.remote.rank", "rehearse", file, 0, len(arguments))
    return command, [file], "up to the arguments of the rank"


def oom_kills() -> int | None:
    """Return how many processes of this process's cgroup the OOM killer has killed; None if the count is unknown."""
    for path in _counters():
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            for line in file:
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return None


def _counters() -> list[str]:
    """Return the files that may contain the count of OOM kills (Linux 4.13)."""
    return cgroup.files("memory", "memory.oom_control", "memory.events")

"""The supervisor of one run of the campaign `orphans`: it starts ranks, reaches a point, and ends.

`tests.campaigns.orphans` starts it with the run as JSON. It prints a line when it has reached the point. Then it ends
itself, or waits for a signal.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import spawnx
from spawnx.guard import Guard
from spawnx.ipc import gate
from spawnx.launchers import start
from spawnx.mp import interpreter
from spawnx.process import RankProcess

# The command of a process that must not be signalled.
BYSTANDER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def rank(index: int, behaviour: str, arrived: Any) -> None:
    """Run as a rank that arrives and stays, with the given behaviour. Rank 0 with the behaviour `ends` returns."""
    if behaviour == "deaf":
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
    if behaviour == "setsid":
        os.setsid()
    os.write(arrived.fileno(), b".")
    if index == 0 and behaviour == "ends":
        return
    if behaviour == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if behaviour == "busy":
        hashlib.pbkdf2_hmac("sha256", b"deaf to handlers", b"", 10**10)
    while True:
        time.sleep(1)


class Run:
    """One run, as drawn by the campaign."""

    def __init__(self, what: dict[str, Any]) -> None:
        """Take the draw: `point`, `ending`, `method`, `backend`, `behaviour`, `ranks`, `thread`, `k`."""
        self.what = what
        self._done = False

    def come(self, context: Any = None) -> None:
        """Report that the point is reached; then end, or wait for a signal."""
        if self._done:
            return
        self._done = True
        pids = [] if context is None else context.pids()
        print(json.dumps({"at": self.what["point"], "pids": pids}), flush=True)
        ending = self.what["ending"]
        if ending == "exit":
            os._exit(3)
        if ending == "exec":
            os.execv(BYSTANDER[0], BYSTANDER)
        if ending == "exception":
            raise RuntimeError("the end of this run")
        # If spawnx blocks the signal at this point, it stays pending. The loop then ends, so that spawnx goes on and
        # unblocks the signal, which ends this process.
        while not signal.sigpending():
            time.sleep(0.01)

    def lie_in_wait(self) -> None:
        """Wrap the step of spawnx that follows the point, so that it calls `come` first."""
        point = self.what["point"]
        if point == "before":
            _wrap(start, "launch", self.come)
        elif point == "starting":
            self._wait_for_launch()
        elif point == "adopting":
            self._wait_for_adoption()
        elif point == "started":
            _wrap(Guard, "open_gate", self.come)
        elif point == "held":
            _wrap(gate, "let", self.come)

    def _wait_for_adoption(self) -> None:
        """Call `come` when the ranks wait for their adoption, just before it, or just after it."""
        from spawnx.backends import native
        from spawnx.launchers import popen, template

        step = self.what["k"] % 3
        owner, name = (
            (template.Template, "_adopt"),
            (native, "adopt_orphans"),
            (popen.Holder, "adopt_all"),
        )[step]
        _wrap(owner, name, self.come)

    def _wait_for_launch(self) -> None:
        """Call `come` just before rank k is created, for each way to create it."""
        left = self.what["k"]
        if self.what["backend"] == "native" and os.environ["SPAWNX_LAUNCHER"] in ("auto", "clone"):
            if left > 0 and self.what["method"] == "spawn":
                self._wait_for_template(left)
            elif self.what["method"] == "forkserver":
                left = 0  # one interpreter is launched for any number of ranks

        def count() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                self.come()

        _wrap(RankProcess, "start", count)  # the standard library's
        if self.what["method"] == "fork":
            os.register_at_fork(before=count)
        else:
            from spawnx import backends

            left += 1  # the guardian
            _wrap(type(backends.choose()[0]), "launch", count)

    def _wait_for_template(self, clones: int) -> None:
        """Call `come` when the template has made `clones` clones and stops."""
        fifo = tempfile.mktemp()  # noqa: S306 - a FIFO can't be made otherwise, and the folder is ours
        os.mkfifo(fifo)
        from spawnx.launchers import template

        plain_command, plain_wait = interpreter.command, template.Template._wait_made

        def command(module: str, function: str, file: int, at: int, size: int) -> list[str]:
            argv = plain_command(module, function, file, at, size)
            if module in ("spawnx.remote.template", "spawnx.remote.zygote"):
                place = argv.index("-c") + 1
                # The template takes this import for start-up code, because of which "auto" would not clone.
                insist = "import os; os.environ['SPAWNX_LAUNCHER'] = 'clone'; "
                stop = f"from tests.campaigns.orphan_template import stop_after; stop_after({clones}, {fifo!r}); "
                argv[place] = insist + stop + argv[place]
            return argv

        def wait(which: template.Template, child: Any) -> bool:
            Path(fifo).read_bytes()
            self.come()
            return plain_wait(which, child)

        interpreter.command, template.Template._wait_made = command, wait  # type: ignore[method-assign]


def _wrap(owner: Any, name: str, first: Callable[[], None]) -> None:
    function = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        first()
        return function(*args, **options)

    setattr(owner, name, wrapped)


def supervise(run: Run) -> None:
    """Start the ranks, and reach the point."""
    what = run.what
    reader, writer = multiprocessing.Pipe(duplex=False)
    run.lie_in_wait()
    context: Any = spawnx.start_processes(
        rank,
        (what["behaviour"], writer),
        what["ranks"],
        join=False,
        daemon=what["ending"] == "exception",
        start_method=what["method"],
    )
    if what["point"] == "booting":
        run.come(context)
    left = what["ranks"]
    while left:
        left -= len(os.read(reader.fileno(), left))
    if what["point"] == "running":
        run.come(context)
    context.join()
    recycle(context.pids()[0])
    run.come(context)


def recycle(pid: int) -> None:
    """Start a bystander with the pid of a reaped rank, if ns_last_pid is writable."""
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last_pid, os.W_OK):
        return
    for _ in range(20):
        last_pid.write_text(str(pid - 1), encoding="ascii")
        environment = {name: value for name, value in os.environ.items() if name != "SPAWNX_CAMPAIGN"}
        stranger = subprocess.Popen(BYSTANDER, stdin=subprocess.DEVNULL, env=environment)
        if stranger.pid == pid:
            print(json.dumps({"recycled": pid}), flush=True)
            kept.append(stranger)
            return
        stranger.kill()
        stranger.wait()


kept: list[Any] = []


def main() -> None:
    """Do one run."""
    run = Run(json.loads(sys.argv[1]))
    if run.what["thread"]:
        worker = threading.Thread(target=supervise, args=(run,))
        worker.start()
        worker.join()
    else:
        supervise(run)


if __name__ == "__main__":
    main()

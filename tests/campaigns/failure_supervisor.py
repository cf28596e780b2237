"""The supervisor of the campaign `failures`: it starts ranks that fail as drawn, and reports what `join` raises.

`tests.campaigns.failures` starts it. It reads runs from its standard input, a JSON object a line, and answers each with
one: what was raised, the notes of the ranks, how long it took, and what was left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

import spawnx
from tests import ranks

# The exceptions that peers raise when the connection to a failed rank ends.
CONSEQUENCES = {
    "reset": ConnectionResetError(104, "Connection reset by peer"),
    "pipe": BrokenPipeError(32, "Broken pipe"),
    "eof": EOFError(),
    "gloo": RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2047"),
}


class RaisesWhenDeletedError(Exception):
    """Raised where no code can catch it."""


class BadDel:
    """An object whose deletion raises."""

    def __del__(self) -> None:
        """Raise. The interpreter prints the error and goes on."""
        raise RaisesWhenDeletedError("in __del__")


def fail(how: str, full: str) -> None:
    """Fail in the drawn way."""
    if how == "disk full":
        fill(full)
    if how in RAISES:
        function, *args = RAISES[how]
        function(*args)
    if how.startswith("exit "):
        sys.exit(int(how.split()[1]))
    if how.startswith("_exit "):
        os._exit(int(how.split()[1]))
    signum = signal.Signals[how]
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_DFL)  # the rank may have ignored it until now
    ranks.send_self(signum)


def raise_with_bad_del() -> None:
    """Raise, with a `BadDel` in the frames of the traceback, which is deleted with them."""
    thing = BadDel()
    raise ValueError("the cause", id(thing))


# The functions by which causes raise, and their arguments.
RAISES: dict[str, tuple[Any, ...]] = {
    "raise": (ranks.raise_value_error, "the cause"),
    "chained": (ranks.raise_chained, "the cause"),
    "unpicklable": (ranks.raise_unpicklable, "the cause"),
    "5 MB": (ranks.raise_value_error, "x" * 5_000_000),
    "hangs": (ranks.raise_but_stay, "the cause"),
    "exits 0": (ranks.raise_but_exit_well, "the cause"),
    "del": (raise_with_bad_del,),
    "disk full": (ranks.raise_value_error, "x" * 200_000),
    "killed": (ranks.raise_what_kills_when_told,),
}


def fill(full: str) -> None:
    """Fill the file system of the context's folder; if `full` is "", limit the size of this process's files instead."""
    if not full:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return
    with contextlib.suppress(OSError), open(f"{full}/filler", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def rank(index: int, what: dict[str, Any], folder: str, barrier: Any, *_: object) -> None:
    """Run as a rank in its role: `cause`, `peer`, `stays`, `deaf`, `stopped`, `ends`, `del` or `forks`."""
    role = what["roles"][index]
    if role == "deaf" or (role == "cause" and what["deaf causes"]):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = connection = None
    if index == what["hub"]:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{folder}/hub")
        server.listen(64)
    barrier.wait(60)
    if role == "peer":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{folder}/hub")
    barrier.wait(60)
    if role == "cause":
        be_cause(index, what, folder, server)
    if role == "peer" and connection is not None:
        be_peer(index, what, folder, connection)
    if role == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if role in {"stays", "deaf", "stopped"}:
        ranks.stay()
    if role == "del":
        BadDel()
    if role == "forks" and os.fork() == 0:
        raise ValueError("in a process that the rank forked")


def be_cause(index: int, what: dict[str, Any], folder: str, server: socket.socket | None) -> None:
    """Fail after a while. The connections to peers are closed before that, or by the end of the process."""
    how, after = what["causes"][str(index)]
    accepted = [server.accept()[0] for _ in range(what["roles"].count("peer"))] if server is not None else []
    if what["closes first"]:
        for one in accepted:
            one.close()
    if after:
        threading.Event().wait(after)
    note(folder, index, how)
    fail(how, what["full"])


def be_peer(index: int, what: dict[str, Any], folder: str, connection: socket.socket) -> None:
    """Wait until the peer has closed the connection, then raise the error of a lost peer."""
    while connection.recv(1):
        pass
    note(folder, index, "consequence")
    raise CONSEQUENCES[what["consequence"]]


def note(folder: str, index: int, how: str) -> None:
    """Append to the notes what this rank is about to do, and the time."""
    with open(f"{folder}/notes", "a", encoding="utf-8") as file:
        file.write(json.dumps({"rank": index, "how": how, "time": time.monotonic()}) + "\n")


def do(what: dict[str, Any]) -> dict[str, Any]:
    """Do one run, and return its answer."""
    os.environ.update(what["environment"])
    tempfile.tempdir = what["full"] or None
    with tempfile.TemporaryDirectory(dir=os.environ["TMPDIR"]) as folder:
        began = time.monotonic()
        told = supervise(what, folder)
        told["seconds"] = time.monotonic() - began
        told["ended"] = time.monotonic()
        notes = Path(folder, "notes")
        lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
        told["notes"] = [json.loads(line) for line in lines]
    told["left"] = left(what["full"])
    return told


def supervise(what: dict[str, Any], folder: str) -> dict[str, Any]:
    """Start the ranks and join them. Return what was raised."""
    context = multiprocessing.get_context(what["method"])
    count = len(what["roles"])
    barrier = context.Barrier(count)
    extra = (ranks.BreaksOnArrival(),) if what["breaks"] else ()
    kept = []
    try:
        kept.append(
            spawnx.start_processes(
                rank, (what, folder, barrier, *extra), count, join=False, start_method=what["method"],
                timeout=what["timeout"],
            )
        )  # fmt: skip
        while not kept[0].join():
            pass
    except (spawnx.ProcessException, TimeoutError) as error:
        return describe(error, kept[0])
    return {"raised": None}


def describe(error: Any, context: Any) -> dict[str, Any]:
    """Return the facts of an exception as plain values, which keep no rank alive."""
    told = {"raised": type(error).__name__, "text": str(error)[-2000:], "head": str(error)[:200]}
    if isinstance(error, TimeoutError):
        told["alive"] = sorted(error.tracebacks)
    else:
        told["index"] = error.error_index
        told["began"] = context._guard.began  # from which `seconds` count
        told["failures"] = [
            {
                name: getattr(one, name)
                for name in ("rank", "stage", "exit_code", "signal_name", "type_name", "signalled", "seconds")
            }
            | {"stack": one.traceback.startswith("Fatal Python error"), "remark": one.remark}
            for one in error.failures
        ]
    # Takes the remaining failures in their order. None may be raised twice.
    others = [told.get("index")]
    for _ in range(len(context.processes) + 1):
        try:
            if context.join():
                break
        except spawnx.ProcessException as another:
            others.append(another.error_index)
    told["told twice"] = len(others) - len(set(others))
    return told


def left(full: str) -> list[str]:
    """Return the processes, fds and files that have leaked since the first run."""
    gc.collect()
    if full:
        Path(full, "filler").unlink(missing_ok=True)
    folders = [os.environ["TMPDIR"], *([full] if full else [])]
    # One zygote may live on, with its scoreboard.
    children = [one for one in psutil.Process().children() if not is_helper(one)]
    children = sorted(children, key=is_zygote)
    if children and is_zygote(children[-1]):
        children.pop()
    return [
        *(f"process {one.pid} {one.name()}" for one in children),
        *(f"file {name}" for folder in folders for name in os.listdir(folder) if name.startswith("spawnx")),
        *(f"fd {name}" for name in fds() if "spawnx" in name and "spawnx-scoreboard" not in name),
        *([f"{len(fds())} fds"] if len(fds()) > MOST_FDS else []),
    ]


# The most fds of this process between two runs: streams, helpers of multiprocessing, arenas of barriers.
MOST_FDS = 40


def fds() -> list[str]:
    """Return the targets of all fds of this process."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def is_zygote(process: psutil.Process) -> bool:
    """Whether a process is a zygote, which lives from call to call."""
    with contextlib.suppress(psutil.Error):
        return "spawnx.remote.zygote" in " ".join(process.cmdline())
    return False


def is_helper(process: psutil.Process) -> bool:
    """Whether a process is a helper that multiprocessing keeps until this process ends."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "resource_tracker" in line or "forkserver" in line


def main() -> None:
    """Do runs until the standard input ends."""
    logging.disable()
    for line in sys.stdin:
        told = do(json.loads(line))
        print(json.dumps(told), flush=True)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    main()

"""The supervisor of runs of the campaign of failures: it starts ranks that fail as drawn, and tells what it is told.

Started by `tests.campaigns.failures`. It reads runs from its standard input, one JSON a line, and answers each by one:
what was raised, what the ranks have noted about themselves, how long it took, and what was left.
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

# What peers raise when the connection to a failed rank ends.
CONSEQUENCES = {
    "reset": ConnectionResetError(104, "Connection reset by peer"),
    "pipe": BrokenPipeError(32, "Broken pipe"),
    "eof": EOFError(),
    "gloo": RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2047"),
}


class RaisesWhenDeletedError(Exception):
    """What is raised where nobody can catch it."""


class BadDel:
    """An object whose deletion raises."""

    def __del__(self) -> None:
        """Raise; the interpreter prints it, and goes on."""
        raise RaisesWhenDeletedError("in __del__")


def fail(how: str, full: str) -> None:
    """Fail in one of the ways that are drawn."""
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
        signal.signal(signum, signal.SIG_DFL)  # it may have been deaf until now
    ranks.send_self(signum)


def raise_with_bad_del() -> None:
    """Raise, with an object in the frames of the traceback that is deleted when they are."""
    thing = BadDel()
    raise ValueError("the cause", id(thing))


# How causes raise.
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
    """Leave no room on the file system of the context's folder; or none that this process may use."""
    if not full:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return
    with contextlib.suppress(OSError), open(f"{full}/filler", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def rank(index: int, what: dict[str, Any], folder: str, barrier: Any, *_: object) -> None:
    """Be a rank with its role: `cause`, `peer`, `stays`, `deaf`, `stopped`, `ends`, `del` or `forks`."""
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
    """Fail after a while, with what the peers were connected to closed before, or by the end."""
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
    """Raise what one raises whose peer is gone, when it is."""
    while connection.recv(1):
        pass
    note(folder, index, "consequence")
    raise CONSEQUENCES[what["consequence"]]


def note(folder: str, index: int, how: str) -> None:
    """Note what this rank is about to do, and when."""
    with open(f"{folder}/notes", "a", encoding="utf-8") as file:
        file.write(json.dumps({"rank": index, "how": how, "time": time.monotonic()}) + "\n")


def do(what: dict[str, Any]) -> dict[str, Any]:
    """Take one run."""
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
    """Start the ranks, and join them."""
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
    """What is told by what was raised, without anything that holds the ranks."""
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
    # The failures that are left are taken as they come; none is told twice.
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
    """What is there that was not before the first run: processes, fds, files."""
    gc.collect()
    if full:
        Path(full, "filler").unlink(missing_ok=True)
    folders = [os.environ["TMPDIR"], *([full] if full else [])]
    # The zygote lives on, one of them, with its scoreboard.
    children = [one for one in psutil.Process().children() if not is_helper(one)]
    children = sorted(children, key=is_kept_template)
    if children and is_kept_template(children[-1]):
        children.pop()
    return [
        *(f"process {one.pid} {one.name()}" for one in children),
        *(f"file {name}" for folder in folders for name in os.listdir(folder) if name.startswith("spawnx")),
        *(f"fd {name}" for name in fds() if "spawnx" in name and "spawnx-scoreboard" not in name),
        *([f"{len(fds())} fds"] if len(fds()) > MOST_FDS else []),
    ]


# Of this process between two runs: streams, helpers of multiprocessing, arenas of barriers.
MOST_FDS = 40


def fds() -> list[str]:
    """What is open here."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def is_kept_template(process: psutil.Process) -> bool:
    """Whether a process is the template that is kept between calls."""
    with contextlib.suppress(psutil.Error):
        return "spawnx.remote.zygote" in " ".join(process.cmdline())
    return False


def is_helper(process: psutil.Process) -> bool:
    """Whether multiprocessing keeps a process for as long as this one lives."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "resource_tracker" in line or "forkserver" in line


def main() -> None:
    """Take runs until there are no more."""
    logging.disable()
    for line in sys.stdin:
        told = do(json.loads(line))
        print(json.dumps(told), flush=True)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    main()

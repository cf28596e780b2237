"""A thread that ends its own rank when the supervisor has ended: where there are no pidfds, hence no guardian.

It does less than a guardian: it can't end a rank that is stopped, or busy in C with the interpreter's lock held.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from multiprocessing.process import parent_process

from spawnx import orphans
from spawnx.standard import standard_library


def hold(grace: float) -> None:
    """Watch the supervisor from a thread of this rank. The rank may outlive the supervisor by `grace` seconds."""
    threading.Thread(target=_watch, args=(grace, os.getpid()), name="spawnx-lifeline", daemon=True).start()


def _watch(grace: float, pid: int) -> None:
    parent = parent_process()
    if parent is None:
        return
    # Not parent.join(): it imports the same module late, and may find a file of the program of that name.
    with standard_library():
        from multiprocessing.connection import wait

    wait([parent.sentinel])
    for step in orphans.ladder(grace):
        _send(pid, step.signum)
        time.sleep(step.wait)


def _send(pid: int, signum: int) -> None:
    if signum == signal.SIGINT and os.name == "nt":
        _thread.interrupt_main()  # on Windows, os.kill ends the process at once
    else:
        os.kill(pid, signum)

"""Launching threads: as many as there are callers at once, each for as long as the process lives.

Two facts ask for it. The kernel ties a child's death signal to the *thread* that created it (prctl(2)), so children
that a short-lived thread asks for must be created by one that stays. And Python runs signal handlers in the main thread
only: in this one, no KeyboardInterrupt comes between the creation of a child and the note of its pid.
"""

from __future__ import annotations

import contextlib
import os
import threading
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Job:
    """Something to be done in the launching thread.

    Attributes:
        cancelled: whether the caller was interrupted: the work should end soon.
        on_cancel: called in the caller's thread when that happens, for work that waits for something.
    """

    on_cancel: Callable[[], None] | None = None

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.cancelled = False
        self._work = work
        self._error: BaseException | None = None
        self._done = threading.Event()

    def do(self) -> None:
        """Work, and keep what is raised for the caller."""
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        del self._work

    def let_go(self) -> None:
        """Let the caller go on: the work is done."""
        self._done.set()

    def wait(self) -> None:
        """Wait until the work is done; an interrupt is raised after that, not before.

        Raises:
            BaseException: what the work raised, or what interrupted the wait.
        """
        interrupt: BaseException | None = None
        while not self._done.is_set():
            try:
                self._done.wait()
            except BaseException as raised:  # noqa: BLE001 - out of a signal handler
                interrupt, self.cancelled = raised, True
                on_cancel = self.on_cancel  # once: the launching thread may be done with it meanwhile
                if on_cancel is not None:
                    with contextlib.suppress(OSError):
                        on_cancel()
        error, self._error = interrupt or self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error, interrupt  # no circle through this frame


def launch_in_thread(work: Callable[[Job], None]) -> None:
    """Call `work` in the launching thread, and wait for it.

    Raises:
        BaseException: what `work` raises, or an interrupt, which comes after `work` has returned.
    """
    job = Job(work)
    try:
        _hand_over(job)
    except RuntimeError:  # "can't start new thread": the interpreter is shutting down, or there are too many
        job.do()
        job.let_go()
    job.wait()


class _Threads:
    """Launching threads that are alike.

    Attributes:
        jobs: what they are to do.
        idle: how many of them wait for a job that nobody has handed over yet.
    """

    __slots__ = ("idle", "jobs")

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.idle = 0

    def serve(self) -> None:
        while True:
            job = self.jobs.get()
            job.do()
            # Before the caller goes on: its next call is not to start another thread.
            with _lock:
                self.idle += 1
            job.let_go()
            del job


def _hand_over(job: Job) -> None:
    """Have a launching thread that is like the calling one do a job; none waits for another one's."""
    like = inherited()
    with _lock:
        threads = _alike.setdefault(like, _Threads())
        if threads.idle == 0:
            threading.Thread(target=threads.serve, name="spawnx-launch", daemon=True).start()
        else:
            threads.idle -= 1
        threads.jobs.put(job)


# What of the calling thread's /proc folder its children have from it.
_STATUS = (b"Cap", b"NoNewPrivs", b"Seccomp")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")


def inherited() -> tuple[object, ...]:
    """What a child would have from the calling thread, as far as it can be told; of threads that agree one will do."""
    if not hasattr(os, "sched_getscheduler"):
        return ()
    found: list[object] = []
    with contextlib.suppress(OSError):  # musl has no answer to the second, and a sandbox none at all
        found.append(os.getpriority(os.PRIO_PROCESS, 0))
        found += [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority]
    # Before Linux 3.17, and where there is no /proc, nothing more can be told.
    with contextlib.suppress(OSError):
        with open("/proc/thread-self/status", "rb") as file:
            found += [line for line in file if line.startswith(_STATUS)]
        for name in _NAMESPACES:
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/thread-self/ns/{name}"))
    return tuple(found)


def _forget() -> None:
    global _alike, _lock
    _alike, _lock = {}, threading.Lock()


_alike: dict[tuple[object, ...], _Threads] = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)

"""The contract, by the C core. Only this file uses its `ffi` and `lib`; `csrc/spawnx.h` documents each call."""

from __future__ import annotations

import errno
import math
import os

from spawnx import clock
from spawnx.backends._native import ffi, lib
from spawnx.backends.contract import FULL, LOST
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from spawnx.backends.contract import Program, Seen, Watch

if lib.spx_abi() != lib.SPX_ABI or lib.SPX_LOST != LOST:
    raise ImportError("the C core and its header disagree: rebuild spawnx")

# epoll_wait(2) takes milliseconds as an int: 24 days at most. A longer wait is repeated.
_LONGEST_MS = 2**31 - 1
# If the caller waits for all ranks, ends that are no further apart than this are reported together. Longer than a rank
# takes to end while others end as well (0.5 ms), shorter than anybody notices.
_GATHER_MS = 10

# The program that is built beside the library.
_GUARDIAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "spawnx-guardian")

_has_pidfd: bool | None = None


class NativeBackend:
    """See `contract.Backend`."""

    name = "native"
    can_clone = True
    arms_at_launch = True

    def features(self) -> dict[str, str]:
        """See the contract."""
        with standard_library():
            from spawnx.backends import python

        return {
            "parent death signal": "prctl",
            "pidfd": "yes" if self.has_pidfd() else "no",
            "watch": f"epoll, in batches of {lib.SPX_BATCH}"
            if python.has_epoll()
            else "the standard library's selectors",
        }

    def has_pidfd(self) -> bool:
        """See the contract. The core makes the call: an interpreter built with old headers has no `os.pidfd_open`."""
        global _has_pidfd  # noqa: PLW0603 - an answer of the kernel, the same for the life of this process
        if _has_pidfd is None:
            answer = lib.spx_open_pidfd(os.getpid())
            if -answer in FULL:
                return False  # for this call: no fd is free
            # This process is no child of its own: ECHILD shows that it was opened and waited for, so pidfds work.
            _has_pidfd = answer == -errno.ECHILD
        return _has_pidfd

    def load(self) -> None:
        """See the contract. The core is loaded with this module, so there is nothing to do."""

    def arm(self, signum: int, parent: int) -> bool:
        """See the contract."""
        return lib.spx_arm(signum, parent) != lib.SPX_ORPHAN

    def launch(self, program: Program) -> tuple[int, int]:
        """See the contract."""
        argv = [ffi.new("char[]", os.fsencode(argument)) for argument in program.argv]
        entries = [ffi.new("char[]", entry) for entry in environment()]
        keep, mask = ffi.new("int[]", program.keep), ffi.new("int[]", list(program.mask))
        arguments = ffi.new("char *[]", [*argv, ffi.NULL]), ffi.new("char *[]", [*entries, ffi.NULL])
        what = ffi.new(
            "struct spx_launch *",
            {
                "path": argv[0],
                "argv": arguments[0],
                "envp": arguments[1],
                "keep": keep,
                "n_keep": len(keep),
                "blocked": mask,
                "n_blocked": len(mask),
                "death_signal": program.death_signal,
            },
        )
        pid = ffi.new("int *")
        result = lib.spx_launch(what, pid)
        if result in {-errno.ENOENT, -errno.EACCES, -errno.ENOEXEC}:
            raise OSError(-result, os.strerror(-result), program.argv[0])
        return pid[0], _checked(result)

    def guardian_command(
        self, channel: int, folder: int, supervisor: int, ladder: str, path: str
    ) -> list[str]:
        """See the contract."""
        if not os.access(_GUARDIAN, os.X_OK):  # an installer has dropped the x bit
            with standard_library():
                from spawnx.backends import python

            return python.PythonBackend().guardian_command(channel, folder, supervisor, ladder, path)
        return [_GUARDIAN, *map(str, (channel, folder, supervisor, ladder)), path]

    def open_pidfd(self, pid: int) -> int:
        """See the contract."""
        return _checked(lib.spx_open_pidfd(pid))

    def peek(self, pidfd: int) -> int | None:
        """See the contract."""
        code = ffi.new("int *")
        _checked(lib.spx_peek(pidfd, code))
        return None if code[0] == lib.SPX_RUNS else int(code[0])

    def sweep(self, pids: Sequence[int]) -> list[tuple[int, int]]:
        """See the contract."""
        seen = ffi.new("struct spx_seen[]", len(pids))
        count = _checked(lib.spx_sweep(pids, len(pids), seen, len(pids)))
        return [(pids[one.rank], one.code) for one in seen[0:count]]

    def reap(self, pidfds: Sequence[int]) -> None:
        """See the contract."""
        lib.spx_reap(pidfds, len(pidfds))

    def fan_out(self, pidfds: Sequence[int], signum: int) -> None:
        """See the contract."""
        _checked(lib.spx_fan_out(pidfds, len(pidfds), signum))

    def open_watch(self) -> Watch:
        """See the contract."""
        with standard_library():
            from spawnx.backends import python  # not at the top: ranks that arm themselves load this module

        # epoll may be forbidden. Or gevent has replaced the standard library's: a call that blocks the thread
        # would then block all greenlets.
        return NativeWatch() if python.has_epoll() else python.PidfdWatch(self)


def get_ready_to_fork() -> None:
    """Check that this process has one thread, and flush stdio's buffers, which each fork would write again.

    Raises:
        OSError: this process has more than one thread (EBUSY), or the number can't be found out (ENOTSUP).
    """
    _checked(lib.spx_get_ready_to_fork())


def adopt_orphans(*, on: bool) -> bool:
    """Make this process a subreaper, or end that; return whether it was one before.

    A subreaper adopts the children of its descendants that end.

    Raises:
        OSError: a sandbox forbids it.
    """
    return bool(_checked(lib.spx_adopt_orphans(on)))


def collapse() -> int:
    """Put this process's private memory into large pages, as far as the kernel can; return how many were made.

    A clone copies the page tables of a process: half of the cost of a clone if torch is loaded.
    """
    made = 0
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            place, rights, _, _, _, *name = line.split()
            if rights == b"rw-p" and name in ([], [b"[heap]"]):
                start, _, end = place.partition(b"-")
                made += lib.spx_collapse(int(start, 16), int(end, 16))
    return made


def inherited() -> dict[str, list[int]]:
    """Return what a child inherits from the calling thread and only system calls show; see `struct spx_inherited`."""
    answers = ffi.new("struct spx_inherited *")
    lib.spx_ask_inherited(answers)
    fields = {name: getattr(answers, name) for name, _ in ffi.typeof("struct spx_inherited").fields}
    return {name: [value] if isinstance(value, int) else list(value) for name, value in fields.items()}


def loaded() -> int:
    """Return how many libraries this process has loaded until now (dlopen(3))."""
    return int(lib.spx_loaded())


def begin_exit() -> None:
    """Mark where `leave` stops: it does not call functions registered with atexit(3) before this call."""
    _checked(lib.spx_begin_exit())


def leave(code: int) -> NoReturn:
    """Call the functions registered with atexit(3) since `begin_exit`, flush stdio, and end this process."""
    lib.spx_leave(code)
    raise AssertionError


class Survey:
    """A `Survey` finds objects whose destruction may have an effect outside the process: see `struct spx_survey`.

    Args:
        quiet: types whose objects have no visible effect when they are destroyed.
        each: types of which every object is a suspect.
        budget: the most untracked objects to visit.
    """

    def __init__(self, quiet: Iterable[type], each: Iterable[type], budget: int) -> None:
        self._quiet = ffi.new("long[]", sorted(map(id, quiet)))
        self._each = ffi.new("long[]", sorted(map(id, each)))
        self._what = ffi.new("struct spx_survey *")
        self._what.quiet, self._what.n_quiet = self._quiet, len(self._quiet)
        self._what.each, self._what.n_each = self._each, len(self._each)
        self._what.budget = budget

    def suspects(self, objects: list[object]) -> list[object]:
        """Return the suspects among objects, and among the untracked objects to which these refer.

        Raises:
            OSError: too many objects or types, or references that are nested too deep (EOVERFLOW); or ENOMEM.
        """
        found: list[object] = []
        _checked(lib.spx_survey(self._what, ffi.cast("void *", id(objects)), ffi.cast("void *", id(found))))
        return found


def slots(types: list[type]) -> list[tuple[bool, int]]:
    """Return for each type whether its objects have a finalizer, and the address of the function that destroys them.

    Both are read from C slots, which no metaclass hides. The address is the same for all classes made by Python code.
    """
    finalized, dealloc = ffi.new("int[]", len(types)), ffi.new("long[]", len(types))
    lib.spx_types(ffi.cast("void *", id(types)), finalized, dealloc)
    return [(bool(has), int(address)) for has, address in zip(finalized, dealloc, strict=True)]


class NativeWatch:
    """See `contract.Watch`: one epoll over pidfds. One call returns the exit codes of all ended ranks."""

    def __init__(self) -> None:
        self._watch = ffi.new("struct spx_watch *", {"fd": -1})
        _checked(lib.spx_watch_open(self._watch))

    def add(self, sentinel: int, rank: int) -> None:
        """See the contract."""
        _checked(lib.spx_watch_add(self._watch, sentinel, rank))

    def wait(self, timeout: float | None, gather: int = 1) -> list[Seen]:
        """See the contract."""
        watch = self._watch
        deadline = None if timeout is None else clock.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - clock.monotonic()
            count = lib.spx_watch_wait(watch, _milliseconds(left), gather, _GATHER_MS)
            # On -EINTR the interpreter runs the signal's handler before the next line. If that raises, the wait ends.
            if count > 0:
                return [(one.rank, one.code, one.max_rss_kb) for one in watch.seen[0 : watch.n_seen]]
            if count != -errno.EINTR:
                _checked(count)
            if left is not None and left <= 0:
                return []

    def discard(self, sentinels: Sequence[int]) -> None:
        """See the contract."""
        lib.spx_watch_discard(self._watch, sentinels, len(sentinels))

    def fileno(self) -> int:
        """See the contract."""
        return int(self._watch.fd)

    def close(self) -> None:
        """See the contract."""
        if hasattr(self, "_watch") and self._watch.fd >= 0:  # a handler may have raised before it was opened
            os.close(self._watch.fd)
            self._watch.fd = -1

    def __del__(self) -> None:
        self.close()


def environment() -> list[bytes]:
    """Copy libc's environment. Done in Python, under the interpreter's lock, which the core's calls don't hold."""
    copies: list[bytes] = []
    while lib.environ != ffi.NULL and lib.environ[len(copies)] != ffi.NULL:
        copies.append(ffi.string(lib.environ[len(copies)]))
    return copies


def _checked(result: int) -> int:
    """Return a result of the core, or raise the `OSError` of a negative one."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _milliseconds(seconds: float | None) -> int:
    """Convert a timeout for epoll_wait(2). Rounded up, as otherwise the last wait before a deadline would spin."""
    if seconds is None:
        return -1
    return min(_LONGEST_MS, max(0, math.ceil(seconds * 1000)))

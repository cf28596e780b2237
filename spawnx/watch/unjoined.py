"""Contexts that nobody joins: their ended ranks are reaped, and their resources released.

As in the reference, ranks live on when their context is dropped or their call was interrupted. The standard library
polls all children each time that it starts one. spawnx polls one epoll(7) over the epolls of all contexts. So the cost
of a call grows with the ranks that have ended, not with those that live.
"""

from __future__ import annotations

import contextlib
import os
import select
import weakref

from spawnx.backends.python import has_epoll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from threading import RLock

    from spawnx.guard import Guard
    from spawnx.watch.watcher import Watcher


class Unjoined:
    """Stands for a context while nobody joins it. Kept until its ranks have ended and it was joined or collected.

    Args:
        context: referred to weakly. When it is collected, resources that are no longer needed are released.
        lock: the lock of its `join`.
        watcher, guard: those of the context.
    """

    def __init__(self, context: object, lock: RLock, watcher: Watcher, guard: Guard) -> None:
        self._pid = os.getpid()
        self._looks = False
        self._lock = lock
        self._watcher = watcher
        self._guard = guard
        self._fd = watcher.fileno()
        # After the attributes: a handler may raise at this line. Then the context is collected, and `_drop` needs them.
        self._context = weakref.ref(context, lambda _: self._drop())
        # A handler may raise before `_drop` has done anything. `list.append` is in C: no handler runs in it.
        self._told_gone = weakref.KeyedRef(context, _gone.append, id(self))
        _all[id(self)] = self
        if self._fd >= 0 and (epoll := _epoll()) is not None:
            epoll.register(self._fd, select.EPOLLIN)
            _by_fd[self._fd] = self

    def _drop(self) -> None:
        """Release unneeded resources: the context was collected. `look` releases the rest when no rank lives."""
        self._guard.on_end = self.look
        self.look()

    def look(self) -> None:
        """Note and reap ended ranks, unless another thread joins. Release all when none lives and nobody can join."""
        if self._pid != os.getpid() or self._looks or not self._lock.acquire(blocking=False):
            return
        try:
            self._looks = True  # to note an end may call this method again
            # If an exception cuts this short, the next start repeats it. The epoll shows no end that was already noted.
            _again[id(self)] = self
            self._watcher.wait(0)
            if not self._watcher.any_alive:
                self._guard.dismiss()
                if self._context() is None:
                    self.forget()
                    self._watcher.close()
                    self._guard.close()
            _again.pop(id(self), None)
        finally:
            self._looks = False
            self._lock.release()

    def forget(self) -> None:
        """Drop this entry: the context was joined, or is released. May be called again."""
        _all.pop(id(self), None)
        self._guard.on_end = None  # no reference cycle: fds must not wait for the cycle collector
        if _by_fd.get(self._fd) is self:
            del _by_fd[self._fd]
            # Suppressed: the fd is closed already, so the kernel has unregistered it.
            with contextlib.suppress(OSError, ValueError):
                if (epoll := _epoll()) is not None:
                    epoll.unregister(self._fd)
        if not _all:
            _close()


def reap() -> None:
    """Reap the ended ranks of contexts that nobody joins. The cost grows with the number of these ranks."""
    for one in (*_with_news(), *_again.values()):
        one.look()
    for reference in list(_gone):
        collected = _all.get(reference.key)
        if collected is not None:
            collected.look()
        with contextlib.suppress(ValueError):  # another thread has removed it
            _gone.remove(reference)


def _with_news() -> Iterable[Unjoined]:
    if not _all:
        return ()
    if len(_by_fd) < len(_all):  # some contexts have no epoll, or none could be opened over them
        return list(_all.values())
    epoll = _epoll()
    ready = [] if epoll is None else epoll.poll(0, len(_by_fd) or 1)
    return [_by_fd[fd] for fd, _ in ready if fd in _by_fd]


def _epoll() -> select.epoll | None:
    """Return the epoll over the epolls of all contexts; None if there is none."""
    global _of_all  # noqa: PLW0603 - one per process
    if _of_all is None:
        # Suppressed: the process may have no fd left.
        with contextlib.suppress(OSError):
            _of_all = select.epoll() if has_epoll() else None
    return _of_all


def _close() -> None:
    global _of_all
    epoll, _of_all = _of_all, None
    if epoll is not None:
        epoll.close()


def _forget_all() -> None:
    """Forget all contexts in a forked child: they are the parent's."""
    for some in (_all, _by_fd, _again, _gone):
        some.clear()
    _close()


_all: dict[int, Unjoined] = {}
_by_fd: dict[int, Unjoined] = {}
# Entries whose `look` was cut short by an exception out of a signal handler; and references to collected contexts.
_again: dict[int, Unjoined] = {}
_gone: list[weakref.KeyedRef[int, object]] = []
_of_all: select.epoll | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

"""Contexts that nobody joins: their ranks are reaped, and what they hold is given back, when these have ended.

A context that is dropped, or whose call was interrupted, has ranks that live on, as the reference has it. The standard
library asks all children whether they have ended, each time that it starts one. Here one look shows which contexts have
news: an epoll(7) over their own, so that a call costs what has ended, and not what lives.
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
    """A context as it is when nobody joins it; kept until its ranks have ended, and it is gone or was joined.

    Args:
        context: it is not held by this: when it is collected, what has ended is given back.
        lock: of those who join it.
        watcher, guard: what it has.
    """

    def __init__(self, context: object, lock: RLock, watcher: Watcher, guard: Guard) -> None:
        self._pid = os.getpid()
        self._looks = False
        self._lock = lock
        self._watcher = watcher
        self._guard = guard
        self._fd = watcher.fileno()
        # Last of these: a handler may raise here, and the context is gone then.
        self._context = weakref.ref(context, lambda _: self._drop())
        # A handler may raise before `_drop` has done anything. This callback is in C: no handler runs in it.
        self._told_gone = weakref.KeyedRef(context, _gone.append, id(self))
        _all[id(self)] = self
        if self._fd >= 0 and (epoll := _epoll()) is not None:
            epoll.register(self._fd, select.EPOLLIN)
            _by_fd[self._fd] = self

    def _drop(self) -> None:
        """The context is gone: what has ended is given back now, the rest by whoever sees the last rank ended."""
        self._guard.on_end = self.look
        self.look()

    def look(self) -> None:
        """Note and reap what has ended, unless somebody joins; give all back when nobody can join any more."""
        if self._pid != os.getpid() or self._looks or not self._lock.acquire(blocking=False):
            return
        try:
            self._looks = True  # what it finds ended calls this again
            # What is cut short is done by the next start: ends that were noted are no news any more.
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
        """Keep it no longer: it was joined, or has been given back. May be called again."""
        _all.pop(id(self), None)
        self._guard.on_end = None  # no circle: fds must not wait for a cycle collector
        if _by_fd.get(self._fd) is self:
            del _by_fd[self._fd]
            # Suppressed: its fd is closed, and with it what was registered.
            with contextlib.suppress(OSError, ValueError):
                if (epoll := _epoll()) is not None:
                    epoll.unregister(self._fd)
        if not _all:
            _close()


def reap() -> None:
    """Reap what has ended of the contexts that nobody joins, at a cost that grows with what has ended."""
    for one in (*_with_news(), *_again.values()):
        one.look()
    for reference in list(_gone):
        collected = _all.get(reference.key)
        if collected is not None:
            collected.look()
        with contextlib.suppress(ValueError):  # another thread has seen to it
            _gone.remove(reference)


def _with_news() -> Iterable[Unjoined]:
    if not _all:
        return ()
    if len(_by_fd) < len(_all):  # some have no epoll, or this process may not have another one
        return list(_all.values())
    epoll = _epoll()
    ready = [] if epoll is None else epoll.poll(0, len(_by_fd) or 1)
    return [_by_fd[fd] for fd, _ in ready if fd in _by_fd]


def _epoll() -> select.epoll | None:
    """The epoll over those of all contexts; None where there is none."""
    global _of_all  # noqa: PLW0603 - one per process
    if _of_all is None:
        # A process may have no fd left for it.
        with contextlib.suppress(OSError):
            _of_all = select.epoll() if has_epoll() else None
    return _of_all


def _close() -> None:
    global _of_all
    epoll, _of_all = _of_all, None
    if epoll is not None:
        epoll.close()


def _forget_all() -> None:
    """In a forked child: the contexts are the parent's."""
    for some in (_all, _by_fd, _again, _gone):
        some.clear()
    _close()


_all: dict[int, Unjoined] = {}
_by_fd: dict[int, Unjoined] = {}
# Those whose look was cut short by an exception out of a signal handler, and the contexts that were collected.
_again: dict[int, Unjoined] = {}
_gone: list[weakref.KeyedRef[int, object]] = []
_of_all: select.epoll | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

"""The private names of multiprocessing's `Process` that launchers need, to do without its polls and pipes."""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def check_may_start(process: multiprocessing.process.BaseProcess) -> None:
    """Check what `BaseProcess.start` asserts, without its poll of every earlier child.

    Raises:
        AssertionError: the calling process is a daemon.
        ValueError: `process` is closed.
    """
    process._check_closed()  # type: ignore[attr-defined]
    current = multiprocessing.process.current_process()
    if current._config.get("daemon"):  # type: ignore[attr-defined]
        msg = "daemonic processes are not allowed to have children"
        raise AssertionError(msg)


def start_method_of(process_class: type[multiprocessing.process.BaseProcess]) -> str:
    """Return the start method of a multiprocessing context's Process class."""
    method: str = process_class._start_method  # type: ignore[attr-defined]
    return method


def launch_as(
    process_class: type[multiprocessing.process.BaseProcess], process: multiprocessing.process.BaseProcess
) -> object:
    """Launch `process` as multiprocessing launches processes of that class; return its Popen."""
    popen: object = process_class._Popen(process)  # type: ignore[attr-defined]
    return popen


def identity_of(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """Return the numbers by which multiprocessing identifies a process: its parent's numbers, and one more."""
    identity: tuple[int, ...] = process._identity
    return identity


def adopt(process: multiprocessing.process.BaseProcess, popen: object, sentinel: int) -> None:
    """Mark `process` as started: `active_children()` lists it, and multiprocessing joins or terminates it at exit."""
    process._popen = popen  # type: ignore[attr-defined]
    process._sentinel = sentinel  # type: ignore[attr-defined]
    multiprocessing.process._children.add(process)  # type: ignore[attr-defined]


def forget(process: multiprocessing.process.BaseProcess) -> None:
    """Remove an ended process from `active_children()`."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


def popen_of(process: multiprocessing.process.BaseProcess) -> Any:
    """Return the Popen of a process; None before its start, and after `close()`."""
    return process._popen  # type: ignore[attr-defined]


def supervisors_ends(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """Return this process's ends of the pipes to a process that multiprocessing has forked."""
    fds: tuple[int, ...] = popen_of(process).finalizer._args
    return fds


def close_with(owner: object, *fds: int) -> Callable[[], None]:
    """Close `fds` when the returned function is called or `owner` is collected, whichever comes first.

    multiprocessing's finalizers, unlike `weakref.finalize`, are forgotten in forked children.
    """
    close_fds = multiprocessing.util.close_fds  # type: ignore[attr-defined]
    finalizer: Callable[[], None] = multiprocessing.util.Finalize(owner, close_fds, fds)
    return finalizer


def close_late(owner: object, close: Callable[[], Any]) -> Callable[[], Any]:
    """Call `close` once: when the returned function is called, `owner` is collected, or the process exits.

    At exit, it is called after multiprocessing has joined its children, unlike `weakref.finalize`. It is never called
    in forked children.
    """
    finalizer: Callable[[], Any] = multiprocessing.util.Finalize(owner, close, exitpriority=-100)
    return finalizer

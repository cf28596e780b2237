"""A `Process` of multiprocessing's without its polls and pipes: what launchers need of its private names."""

from __future__ import annotations

import multiprocessing.context
import multiprocessing.process
import multiprocessing.util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def check_may_start(process: multiprocessing.process.BaseProcess) -> None:
    """What `BaseProcess.start` asserts, without the poll of every earlier child that it makes.

    Raises:
        AssertionError: the calling process is a daemon.
    """
    process._check_closed()  # type: ignore[attr-defined]
    current = multiprocessing.process.current_process()
    if current._config.get("daemon"):  # type: ignore[attr-defined]
        msg = "daemonic processes are not allowed to have children"
        raise AssertionError(msg)


def start_method_of(process_class: type[multiprocessing.process.BaseProcess]) -> str:
    """The start method of a context's Process class."""
    method: str = process_class._start_method  # type: ignore[attr-defined]
    return method


def launch_as(
    process_class: type[multiprocessing.process.BaseProcess], process: multiprocessing.process.BaseProcess
) -> object:
    """Launch `process` as multiprocessing launches those of that class; returns its Popen."""
    popen: object = process_class._Popen(process)  # type: ignore[attr-defined]
    return popen


def identity_of(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """The numbers by which multiprocessing tells processes apart: the parent's, and one more."""
    identity: tuple[int, ...] = process._identity
    return identity


def adopt(process: multiprocessing.process.BaseProcess, popen: object, sentinel: int) -> None:
    """Make `process` a started one: `active_children()` lists it, and it is joined or terminated at exit."""
    process._popen = popen  # type: ignore[attr-defined]
    process._sentinel = sentinel  # type: ignore[attr-defined]
    multiprocessing.process._children.add(process)  # type: ignore[attr-defined]


def forget(process: multiprocessing.process.BaseProcess) -> None:
    """Let `active_children()` list an ended process no longer."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


def popen_of(process: multiprocessing.process.BaseProcess) -> Any:
    """What is behind a started process; None before, and after `close()`."""
    return process._popen  # type: ignore[attr-defined]


def supervisors_ends(process: multiprocessing.process.BaseProcess) -> tuple[int, ...]:
    """The fds by which this process holds one that multiprocessing has forked."""
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

    At exit after multiprocessing has joined its children, unlike `weakref.finalize`; not in forked children.
    """
    finalizer: Callable[[], Any] = multiprocessing.util.Finalize(owner, close, exitpriority=-100)
    return finalizer

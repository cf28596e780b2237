"""What a launcher is, and what it is asked for: the contract of all ways to start ranks."""

from __future__ import annotations

from spawnx.remote.rank import GUARDIAN, SIGINT, SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from spawnx.backends.contract import Backend
    from spawnx.guard import Guard
    from spawnx.process import RankProcess
else:
    Protocol = object


class Order:
    """What one call asks for.

    Attributes:
        fn, args, daemon, start_method: as in `start_processes`, checked; the method is one of multiprocessing's.
        report_paths: one for each rank.
        backend: by which ranks arm themselves and are held.
        guard: what stands behind the ranks.
        preload: what a template imports before it is cloned; "auto", or names of modules.
    """

    __slots__ = ("args", "backend", "daemon", "fn", "guard", "preload", "report_paths", "start_method")

    def __init__(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        daemon: bool,
        start_method: str,
        report_paths: Sequence[str],
        backend: Backend,
        guard: Guard,
        preload: str | tuple[str, ...] = (),
    ) -> None:
        self.fn = fn
        self.args = args
        self.daemon = daemon
        self.start_method = start_method
        self.report_paths = report_paths
        self.backend = backend
        self.guard = guard
        self.preload = preload

    @property
    def first_death_signal(self) -> int:
        """What a rank gets if the supervisor ends before the guardian holds it."""
        return SIGKILL if self.guard.kind == GUARDIAN else SIGINT


class Served:
    """Which launcher has started the ranks of a call.

    Attributes:
        name: "clone", "exec", "fork", "forkserver" or "stdlib".
        reason: why that one, and not another.
        fresh_interpreter: whether each rank is an interpreter of its own, which may end before it runs code of ours.
    """

    __slots__ = ("fresh_interpreter", "name", "reason")

    def __init__(self, name: str, reason: str, *, fresh_interpreter: bool) -> None:
        self.name = name
        self.reason = reason
        self.fresh_interpreter = fresh_interpreter


class Launcher(Protocol):
    """One way to start ranks. A new one is a file here, and a row in `launchers._chosen`.

    Attributes:
        name: which one.
        reason: why it was chosen.
        copies_caller: whether a rank is a copy of the calling process: it then has what that has open.
    """

    name: str
    reason: str
    copies_caller: bool

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """Start all ranks. Each waits at the gate, if the call has one, before it comes to user code.

        Returns:
            Who has served: this launcher, or the one to which it gave way.

        When it raises, the ranks that were started have a `pid`; the first without one could not be started. The caller
        ends those that were.
        """

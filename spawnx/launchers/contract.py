"""The contract of all launchers: their interface, the order that they get, and the result that they return."""

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
    """The parameters of one call.

    Attributes:
        fn, args, daemon, start_method: as in `start_processes`, checked; the method is one of multiprocessing's.
        report_paths: one path for each rank.
        backend: the backend that arms the death signals and opens the pidfds.
        guard: the `Guard` of the call: its guardian, gate, scoreboard and folder.
        preload: the modules that a template imports before it is cloned: "auto", or their names.
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
        """The signal that a rank gets if the supervisor ends before the guardian holds the rank."""
        return SIGKILL if self.guard.kind == GUARDIAN else SIGINT


class Served:
    """The launcher that has started the ranks of a call.

    Attributes:
        name: "clone", "exec", "fork", "forkserver" or "stdlib".
        reason: why this launcher was used.
        fresh_interpreter: whether each rank is an interpreter of its own, which may end before it runs spawnx's code.
    """

    __slots__ = ("fresh_interpreter", "name", "reason")

    def __init__(self, name: str, reason: str, *, fresh_interpreter: bool) -> None:
        self.name = name
        self.reason = reason
        self.fresh_interpreter = fresh_interpreter


class Launcher(Protocol):
    """One way to start ranks. A new launcher needs a file in this folder, and a branch in `launchers.choose`.

    Attributes:
        name: the launcher's name; see `Served.name`.
        reason: why it was chosen.
        copies_caller: whether a rank is a copy of the calling process, and so inherits all its open files.
    """

    name: str
    reason: str
    copies_caller: bool

    def start(self, order: Order, ranks: Sequence[RankProcess]) -> Served:
        """Start all ranks. If the call has a gate, each rank waits at it before it runs user code.

        Returns:
            The launcher that has started the ranks: this one, or the one that it fell back to.

        If this raises, the ranks that were started have a `pid`, and the caller ends them. The first rank without a
        `pid` is the one that could not be started.
        """

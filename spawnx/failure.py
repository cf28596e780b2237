"""Failure: all that is known of one rank that has failed. `exception.failures` is a tuple of these."""

from __future__ import annotations

from spawnx.standard import standard_library


class Failure:
    """A `Failure` describes one rank that has failed. It is plain data: it can be pickled, and compares by its fields.

    Attributes:
        rank: its index.
        pid: the process id that it had.
        stage: how far it had come: "boot" (its interpreter starts), "import" (the main module, before which it waits
            until all ranks exist), "unpickle" (the function and its arguments), "run" (the function), "exit" (the
            function has returned).
        exit_code: as in multiprocessing: -N if signal N ended it. None if unknown, or if the rank could not be ended.
        signal_name: such as "SIGKILL"; None if no signal ended it.
        seconds: from the start of the call to the failure. If the rank wrote no report: to when its end was seen.
        type_name: the type of the exception, such as "ValueError"; None if the rank is not known to have raised.
        traceback: the exception, as Python prints it; or the stacks of its threads at a fatal signal, as faulthandler
            writes them. "" if neither is known.
        peak_kib: its peak resident memory, in KiB (getrusage(2)). None if unknown: on the python backend and with the
            `stdlib` launcher, unless it raised.
        signalled: whether it ended because spawnx signalled it after the failure of another rank. False if it was
            killed by somebody else, or crashed, at that time.
        remark: what else is known, in words; or "".
    """

    __slots__ = (
        "exit_code",
        "peak_kib",
        "pid",
        "rank",
        "remark",
        "seconds",
        "signal_name",
        "signalled",
        "stage",
        "traceback",
        "type_name",
    )

    def __init__(
        self,
        rank: int,
        pid: int,
        stage: str,
        exit_code: int | None,
        signal_name: str | None,
        seconds: float,
        type_name: str | None,
        traceback: str,
        peak_kib: int | None,
        signalled: bool,  # noqa: FBT001 - as it is pickled, by position
        remark: str = "",
    ) -> None:
        self.rank = rank
        self.pid = pid
        self.stage = stage
        self.exit_code = exit_code
        self.signal_name = signal_name
        self.seconds = seconds
        self.type_name = type_name
        self.traceback = traceback
        self.peak_kib = peak_kib
        self.signalled = signalled
        self.remark = remark

    def __reduce__(self) -> tuple[type[Failure], tuple[object, ...]]:
        return type(self), self._fields()

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Failure) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return (
            f"Failure(rank={self.rank}, pid={self.pid}, stage={self.stage!r}, ended={self.ended!r},"
            f" seconds={self.seconds:.3f}, type_name={self.type_name!r}, signalled={self.signalled})"
        )

    @property
    def ended(self) -> str:
        """How the rank ended, in words."""
        if self.signal_name is not None:
            return f"signal {self.signal_name}"
        return "unknown" if self.exit_code is None else f"exit code {self.exit_code}"

    def _fields(self) -> tuple[object, ...]:
        return (
            self.rank,
            self.pid,
            self.stage,
            self.exit_code,
            self.signal_name,
            self.seconds,
            self.type_name,
            self.traceback,
            self.peak_kib,
            self.signalled,
            self.remark,
        )


def signal_name(signum: int) -> str:
    """Return the name of a signal, such as "SIGKILL"."""
    with standard_library():
        import signal

    try:
        return signal.Signals(signum).name
    except ValueError:  # a real-time signal
        return f"<Unknown signal {signum}>"

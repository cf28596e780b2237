"""The exceptions that report a failed rank: the reference's, field by field (torch 2.13)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from spawnx.failure import Failure


class ProcessException(Exception):  # noqa: N818 - the reference's name
    """A rank failed.

    Attributes:
        msg: the text, also `str(exception)`.
        error_index: the rank.
        error_pid: its process id. Don't signal it: the process is gone, and another one may have the number.
        failures: every rank of the call that has failed, the cause first. Not in the reference. Empty in an exception
            that the caller has made.
    """

    __slots__ = ["error_index", "error_pid"]
    failures: tuple[Failure, ...] = ()

    def __init__(self, msg: str, error_index: int, error_pid: int) -> None:
        super().__init__(msg)
        self.msg = msg
        self.error_index = error_index
        self.error_pid = error_pid

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(self.msg, self.error_index, self.error_pid)

    def _reduced(self, *arguments: object) -> tuple[Any, ...]:
        """The class and its arguments, as in the reference; then the attributes that the reference lacks, if any."""
        ours = {name: vars(self)[name] for name in ("failures", "__notes__") if name in vars(self)}
        return (type(self), arguments, ours) if ours else (type(self), arguments)


class ProcessRaisedException(ProcessException):
    """A rank raised; the text contains its traceback.

    Unlike in the reference, the rank may also have failed before it called the function: its main module raised, or its
    arguments could not be unpickled.
    """


class ProcessExitedException(ProcessException):
    """A rank ended by a signal, or with an exit code other than 0, and wrote no report.

    Attributes:
        exit_code: as in `multiprocessing`: -N if signal N ended the rank.
        signal_name: such as "SIGKILL"; None if no signal ended the rank.
    """

    __slots__ = ["exit_code"]

    def __init__(
        self,
        msg: str,
        error_index: int,
        error_pid: int,
        exit_code: int,
        signal_name: str | None = None,
    ) -> None:
        super().__init__(msg, error_index, error_pid)
        self.exit_code = exit_code
        self.signal_name = signal_name

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(self.msg, self.error_index, self.error_pid, self.exit_code, self.signal_name)


class ProcessTimeoutError(TimeoutError):
    """The ranks of a call did not end within its timeout. Not in the reference.

    Attributes:
        msg: the text, also `str(exception)`.
        timeout: the timeout, in seconds.
        tracebacks: rank -> the stacks of its threads at the timeout, for the ranks that were still alive.
    """

    def __init__(self, msg: str, timeout: float, tracebacks: dict[int, str]) -> None:
        super().__init__(msg)
        self.msg = msg
        self.timeout = timeout
        self.tracebacks = tracebacks

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.timeout, self.tracebacks)

"""Texts of failures: exceptions and warnings in the reference's words (torch 2.13), and notes that say more."""

from __future__ import annotations

import re
import sys

from spawnx.errors import ProcessExitedException, ProcessRaisedException, ProcessTimeoutError
from spawnx.failure import signal_name
from spawnx.failures import teardown
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spawnx.errors import ProcessException
    from spawnx.failure import Failure
    from spawnx.watch.ended import Ended

# Up to this many ranks each get a warning of their own; more are summed up in one.
_WARN_EACH = 8
# The most lines in the table of other failures, and the most characters of an exception in each.
_LINES = 16
_WIDTH = 100
# How many characters of a traceback are searched for the exception's line, from the end.
_SEARCHED = 1 << 16
_BY_FAULTHANDLER = "Fatal Python error"
_ADDRESS = re.compile(r"0x[0-9A-Fa-f]+")  # PyPy writes them with capitals


def warn(signum: int, pids: Sequence[int | None]) -> None:
    """Log a warning for each process that is about to be signalled, or a single one for more than `_WARN_EACH`.

    The texts for single processes are the reference's.
    """
    if not pids:
        return
    with standard_library():
        import logging  # not at the top: it costs more than all of spawnx

    logger = logging.getLogger("spawnx")
    if signum == teardown.SIGTERM:
        each = "Terminating process %s via signal SIGTERM"
        all_ = "Terminating %d processes via signal SIGTERM: process %s to process %s"
    else:
        each = "Unable to shutdown process %s via SIGTERM , forcefully exiting via SIGKILL"
        all_ = "Unable to shutdown %d processes via SIGTERM , forcefully exiting via SIGKILL: process %s to process %s"
    if len(pids) > _WARN_EACH:
        logger.warning(all_, len(pids), pids[0], pids[-1])
        return
    for pid in pids:
        logger.warning(each, pid)


def exception_of(failure: Ended, alive: Sequence[int]) -> ProcessException:
    """Return a failure in the reference's words, and the ranks that could not be ended, if any."""
    more = _told_unkillable(alive)
    if failure.report is not None:
        msg = f"\n\n-- Process {failure.rank:d} terminated with the following error:\n{failure.report.message}{more}"
        return ProcessRaisedException(msg, failure.rank, failure.pid)
    name = None
    if failure.status_lost:
        msg = f"process {failure.rank:d} ended, but another reaper took its exit status (is SIGCHLD ignored?)"
    elif failure.exit_code < 0:
        name = signal_name(-failure.exit_code)
        msg = f"process {failure.rank:d} terminated with signal {name}"
    else:
        msg = f"process {failure.rank:d} terminated with exit code {failure.exit_code:d}"
    return ProcessExitedException(msg + more, failure.rank, failure.pid, failure.exit_code, name)


def _told_unkillable(ranks: Sequence[int]) -> str:
    if not ranks:
        return ""
    named = ", ".join(str(rank) for rank in ranks)
    return f"\n(not ended {teardown.LAST_WAIT:g} s after SIGKILL, and left to the system: process {named})"


def timeout_error(
    timeout: float, ranks: int, tracebacks: Mapping[int, str], alive: Sequence[int]
) -> ProcessTimeoutError:
    """Return the error for ranks that have not ended in time, with their stacks. Equal stacks are printed once."""
    by_place: dict[str, list[int]] = {}
    for rank, text in tracebacks.items():
        by_place.setdefault(_ADDRESS.sub("", text), []).append(rank)
    lines = [f"{len(tracebacks)} of {ranks} processes have not ended within {timeout:g} s"]
    for group in by_place.values():
        named = f"Process {group[0]}" if len(group) == 1 else f"Processes {', '.join(map(str, group))}"
        lines.append(f"-- {named}:\n{tracebacks[group[0]].strip()}")
    return ProcessTimeoutError("\n\n".join(lines) + _told_unkillable(alive), timeout, dict(tracebacks))


def add_notes(error: BaseException, failures: Sequence[Failure]) -> None:
    """Add notes (CPython 3.11): what the message of the first failure doesn't say, and a table of the others."""
    if sys.version_info >= (3, 11):
        for note in _notes(failures[0], failures[1:]):
            error.add_note(note)


def _notes(first: Failure, others: Sequence[Failure]) -> Iterable[str]:
    if first.remark:
        yield first.remark
    if first.traceback.startswith(_BY_FAULTHANDLER):
        yield f"-- Process {first.rank}, as faulthandler saw it:\n{first.traceback.rstrip()}"
    if others:
        yield "\n".join(_table(others))


def _table(failures: Sequence[Failure]) -> Iterable[str]:
    told = [failure for failure in failures if not failure.signalled]
    if told:
        yield "-- Other failures, in order:"
    for failure in told[:_LINES]:
        said = _last_line(failure)
        text = f"process {failure.rank} (pid {failure.pid}), after {failure.seconds:.3f} s, {failure.ended}"
        yield f"{text}, at {failure.stage}: {said}" if said else f"{text}, at {failure.stage}"
    if len(told) > _LINES:
        yield f"... and {len(told) - _LINES} more"
    if len(told) < len(failures):
        counted = _counted(failure for failure in failures if failure.signalled)
        yield f"-- Signalled by spawnx because of that, and ended: {counted}"


def _last_line(failure: Failure) -> str:
    end = failure.traceback[-_SEARCHED:]
    lines = end.split("\n") if failure.type_name is not None else []
    of_type = [line for line in lines if line.startswith(str(failure.type_name))]
    said = of_type[-1] if of_type else failure.type_name or ""
    return said if len(said) <= _WIDTH else f"{said[:_WIDTH]}..."


def _counted(failures: Iterable[Failure]) -> str:
    counts: dict[str, int] = {}
    for failure in failures:
        counts[failure.ended] = counts.get(failure.ended, 0) + 1
    return ", ".join(f"{count} by {ended}" for ended, count in sorted(counts.items()))

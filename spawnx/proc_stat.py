"""What /proc/PID/stat says of a process (proc_pid_stat(5))."""

from __future__ import annotations

# Of `fields`: the state, the pid of the parent, and when the process was started, in clock ticks since the boot.
STATE = 0
PARENT = 1
STARTED = 19


def fields(pid: int | str) -> list[bytes]:
    """Return the fields that follow the name of a process; the name itself may have spaces and parentheses.

    Raises:
        OSError: there is no such process, or no /proc.
    """
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()

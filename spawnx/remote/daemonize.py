"""Leave what the supervisor's user sees: what processes do that stand beside the ranks. See csrc/guardian.c."""

from __future__ import annotations

import contextlib
import os
import resource


def daemonize() -> None:
    """Keep neither its streams, for whose end a reader would wait, nor its folder; open as many files as may be."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        try:
            os.dup2(nowhere, fd)
        except OSError:  # a sandbox forbids it
            os.close(fd)
    if nowhere > 2:  # noqa: PLR2004 - the standard error's
        os.close(nowhere)
    with contextlib.suppress(OSError):
        os.chdir("/")
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

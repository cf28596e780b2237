"""Detach the guardian or the zygote from the streams and the folder of the supervisor. See csrc/guardian.c."""

from __future__ import annotations

import contextlib
import os
import resource


def daemonize() -> None:
    """Drop the standard streams, for whose end a reader would wait, and the current folder; raise the limit on fds."""
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

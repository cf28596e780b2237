"""The differences that are meant, each with its reason: the only place where a program is excused."""

from __future__ import annotations

# Name of a program -> why a rank of spawnx leaves something else, by whatever launcher.
DECLARED = {
    "exits/KeyboardInterrupt": "an interrupted rank dies by SIGINT, so that its end is true (docs/differences.md)",
    "exits/abort with faulthandler": "the dump names the launcher's frames, and the C core's extension module",
}

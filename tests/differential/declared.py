"""The differences that are meant, each with its reason: the only place where a program is excused."""

from __future__ import annotations

# Name of a program -> why a rank of spawnx leaves something else, by whatever launcher.
DECLARED = {
    "exits/KeyboardInterrupt": "an interrupted rank dies by SIGINT, so that its end is true (docs/differences.md)",
    "exits/abort with faulthandler": "the dump names the launcher's frames, and the C core's extension module",
    **dict.fromkeys(
        ("exits/atexit raises", "exits/atexit exits"),
        "the traceback of a function in C begins with a frame of ours",
    ),
    **dict.fromkeys(
        (f"exits/exit 2**{power}" for power in ("31", "32+3", "40", "100")),
        "by forkserver, the traceback names our frames in the place of the server's",
    ),
    # docs/differences.md, "an object with `__del__` hangs on a module or a cache of the standard library's"
    **dict.fromkeys(
        ("loggers/handler without close", "loggers/filter", "loggers/logger class", "loops/loop as current"),
        "`__del__` is called while `print` is still there: by the original afterwards, when nobody hears it",
    ),
    **dict.fromkeys(
        ("places/current process", "places/typing cache"),
        "`__del__` is called when sys.stdout is gone: by the original before",
    ),
    "files/zip member": "an archive with a member that was left open, which can't be read either way",
}

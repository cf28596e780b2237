"""The differences that are meant, each with its reason: the only place where a program is excused."""

from __future__ import annotations

import sys

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
if sys.version_info >= (3, 13):  # 3.13 in its newer patch releases
    DECLARED |= {
        **dict.fromkeys(
            ("scripts/__del__ at import", "scripts/generator at import"),
            "by the original, these globals of the main module are not destroyed; by older ones they are, and by ours",
        ),
        "scripts/generator of a module": "it is closed while its module is whole: by the original, too late to print",
        **dict.fromkeys(
            ("cbuffers/exit function", "cbuffers/on_exit"),
            "libc reads a text of Python's that is given back by then: from CPython 3.14 on, the original crashes",
        ),
        **dict.fromkeys(
            ("places/function of the library", "places/default of a function"),
            "`__del__` is called while `print` is still there: by the original afterwards, when nobody hears it",
        ),
    }

# Programs that hang by the original on some systems, and so do ours there: they are compared all the same.
HANGS = dict.fromkeys(
    ("threads/daemon in input", "threads/daemon in getc"),
    "a thread holds the lock of a FILE at the exit: seen on CPython 3.14 and 3.15, with glibc 2.41 and 2.43",
)


def is_of_server(name: str) -> bool:
    """Whether it is a program whose main module does something when it is imported.

    By the start method forkserver, newer patch releases import that in the server: what it prints, opens and registers
    is the server's, which ends when it likes.
    """
    return name.startswith("scripts/") and name.endswith(" at import")

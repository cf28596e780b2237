"""The optional C core. Everything else about the package stands in pyproject.toml.

SPAWNX_PURE decides: unset, the core is built where that can be done (Linux, CPython, a compiler); 1, it is not; 0, it is,
and whoever can't is told why (CI, releases). The compiler is asked before setup(): an extension that fails later leaves a
wheel that claims a platform and has nothing of it.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import setup

HERE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
# abi3: one wheel for every CPython from 3.10 on. Free-threaded builds can't load one (before 3.15).
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")
PROBE = "#include <Python.h>\n#include <sys/prctl.h>\n#include <sys/epoll.h>\nint main(void) { return 0; }\n"


def why_not() -> str | None:
    """Why the core is not built, or None if it is."""
    wish = os.environ.get("SPAWNX_PURE", "")
    if wish not in {"", "0", "1"}:
        sys.exit(f"SPAWNX_PURE={wish!r} is not a choice: 1 for no C core, 0 to insist on it, or unset it")
    reason = "SPAWNX_PURE=1" if wish == "1" else _missing()
    if reason and wish == "0":
        sys.exit(f"SPAWNX_PURE=0 insists on the C core, but {reason}")
    return reason


def _missing() -> str | None:
    if not sys.platform.startswith("linux"):
        return "it is for Linux"
    if platform.python_implementation() != "CPython":
        return "it is for CPython"
    return _compiler_fault()


def _compiler_fault() -> str | None:
    """What the compiler says of a small program that includes what the core includes, or None if it takes it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE, encoding="utf-8")
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        command = [*compiler, f"-I{sysconfig.get_path('include')}", "-c", str(source), "-o", f"{folder}/probe.o"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"there is no C compiler: {error}"
        lines = done.stderr.strip().splitlines()
        return None if done.returncode == 0 else f"the C compiler fails: {lines[0] if lines else command}"


def arguments() -> dict[str, Any]:
    """What setup() is told of the core."""
    reason = why_not()
    if reason:
        sys.stderr.write(f"spawnx is built without its C core: {reason}\n")
        return {}
    options = {"bdist_wheel": {"py_limited_api": "cp310"}} if ABI3 else {}
    return {"cffi_modules": ["setup.py:core"], "options": options}


def core() -> Any:
    """The core as cffi builds it: `csrc/spawnx.h` is its surface, read as it is."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(Path(HERE, "csrc", "spawnx.h").read_text(encoding="utf-8"))
    ffi.set_source(
        "spawnx.backends._native",
        '#include "spawnx.h"',
        sources=sorted(f"csrc/{path.name}" for path in Path(HERE, "csrc").glob("*.c")),
        depends=["csrc/spawnx.h", "csrc/internal.h"],
        include_dirs=["csrc"],
        extra_compile_args=[*FLAGS, *shlex.split(os.environ.get("SPAWNX_CFLAGS", ""))],
        py_limited_api=ABI3,
        # cffi defines it without a value: with the least version, newer symbols can't slip in.
        define_macros=[("Py_LIMITED_API", "0x030A0000")] if ABI3 else [],
    )
    return ffi


if __name__ == "__main__":
    setup(**arguments())

"""Build the optional C core. Everything else about the package is in pyproject.toml.

SPAWNX_PURE decides. Unset: the core is built where possible (Linux, CPython, a compiler). 1: it is not built. 0: it is
built, or the build fails with the reason (CI, releases). SPAWNX_CFLAGS adds compiler flags, for the core only.

The compiler is tried before setup(): if the extension failed later, the wheel would be named for a platform and contain
no extension.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-fvisibility=hidden"]
# abi3: one wheel for every CPython from 3.10 on. Free-threaded builds can't load one (before 3.15).
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")
# The sources of the program; main() is in the first.
GUARDIAN = ["csrc/guardian.c", "csrc/guard.c"]
PROBE = "#include <Python.h>\n#include <sys/epoll.h>\n#include <sys/prctl.h>\n"


def why_not(*, has_cffi: bool) -> str | None:
    """Return why the core is not built, or None if it is."""
    wish = os.environ.get("SPAWNX_PURE", "")
    if wish not in {"", "0", "1"}:
        sys.exit(f"SPAWNX_PURE={wish!r} is not a choice: 1 for no C core, 0 to insist on it, or unset it")
    reason = "SPAWNX_PURE=1" if wish == "1" else _missing(has_cffi=has_cffi)
    if reason and wish == "0":
        sys.exit(f"SPAWNX_PURE=0 requires the C core, but {reason}")
    return reason


def _missing(*, has_cffi: bool) -> str | None:
    if not sys.platform.startswith("linux"):
        return "it is for Linux"
    if platform.python_implementation() != "CPython":
        return "it is for CPython"
    return _compiler_fault() or (None if has_cffi else "cffi is not installed")


def _compiler_fault() -> str | None:
    """Try the compiler on a library with the core's includes; return its error, or None."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE, encoding="utf-8")
        include = f"-I{sysconfig.get_path('include')}"
        command = [*compiler, *FLAGS, include, "-shared", "-fPIC", str(source), "-o", f"{folder}/probe.so"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"no C compiler can be run: {error}"
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return f"the C compiler fails: {said[0] if said else shlex.join(command)}"


def arguments() -> dict[str, Any]:
    """Return the arguments of setup() for the core."""
    reason = why_not(has_cffi=find_spec("cffi") is not None)
    if reason:
        sys.stderr.write(f"spawnx is built without its C core: {reason}\n")
        return {}
    return {
        "cffi_modules": ["setup.py:core"],
        "cmdclass": {"build_ext": BuildCore},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}} if ABI3 else {},
    }


def flags() -> list[str]:
    """Return the compiler's flags, for the library and the program."""
    # Otherwise the debug information names the folder of this build, and no two wheels are equal.
    no_folder = f"-fdebug-prefix-map={HERE}=."
    return [*FLAGS, no_folder, *shlex.split(os.environ.get("SPAWNX_CFLAGS", ""))]


class BuildCore(build_ext):
    """Build the library and the guardian, which is a program: it must outlive its supervisor and use little memory."""

    def run(self) -> None:
        """See setuptools."""
        super().run()
        objects = self.compiler.compile(
            GUARDIAN, output_dir=self.build_temp, include_dirs=["csrc"], extra_postargs=flags()
        )
        folder = Path(self.get_ext_fullpath("spawnx.backends._native")).parent
        flags_of_linker = shlex.split(os.environ.get("LDFLAGS", ""))
        self.compiler.link_executable(
            objects, "spawnx-guardian", output_dir=str(folder), extra_postargs=flags_of_linker
        )


def core() -> Any:
    """Return cffi's description of the core. cffi reads its surface, `csrc/spawnx.h`, as it is."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(Path(HERE, "csrc", "spawnx.h").read_text(encoding="utf-8"))
    ffi.set_source(
        "spawnx.backends._native",
        '#include "spawnx.h"',
        sources=sorted({f"csrc/{path.name}" for path in Path(HERE, "csrc").glob("*.c")} - {*GUARDIAN}),
        depends=["csrc/spawnx.h", "csrc/internal.h"],
        include_dirs=["csrc"],
        extra_compile_args=flags(),
        py_limited_api=ABI3,
        # cffi defines it without a value. With the minimum version as its value, newer symbols can't be used.
        define_macros=[("Py_LIMITED_API", "0x030A0000")] if ABI3 else [],
    )
    return ffi


if __name__ == "__main__":
    setup(**arguments())

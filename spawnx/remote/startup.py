"""What runs in an interpreter before us: `sitecustomize`, `usercustomize`, and lines of .pth files.

In a template it has run once, in the template's name; in ranks by exec it runs in each. Where it may matter, the
template makes no clones. What is known not to matter is listed here: it makes modules be found, and nothing else.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from types import ModuleType

from spawnx.mp import boot
from spawnx.remote import preload
from spawnx.remote.opened import is_code_that_runs
from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Modules that lines of .pth files import: of setuptools, virtualenv, and of editable installs by setuptools, hatchling,
# editables, meson-python and scikit-build-core. Then Ubuntu's, which reports crashes; coverage, which measures clones,
# too; and of the standard library's, one that has a name of its own on each system, and the texts of CPython 3.15's
# traceback, neither of which is in `sys.stdlib_module_names`.
_FINDERS = re.compile(
    r"_distutils_hack|_virtualenv|__editable___\w+|_editable_impl_\w+|editables(\.\w+)*|_\w+_editable(_loader)?"
    r"|apport_python_hook|coverage(\.\w+)*|_sysconfigdata_\w*(-[\w-]+)?"
    r"|_missing_stdlib_info"
)
_OURS = {"__main__", "__mp_main__", "spawnx", "_cffi_backend"}
# What Debian and Ubuntu have as sitecustomize, without its comments.
_DEBIANS = """\
try:
import apport_python_hook
except ImportError:
pass
else:
apport_python_hook.install()"""
_UNLISTED = 3  # the standard streams; the rest is given to us


def opened_beside(given: Iterable[int]) -> list[int]:
    """The fds that are open in this process besides the standard streams and those that it was started with."""
    found = {int(fd) for fd in os.listdir("/proc/self/fd")} - set(given)
    return sorted(fd for fd in found if fd >= _UNLISTED and _is_open(fd) and not is_code_that_runs(fd))


def find_unknown(opened: Sequence[int], names: Iterable[str]) -> str:
    """What start-up code has left in this interpreter that may matter, in words; "" if there is nothing.

    Args:
        opened: the fds that were open when this process had done nothing yet, see `opened_beside`.
        names: the modules that had been imported then: what the message brings is the supervisor's.
    """
    for name in names:
        module = sys.modules.get(name)
        if module is not None and not _is_known(name, module):
            return (
                f"{name} ({getattr(module, '__file__', None) or 'made at start-up'}) runs in each interpreter"
            )
    if opened:
        return f"start-up code (sitecustomize, or a .pth file) has opened {_target(opened[0])}"
    # What coverage has made is of types of its own.
    if "coverage" not in sys.modules and (one := _noisy_object()) is not None:
        return f"start-up code (sitecustomize, or a .pth file) has made a {type(one).__name__}"
    return ""


def _is_known(name: str, module: object) -> bool:
    if name in {"sitecustomize", "usercustomize"}:
        return _code_of(module) in {"", _DEBIANS}
    root = name.partition(".")[0]
    # By the root, as modules of the library put others there that have no file (typing.io).
    if root in _OURS or _FINDERS.fullmatch(name) or preload.is_known(root):
        return True
    _, origin = preload.spec_of(module)
    # What has no file was made by a line of a .pth file for a package in several folders (PEP 420 did away with it).
    return type(module) is ModuleType and not (origin or getattr(module, "__file__", None))


def _code_of(module: object) -> str | None:
    """The lines of a module's source without comments and indentation; None if there is no source."""
    try:
        with open(module.__file__, encoding="utf-8") as source:  # type: ignore[attr-defined]
            lines = [line.partition("#")[0].strip() for line in source]
    except Exception:  # noqa: BLE001 - no file, no text, an attribute that raises
        return None
    return "\n".join(filter(None, lines))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:  # that by which the folder was listed
        return False
    return True


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"file descriptor {fd}"


def _noisy_object() -> object | None:
    """An object whose end can be seen, but for the standard streams, and what we have imported."""
    with standard_library():
        from spawnx.backends import native
        from spawnx.remote import quiet

    known = {id(part) for stream in (sys.stdin, sys.stdout, sys.stderr) for part in _parts(stream)}
    known.add(id(boot.unstarted_resource_tracker()))
    survey = native.Survey(quiet.types_of_interpreter(), quiet.EACH, 10_000_000)
    for one in survey.suspects(gc.get_objects()):
        is_judged = id(one) in known or type(one) is ModuleType or issubclass(type(one), type)
        if not is_judged and quiet.is_noisy(one):
            return one
    return None


def _parts(stream: object) -> list[object]:
    """A stream, with what is beneath it."""
    buffer = getattr(stream, "buffer", None)
    return [stream, buffer, getattr(buffer, "raw", None)]

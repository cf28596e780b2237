"""Judge start-up code, which runs in an interpreter before us: `sitecustomize`, `usercustomize`, lines of .pth files.

In a template it has run once, in the template's name; in ranks by exec it runs in each. If the difference may matter,
the template makes no clones. This module lists the code that can't matter: it makes modules importable, and does
nothing else.
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
# editables, meson-python and scikit-build-core. Then Ubuntu's, which reports crashes; and coverage, which measures
# clones, too. Then two standard modules that are not in `sys.stdlib_module_names`: one whose name differs on each
# system, and the texts of CPython 3.15's traceback.
_FINDERS = re.compile(
    r"_distutils_hack|_virtualenv|__editable___\w+|_editable_impl_\w+|editables(\.\w+)*|_\w+_editable(_loader)?"
    r"|apport_python_hook|coverage(\.\w+)*|_sysconfigdata_\w*(-[\w-]+)?"
    r"|_missing_stdlib_info"
)
_OURS = {"__main__", "__mp_main__", "spawnx", "_cffi_backend"}
# The sitecustomize of Debian and Ubuntu, without comments.
_DEBIANS = """\
try:
import apport_python_hook
except ImportError:
pass
else:
apport_python_hook.install()"""
_UNLISTED = 3  # the standard streams are below


def opened_beside(given: Iterable[int]) -> list[int]:
    """Return the open fds of this process, without the standard streams and those that were given to it."""
    found = {int(fd) for fd in os.listdir("/proc/self/fd")} - set(given)
    return sorted(fd for fd in found if fd >= _UNLISTED and _is_open(fd) and not is_code_that_runs(fd))


def find_unknown(opened: Sequence[int], names: Iterable[str]) -> str:
    """Return a text on the first trace of start-up code in this interpreter that may matter; "" if there is none.

    Args:
        opened: the fds that were open before this process did anything, see `opened_beside`.
        names: the modules that were imported then. The message imports others, which are the supervisor's.
    """
    for name in names:
        module = sys.modules.get(name)
        if module is not None and not _is_known(name, module):
            return (
                f"{name} ({getattr(module, '__file__', None) or 'made at start-up'}) runs in each interpreter"
            )
    if opened:
        return f"start-up code (sitecustomize, or a .pth file) has opened {_target(opened[0])}"
    # coverage makes objects of its own types.
    if "coverage" not in sys.modules and (one := _noisy_object()) is not None:
        return f"start-up code (sitecustomize, or a .pth file) has made a {type(one).__name__}"
    return ""


def _is_known(name: str, module: object) -> bool:
    if name in {"sitecustomize", "usercustomize"}:
        return _code_of(module) in {"", _DEBIANS}
    root = name.partition(".")[0]
    # By the root, as standard modules add submodules without a file to `sys.modules` (typing.io).
    if root in _OURS or _FINDERS.fullmatch(name) or preload.is_known(root):
        return True
    _, origin = preload.spec_of(module)
    # A line of a .pth file makes modules without a file, for packages in several folders (obsolete since PEP 420).
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
    except OSError:  # the fd that listed the folder
        return False
    return True


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"file descriptor {fd}"


def _noisy_object() -> object | None:
    """An object whose destruction can be seen, but for the standard streams and the unstarted resource tracker."""
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
    """A stream, its buffer, and its raw file."""
    buffer = getattr(stream, "buffer", None)
    return [stream, buffer, getattr(buffer, "raw", None)]

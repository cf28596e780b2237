"""The backends `native` (the C core) and `python`. Only this module chooses between them."""

from __future__ import annotations

import sys

from spawnx.standard import standard_library

# A module that may be missing: the extension, or what it needs -> the reason to show.
_ABSENT = {
    "spawnx.backends._native": "this installation has no C core: it is the wheel for all systems, or it was built"
    " without a C compiler or with SPAWNX_PURE=1",
    "_cffi_backend": "the C core needs cffi, which is not installed",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.backends.contract import Backend


def available() -> tuple[str, ...]:
    """Return the names of the backends that work in this installation, best first."""
    return ("native", "python") if _find_native()[0] else ("python",)


def named(name: str) -> Backend:
    """Return the backend of a name.

    Raises:
        RuntimeError: this installation has no such backend.
    """
    if name == "python":
        with standard_library():
            from spawnx.backends import python

        return python.PythonBackend()
    native, reason = _find_native()
    if native is None:
        raise RuntimeError(f"the {name} backend was asked for, but {reason}")
    return native


def choose() -> tuple[Backend, str]:
    """Return the backend for the next call, and the reason for the choice.

    Raises:
        ValueError: `SPAWNX_BACKEND` is invalid.
        RuntimeError: `SPAWNX_BACKEND` names a backend that this installation lacks.
    """
    with standard_library():
        from spawnx import settings  # not at the top: ranks use only `named`, which reads no settings

    wanted = settings.BACKEND.read()
    if wanted != "auto":
        return named(wanted), f"{settings.BACKEND.name}={wanted}"
    native, reason = _find_native()
    return native or named("python"), reason


def _find_native() -> tuple[Backend | None, str]:
    """The native backend or None, and the reason."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return None, "the C core is for CPython on Linux"
    if not getattr(sys, "_is_gil_enabled", _yes)():
        # Not tested on these. Loading it would also switch the lock on, for the whole process (PEP 703).
        return None, "the C core does not support free-threaded interpreters"
    try:
        with standard_library():
            from spawnx.backends import native
    except ModuleNotFoundError as error:
        # Only a missing module means "absent". An extension that exists and can't be loaded is broken: that must raise.
        if error.name not in _ABSENT:
            raise
        return None, _ABSENT[error.name]
    return native.NativeBackend(), "the C core is installed"


def _yes() -> bool:
    """Stand in for `sys._is_gil_enabled`, which CPython has since 3.13."""
    return True

"""The backends: `native` (the C core) and `python`, and the one place that chooses."""

from __future__ import annotations

import sys

from spawnx.standard import standard_library

# The extension, and what it needs to be loaded: why it is not there.
_ABSENT = {
    "spawnx.backends._native": "this installation has no C core: it is the wheel for all systems, or it was built"
    " without a C compiler or with SPAWNX_PURE=1",
    "_cffi_backend": "the C core needs cffi, which is not installed",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.backends.contract import Backend


def available() -> tuple[str, ...]:
    """The backends that work in this installation, best first."""
    return ("native", "python") if _find_native()[0] else ("python",)


def named(name: str) -> Backend:
    """The backend of that name.

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
    """The backend for the next call, and why it is that one.

    Raises:
        ValueError: `SPAWNX_BACKEND` has no meaning.
        RuntimeError: `SPAWNX_BACKEND` names a backend that this installation lacks.
    """
    with standard_library():
        from spawnx import settings  # not at the top: ranks come here by `named`, and read no settings

    wanted = settings.BACKEND.read()
    if wanted != "auto":
        return named(wanted), f"{settings.BACKEND.name}={wanted}"
    native, reason = _find_native()
    return native or named("python"), reason


def _find_native() -> tuple[Backend | None, str]:
    """The native backend, or None; and why."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return None, "the C core is for CPython on Linux"
    if not getattr(sys, "_is_gil_enabled", _yes)():
        # Nobody could try it. It would also switch the lock on, for the whole process (PEP 703).
        return None, "the C core is for interpreters with a global lock, and this one is free-threaded"
    try:
        with standard_library():
            from spawnx.backends import native
    except ModuleNotFoundError as error:
        # Only that: an extension that is there and can't be loaded is broken, and must say so.
        if error.name not in _ABSENT:
            raise
        return None, _ABSENT[error.name]
    return native.NativeBackend(), "the C core is installed"


def _yes() -> bool:
    """What `sys._is_gil_enabled` would say before CPython 3.13."""
    return True

"""The backends: `native` (the C core) and `python`, and the one place that chooses."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.backends.contract import Backend


def available() -> tuple[str, ...]:
    """The backends that work in this installation, best first."""
    return ("python",)


def named(name: str) -> Backend:
    """The backend of that name.

    Raises:
        RuntimeError: this installation has no such backend.
    """
    if name not in available():
        msg = f"the {name} backend was asked for, but this installation of spawnx has only {', '.join(available())}"
        raise RuntimeError(msg)
    from spawnx.backends import python

    return python.PythonBackend()


def choose() -> tuple[Backend, str]:
    """The backend for the next call, and why it is that one.

    Raises:
        ValueError: `SPAWNX_BACKEND` has no meaning.
        RuntimeError: `SPAWNX_BACKEND` names a backend that this installation lacks.
    """
    from spawnx import settings  # not at the top: ranks come here by `named`, and read no settings

    wanted = settings.BACKEND.read()
    if wanted != "auto":
        return named(wanted), f"{settings.BACKEND.name}={wanted}"
    return named(available()[0]), "this installation has no C core"

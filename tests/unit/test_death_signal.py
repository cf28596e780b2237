"""How the python backend arms the death signal: by what each interpreter has for a call of C."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Impl, Program, linux_only

pytestmark = linux_only

PR_GET_PDEATHSIG = 2


@pytest.mark.parametrize("lacks", ["nothing", "call_cdeclfunction"])
def test_rank_is_armed_whatever_is_beneath_ctypes(lacks: str, tmp_path: Path) -> None:
    """PyPy's `_ctypes` has other functions than CPython's."""
    source = f"""
        import _ctypes, ctypes, os, signal
        from spawnx import backends

        if hasattr(_ctypes, {lacks!r}):
            del _ctypes.{lacks}
        lives = backends.named("python").arm(signal.SIGINT, os.getppid())
        armed = ctypes.c_int()
        ctypes.CDLL(None).prctl({PR_GET_PDEATHSIG}, ctypes.byref(armed), 0, 0, 0)
        print(lives, armed.value == signal.SIGINT)
    """

    assert ["True True"] == Program(Impl("spawnx"), tmp_path).output(source)

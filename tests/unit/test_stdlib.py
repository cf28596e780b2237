"""Ranks by multiprocessing's own means, and what is said when these fail."""

from __future__ import annotations

import pytest

from tests.support import START_METHODS, Impl, Program

BREAKS = """
    import os
    import spawnx

    if __name__ == "__mp_main__" and "BREAKS" in os.environ:
        raise SystemExit(3)

    def end(rank):
        pass

    if __name__ == "__main__":
        os.environ["BREAKS"] = "1"
        try:
            spawnx.start_processes(end, (), 2, start_method="forkserver")
        except ConnectionResetError as error:
            print("the import of", *[__file__] if __file__ in str(error) else [error])
        except spawnx.ProcessExitedException as error:
            print("ended by itself:", error.exit_code > 0)
"""


@pytest.mark.skipif("forkserver" not in START_METHODS, reason="this system has no forkserver")
def test_forkserver_that_dies_while_it_imports_the_main_module_is_named(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patch releases differ in whether it imports that; where it doesn't, the rank does, and ends."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", "stdlib")
    program = Program(Impl("python"), tmp_path)  # type: ignore[arg-type]
    done = program.run(BREAKS)

    said = (f"the import of {program.folder / 'program.py'}", "ended by itself: True")
    assert done.stdout.strip() in said, done.stdout + done.stderr

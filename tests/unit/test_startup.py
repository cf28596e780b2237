"""Start-up code (sitecustomize, lines of .pth files) runs in each rank, or is known to be harmless."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from spawnx import backends
from tests.support import ROOT, Impl, Program

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)

PROGRAM = """
    import os, sys

    def put(rank, queue):
        queue.put((os.getpid(), getattr(sys, "started_as", None)))

    if __name__ == "__main__":
        queue = mp.get_context("spawn").SimpleQueue()
        context = mp.start_processes(put, (queue,), 2, join=False, start_method=sys.argv[1])
        while not context.join():
            pass
        print(context.launcher, *(own == seen for own, seen in (queue.get(), queue.get())))
"""

MATTERS = {
    "pid": "import os, sys\nsys.started_as = os.getpid()",
    "file": "import sys\nsys.log = open(__file__)",
    "finalizer": "class Late:\n    def __del__(self): pass\nimport sys\nsys.late = Late()",
}
HARMLESS = {
    "empty": "# nothing but a comment\n\n",
    "Debian's": """
        # install the apport exception handler if available
        try:
            import apport_python_hook
        except ImportError:
            pass
        else:
            apport_python_hook.install()
    """,
}


def run(tmp_path: Path, name: str, code: str, method: str = "spawn", **environment: str) -> str:
    """What the program prints where a module of that name, which site imports, has some code."""
    site = tmp_path / "site"
    site.mkdir()
    (site / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    program = Program(Impl("native"), tmp_path)
    places = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "SPAWNX_BACKEND": "native", **environment}
    done = program.run_command(program.command(PROGRAM, method), env={**program.environment, **places})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("code", MATTERS.values(), ids=MATTERS)
def test_start_up_code_runs_in_each_rank(code: str, tmp_path: Path) -> None:
    """As in interpreters that multiprocessing starts: the template makes no clones."""
    assert f"exec {'started_as' in code} {'started_as' in code}" == run(tmp_path, "sitecustomize", code)


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS)
def test_start_up_code_that_is_known_keeps_the_clones(code: str, tmp_path: Path) -> None:
    """An empty file, and what Debian installs."""
    assert "clone False False" == run(tmp_path, "sitecustomize", code)


def test_start_up_code_runs_once_where_clones_are_insisted_on(tmp_path: Path) -> None:
    """`SPAWNX_LAUNCHER=clone` says so."""
    assert "clone False False" == run(tmp_path, "sitecustomize", MATTERS["pid"], SPAWNX_LAUNCHER="clone")


def test_start_up_code_runs_once_by_forkserver(tmp_path: Path) -> None:
    """As in the server of multiprocessing's."""
    assert "forkserver False False" == run(tmp_path, "sitecustomize", MATTERS["pid"], "forkserver")


@pytest.mark.parametrize(
    ("line", "module", "found"),
    [
        pytest.param("import sys; sys.log = open(sys.executable)", "", True, id="file left open"),
        pytest.param("import of_a_vendor", "of_a_vendor", True, id="module"),
        pytest.param("import sysconfig, traceback; sysconfig.get_config_vars()", "", False, id="library"),
        pytest.param("import _distutils_hack", "_distutils_hack", False, id="setuptools"),
        pytest.param(
            "import __editable___of_mine_finder", "__editable___of_mine_finder", False, id="editable"
        ),
        pytest.param(
            "import sys, types; sys.modules['shared'] = types.ModuleType('shared')", "", False, id="namespace"
        ),
    ],
)
def test_line_of_pth_file_is_found_by_what_it_leaves(
    line: str, module: str, found: bool, tmp_path: Path
) -> None:
    """A module that isn't known, or an object whose end can be seen."""
    if module:
        (tmp_path / f"{module}.py").write_text("", encoding="utf-8")
    (tmp_path / "start.pth").write_text(f"{line}\n", encoding="utf-8")
    code = f"""
        import site, sys
        sys.path.append({str(ROOT)!r})
        site.addsitedir({str(tmp_path)!r})
        from spawnx.remote import startup
        print(bool(startup.find_unknown((), list(sys.modules))))
    """
    program = Program(Impl("native"), tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(code)]

    assert f"{found}\n" == program.run_command(command).stdout

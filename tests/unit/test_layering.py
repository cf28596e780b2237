"""Who may import whom: imports point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import spawnx

PACKAGE = Path(spawnx.__file__).parent

# module or subpackage -> what of spawnx it may import, besides `standard`. Whatever isn't named here imports nothing.
ALLOWED = {
    # Users of the public names (`spawnx`), as anybody.
    "__main__": {"spawnx", "selftest", "backends", "container", "settings"},
    "selftest": {"spawnx"},
    "container": {"cgroup"},
    "__init__": {"spawn", "context", "errors", "settings", "backends", "launchers.preload"},
    "spawn": {
        "process",
        "uninterrupted",
        "context",
        "unjoined",
        "launchers",
        "guard",
        "backends",
        "errors",
        "settings",
        "remote.scoreboard",
        "remote.rank",
        "remote.report",
    },
    "context": {
        "clock",
        "unjoined",
        "watcher",
        "verdict",
        "teardown",
        "text",
        "postmortem",
        "failure",
        "activity",
        "stacks",
        "guard",
        "backends",
        "errors",
        "settings",
        "scoreboard",
    },
    "scoreboard": {"remote.scoreboard"},
    "reports": {"remote.scoreboard", "remote.report"},
    "errors": {"failure"},
    "unjoined": {"backends", "guard", "watcher"},
    "postmortem": {
        "cgroup",
        "backends",
        "scoreboard",
        "clock",
        "failure",
        "mp_private",
        "payload",
        "watcher",
        "remote.scoreboard",
        "remote.rank",
    },
    "activity": {"teardown"},
    "stacks": {"scoreboard", "clock", "process", "backends", "remote.scoreboard"},
    "text": {"errors", "failure", "teardown", "watcher"},
    "launchers": {
        "cgroup",
        "uninterrupted",
        "affinity",
        "clock",
        "launchers",
        "guard",
        "child",
        "fd_room",
        "process",
        "payload",
        "mp_private",
        "backends",
        "settings",
        "remote.preload",
        "remote.rank",
        "remote.ends",
        "remote.gate",
        "remote.inherited",
        "remote.table",
        "remote.protocol",
    },
    "child": {"backends"},
    "folder": {"reports", "remote.names", "remote.report"},
    "guard": {
        "uninterrupted",
        "scoreboard",
        "clock",
        "folder",
        "reports",
        "child",
        "process",
        "backends",
        "mp_private",
        "settings",
        "fd_room",
        "remote.ends",
        "remote.gate",
        "remote.notices",
        "remote.rank",
        "remote.report",
        "remote.protocol",
    },
    "mp_private": {"backends.contract"},
    "watcher": {"clock", "guard", "process", "reports", "backends", "remote.notices", "remote.report"},
    "process": {"payload", "guard", "mp_private", "backends.contract", "remote.rank"},
    "affinity": {"backends.contract"},
    "payload": {"mp_private", "backends.contract", "remote.rank"},
    # mp_private: what the standard library launches programs with is private to multiprocessing.
    "backends": {"backends", "clock", "settings", "mp_private"},
    # What runs in a rank: never the supervisor's side, but the backend that arms it.
    "remote": {"remote", "affinity", "backends", "clock", "mp_private", "settings"},
}


def imports_of(path: Path) -> set[str]:
    """The modules of spawnx that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "spawnx":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spawnx."):
            module = str(node.module).removeprefix("spawnx.")
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "remote" else {module}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("spawnx.") for alias in node.names if alias.name.startswith("spawnx")
            }
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_each_module_imports_only_what_the_table_allows(path: Path) -> None:
    """Imports follow the table, so that no rank loads the supervisor's side and no circle closes."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    allowed = ALLOWED.get(name, set()) | {"standard"}
    forbidden = {module for module in imports_of(path) if not ({module, module.split(".")[0]} & allowed)}

    assert set() == forbidden


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_of_multiprocessing_are_used_in_one_file(path: Path) -> None:
    """Only `mp_private` knows what multiprocessing doesn't promise."""
    uses = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in {
                "multiprocessing",
                "util",
                "forkserver",
                "reduction",
            }:
                uses.add(ast.unparse(node))

    assert path.name == "mp_private.py" or uses == set()


# Not imported from a file: built in, or the user's own.
ANYWHERE = {"_signal", "atexit", "errno", "posix", "spawnx.standard", "torch"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_what_is_imported_late_is_the_standard_librarys(path: Path) -> None:
    """Each import in a function stands in `with standard_library()`: `sys.path` may have such a name by then."""
    if path.name in {"__main__.py", "selftest.py", "guardian.py"}:
        pytest.skip("a program of its own, whose path nobody has changed")
    unguarded = set()

    def look(node: ast.AST, *, late: bool, guarded: bool) -> None:
        late = late or isinstance(node, ast.FunctionDef)
        if isinstance(node, ast.With):
            guarded = guarded or any("standard_library" in ast.unparse(item) for item in node.items)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and late and not guarded:
            names = {node.module} if isinstance(node, ast.ImportFrom) else {one.name for one in node.names}
            unguarded.update(names - ANYWHERE)
        for child in ast.iter_child_nodes(node):
            look(child, late=late, guarded=guarded)

    look(ast.parse(path.read_text(encoding="utf-8")), late=False, guarded=False)

    assert set() == unguarded

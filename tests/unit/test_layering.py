"""Who may import whom: imports point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import spawnx

PACKAGE = Path(spawnx.__file__).parent

# What needs nothing of spawnx but each other, and what anybody may import.
LEAVES = {
    "affinity",
    "backends.contract",
    "cgroup",
    "clock",
    "errors",
    "failure",
    "fd_room",
    "settings",
    "standard",
    "uninterrupted",
}
# File at the top, or package -> what of spawnx it may import besides itself and the leaves.
ALLOWED = {
    # Users of the public names (`spawnx`), as anybody.
    "__main__": {"spawnx", "selftest", "backends", "container"},
    "selftest": {"spawnx"},
    "__init__": {"spawn", "context", "launchers"},
    "spawn": {"context", "launchers", "watch", "guard", "process", "backends", "ipc", "remote"},
    "context": {"failures", "watch", "guard", "backends", "ipc"},
    "failures": {"watch", "process", "backends", "ipc", "mp", "remote", "launchers.payload"},
    "watch": {"guard", "process", "backends", "ipc"},
    "guard": {"process", "backends", "ipc", "mp", "remote"},
    "launchers": {"guard", "process", "backends", "ipc", "mp", "remote"},
    "process": {"mp", "remote", "launchers.payload", "guard"},
    # What runs in a rank: never the supervisor's side, but the backend that arms it.
    "remote": {"ipc", "backends", "mp"},
    "ipc": {"backends"},
    # How the standard library launches programs is private to multiprocessing.
    "backends": {"mp"},
    "mp": set(),
}


def imports_of(path: Path) -> set[str]:
    """The modules of spawnx that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "spawnx":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spawnx."):
            module = str(node.module).removeprefix("spawnx.")
            found.add(module)
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
    allowed = ALLOWED.get(name, set()) | LEAVES | {name}
    forbidden = {module for module in imports_of(path) if not {module, module.split(".")[0]} & allowed}

    assert set() == forbidden


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_of_multiprocessing_are_used_in_one_package(path: Path) -> None:
    """Only `mp/` knows what multiprocessing doesn't promise."""
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

    assert path.parent.name == "mp" or uses == set()


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

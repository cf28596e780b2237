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
    "memory",
    "orphans",
    "proc_stat",
    "settings",
    "standard",
    "uninterrupted",
    "vetted",
}
# File at the top, or package -> what of spawnx it may import besides itself and the leaves. Along these arrows no way
# leads back: `spawn` starts by `launchers` and joins by `context`; both rest on `guard` and `process`.
ALLOWED: dict[str, set[str]] = {
    # Users of the public names (`spawnx`), as anybody.
    "__main__": {"spawnx", "selftest", "backends", "container"},
    "selftest": {"spawnx"},
    "container": set(),
    "__init__": {"spawn", "context", "launchers"},
    "spawn": {"context", "launchers", "watch", "guard", "process", "backends", "ipc", "remote"},
    "context": {"failures", "watch", "guard", "process", "backends", "ipc"},
    "failures": {"watch", "guard", "process", "backends", "ipc", "mp", "remote"},
    "watch": {"guard", "process", "backends", "ipc"},
    "launchers": {"guard", "process", "backends", "ipc", "mp", "remote"},
    "guard": {"process", "backends", "ipc", "mp", "remote"},
    "process": {"backends", "mp", "remote"},
    # What runs in a rank: never the supervisor's side, but the backend that arms it.
    "remote": {"ipc", "backends", "mp"},
    "ipc": {"backends"},
    # How the standard library launches programs is private to multiprocessing.
    "backends": {"mp"},
    "mp": set(),
}


def name_of(path: Path) -> str:
    """The name of a module of ours, without the first part."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in the file, for annotations too; and "spawnx", its face."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("spawnx.") in FILES else str(node.module) for name in names}
    return {name.removeprefix("spawnx.") for name in found if name.partition(".")[0] == "spawnx"}


def circles(arrows: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Modules that import each other, directly or by way of others."""
    reached = {name: set(those) for name, those in arrows.items()}
    for middle, further in reached.items():
        for those in reached.values():
            if middle in those:
                those.update(further)
    return sorted(
        {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in reached} - {()}
    )


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also for annotations: what is understood alone can be changed alone."""
    arrows = {
        name: imports_of(path) & set(FILES) - {name} for name, path in FILES.items() if name != "__init__"
    }

    assert [] == circles(arrows)


def test_circle_is_found() -> None:
    """Of two, of three, and by way of one that is in none."""
    arrows = {"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"e"}, "e": {"c", "a"}, "f": {"a", "c"}}

    assert [("a", "b"), ("c", "d", "e")] == circles(arrows)


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


# Not imported from a file: built in, or the user's own; or no library's name: psutil is what the program finds.
ANYWHERE = {"_signal", "atexit", "errno", "posix", "psutil", "spawnx.standard", "torch"}


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

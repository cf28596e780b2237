"""Resolve imports: to source of the program's own, which is walked, or to a library.

A library's import is assumed to do the same in every process.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

from spawnx import vetted
from spawnx.launchers.before_import.names import DATA, Absent, Scope
from spawnx.launchers.before_import.source import Source, is_installed
from spawnx.launchers.before_import.values import NotKnown, Values
from spawnx.remote import preload as preloading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Sequence
    from typing import Any


class Enough(Exception):  # noqa: N818 - not an error: it ends a walk
    """All candidates have been reached."""


# Kinds of import statements: a lazy one imports at the first use of its names; one that may be lazy, there or at once.
_LAZY, _MAYBE_LAZY = object(), object()


class Imports(Values):
    """The part of a walk that follows imports.

    Attributes:
        left: the candidates that were not imported yet.
        reached: the candidates that were imported, in this order.
    """

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__()
        self.left = dict.fromkeys(candidates)
        self.reached: list[str] = []
        self._vetted = sorted(filter(vetted.is_vetted, candidates))
        # torch first: it imports numpy, wherever the program imports that later.
        self._slowest = next((name for name in ("torch", "numpy") if name in candidates), "")
        self._scopes: dict[str, Scope] = {}

    def block(self, body: Iterable[ast.stmt]) -> None:
        """Walk statements."""
        raise NotImplementedError

    def walk(self, scope: Scope) -> None:
        """Walk a module's source. A long source is parsed in growing parts, only as far as that is worth its time."""
        done = 0
        with self._within(scope):
            for body in scope.source.parts(lambda: self._slowest in self.left):
                if body is None:
                    raise self.cant_tell(None)
                self.block(body[done:])
                done = max(done, len(body))

    def _reach(self, name: str) -> None:
        if self._certain and name in self.left:
            del self.left[name]
            self.reached.append(name)
            if not self.left:
                raise Enough

    def import_(self, name: str, node: Any) -> object:
        """Follow the import of a module, its packages first. Returns what its name stands for."""
        kind: object = None
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            kind = self._module(".".join(parts[:end]), kind, node)
        return kind

    def _module(self, name: str, package: object, node: Any) -> object:
        known = self._scopes.get(name)
        if known is not None and (known.certain or not self._certain):
            return known
        if isinstance(package, str) and name not in sys.modules:
            self._reach(name)
            return name  # a module of a library
        origin = self._origin(name, package, node)
        if origin is None:
            if _hooks_imports(name):
                raise self.cant_tell(node)
            self._reach(name)
            self._reach_through(name)
            return name
        scope = Scope(name, name, Source("", b"", self.files), certain=self._certain)
        if origin:  # else a namespace package, which has no code
            scope.source = self.files.read(origin, name)
            if os.path.basename(origin) != "__init__.py":
                scope.package = name.rpartition(".")[0]
        self._scopes[name] = scope
        self.walk(scope)
        if isinstance(package, Scope):
            package.names[name.rpartition(".")[2]] = scope
        return scope

    def _origin(self, name: str, package: object, node: Any) -> str | None:
        """The source file of a module of the program's own, "" if it has no code; None for a library's module."""
        module = sys.modules.get(name)
        if module is None:
            spec = self._find(name, package, node)
            found, origin = spec.name, spec.origin or ""
        else:
            found, origin = preloading.spec_of(module)
        if _is_known(name, origin) or is_installed(origin):
            return None
        if not found or (origin and not origin.endswith(".py")):
            raise self.cant_tell(node)
        return origin

    def _find(self, name: str, package: object, node: Any) -> Any:
        """The spec of a module that this process has not imported, found without an import of it or of its package."""
        try:
            if isinstance(package, Scope):
                spec = PathFinder.find_spec(name, [os.path.dirname(package.source.path)])
            else:
                spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):
            spec = None
        if spec is None:
            raise self.cant_tell(node, Absent)
        return spec

    def _reach_through(self, name: str) -> None:
        """Mark vetted modules as reached that are global names of a third-party module: its import imports them."""
        module = sys.modules.get(name)
        if self._certain and module is not None and not preloading.is_known(name):
            values = list(vars(module).values())
            for vetted in sorted(self._vetted):
                imported = sys.modules.get(vetted)
                if imported is not None and any(value is imported for value in values):
                    self._reach(vetted)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        """Follow an import statement. A lazy one (PEP 810) imports nothing at the statement."""
        how = self._laziness(node)
        if how is not _LAZY:
            with self._under(certain=how is None):
                self._import_now(node)
        if how is not None:
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                if how is _LAZY:
                    self._scope.names.pop(name, None)
                self._scope.pending[name] = self._scope, node, self._certain

    def _import_now(self, node: Any) -> None:
        if type(node).__name__ == "Import":
            self._import_statement(node)
        else:
            self._from_statement(node)

    def _laziness(self, node: Any) -> object:
        """`_LAZY` or `_MAYBE_LAZY` for a statement that is, or may be, a lazy import; else None."""
        mode = getattr(sys, "get_lazy_imports", _no_lazy_imports)()
        if self._scope.in_class or getattr(node, "module", "") == "__future__":
            return None
        if getattr(node, "is_lazy", False):
            return _MAYBE_LAZY if mode == "none" else _LAZY
        return _MAYBE_LAZY if mode == "all" or "__lazy_modules__" in self._scope.names else None

    def _resolve(self, name: str, scope: Scope) -> None:
        if name not in scope.pending:
            return
        place, node, certain = pending = scope.pending.pop(name)
        place.pending.pop(name, None)
        with self._within(place), self._under(certain=certain):
            self._import_now(node)
            if not self._certain:
                place.pending[name] = scope.pending[name] = pending
        scope.names[name] = place.names.get(name, DATA)

    def _import_statement(self, node: ast.Import) -> None:
        for alias in node.names:
            kind = self.import_(alias.name, node)
            first = alias.name.partition(".")[0]
            if alias.asname is None and first != alias.name:
                kind = self._scopes.get(first, first)
            self._bind(alias.asname or first, kind)

    def _from_statement(self, node: ast.ImportFrom) -> None:
        if node.module == "__future__":
            self._scope.lazy |= any(alias.name == "annotations" for alias in node.names)
            return
        base = self._absolute(node)
        kind = self.import_(base, node)
        for alias in node.names:
            if alias.name == "*":
                if isinstance(kind, Scope) and kind.pending:
                    raise self.cant_tell(node)
                self._bind_all(base, kind)
            else:
                self._bind(alias.asname or alias.name, self._part(base, kind, alias.name, node))

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The name of the module from which a statement imports."""
        if not node.level:
            return str(node.module)
        parts = self._scope.package.split(".") if self._scope.package else []
        if len(parts) < node.level:
            raise self.cant_tell(node)
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    def _part(self, base: str, kind: object, name: str, node: Any) -> object:
        """What `name` stands for after `from base import name`."""
        if isinstance(kind, Scope):
            self._resolve(name, kind)
            return kind.names[name] if name in kind.names else self._module(f"{base}.{name}", kind, node)
        part = f"{base}.{name}"
        self._reach(part)
        return part

    def _bind_all(self, base: str, kind: object) -> None:
        if isinstance(kind, Scope):
            named = {name: part for name, part in kind.names.items() if not name.startswith("_")}
        else:
            public = vars(sys.modules.get(base, object))
            named = {name: f"{base}.{name}" for name in public.get("__all__") or public}
        for name, part in named.items():
            self._bind(name, part)

    def _import_by_call(self, node: ast.Call) -> None:
        try:
            (name,) = (self._value(argument) for argument in node.args)
        except (NotKnown, ValueError):
            name = None
        if node.keywords or not isinstance(name, str) or name.startswith("."):
            raise self.cant_tell(node)
        self.import_(name, node)


def _no_lazy_imports() -> str:
    """What `sys.get_lazy_imports` would return before CPython 3.15."""
    return "none"


def _is_known(name: str, origin: str) -> bool:
    """Whether a module is vetted, of the standard library, or of spawnx."""
    if vetted.is_vetted(name) or name.partition(".")[0] == "spawnx":
        return True
    return preloading.is_of_stdlib(name) and (
        origin in {"built-in", "frozen"} or preloading.is_of_library(origin)
    )


def _hooks_imports(name: str) -> bool:
    """Whether a third-party package has an import hook in this process. comet_ml has one for the import of torch."""
    hooks = [*map(type, sys.meta_path), *sys.path_hooks, builtins.__import__]
    owners = {str(getattr(hook, "__module__", "")).partition(".")[0] for hook in hooks}
    return not preloading.is_known(name) and name.partition(".")[0] in owners - {"spawnx"}

"""The meanings of a module's names, as far as they are known before the module runs.

A name has one of these kinds:

- a `Scope`: a module of the program's own;
- a `Known` value;
- a string such as "os.environ": an object that a library has under this name (see `harmless`);
- `OWN`: the program's own code, or a value that may hold some;
- `PLAIN`: a class of the program's own. An instance can be made without running the program's code;
- `DATA`: any other value.
"""

from __future__ import annotations

import contextlib
import sys

from spawnx.launchers.before_import import harmless
from spawnx.launchers.before_import.source import Files, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from typing import Any

OWN = object()
PLAIN = object()
DATA = object()


class CantTell(Exception):  # noqa: N818 - not an error: it ends a walk
    """A statement may change a later import. The text is its place."""


class Absent(CantTell):
    """A module does not exist, so its import raises."""


class Known:
    """A value that is known before the module runs."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Scope:
    """A module of the program's own, or the body of a class, as far as it was walked.

    Attributes:
        name: `__name__` in a rank.
        package: the package that its relative imports start from.
        source: its text.
        names: the kind of each name.
        certain: whether a rank imports it in any case.
        in_class: whether this is the body of a class.
        lazy: whether annotations aren't evaluated.
        pending: lazy imports (PEP 810) by the names that they bind; the first use of the name does the import. Each
            has its scope, its statement, and whether the name is bound to it in any case.
    """

    __slots__ = ("certain", "in_class", "lazy", "name", "names", "package", "pending", "source")

    def __init__(self, name: str, package: str, source: Source, *, certain: bool = True) -> None:
        self.name = name
        self.package = package
        self.source = source
        self.names: dict[str, object] = {}
        self.certain = certain
        self.in_class = False
        self.lazy = sys.version_info >= (3, 14)  # PEP 649
        self.pending: dict[str, tuple[Scope, Any, bool]] = {}

    def of_class(self) -> Scope:
        """Return the scope of a class's body, which sees these names and binds its own."""
        scope = Scope(self.name, self.package, self.source)
        scope.names = dict(self.names)
        scope.pending = dict(self.pending)
        scope.in_class, scope.lazy = True, self.lazy
        return scope


class Names:
    """The part of a walk that binds and looks up names."""

    def __init__(self) -> None:
        self.files = Files()
        self._scope = Scope("", "", Source("", b"", self.files))
        # Whether a rank executes the walked code in any case; and whether the supervisor has executed it as well.
        self._certain = True
        self._as_supervisor = True

    def cant_tell(self, node: Any, kind: type[CantTell] = CantTell) -> CantTell:
        """Return the exception for a statement or an expression; for None, that for a module's source as a whole."""
        return kind(self._scope.source.quote(getattr(node, "lineno", None)))

    @contextlib.contextmanager
    def _under(self, *, certain: bool = True, as_supervisor: bool = True) -> Iterator[None]:
        """Walk code in this context as not certain, or as not executed by the supervisor, if an argument is False."""
        before = self._certain, self._as_supervisor
        self._certain &= certain
        self._as_supervisor &= as_supervisor
        try:
            yield
        finally:
            self._certain, self._as_supervisor = before

    @contextlib.contextmanager
    def _within(self, scope: Scope) -> Iterator[None]:
        """Walk code in this context in another scope."""
        outer, self._scope = self._scope, scope
        try:
            yield
        finally:
            self._scope = outer

    def _bind(self, name: str, kind: object) -> None:
        """Bind a name to a kind; to `OWN` or `DATA` if the code may not be executed and the name had another kind."""
        if not self._certain:
            before = self._scope.names.get(name, kind)
            if before is not kind and before != kind:
                kind = OWN if {before, kind} & {OWN, PLAIN} else DATA
            elif isinstance(kind, Known):
                kind = DATA
        self._scope.names[name] = kind
        if (pending := self._scope.pending.pop(name, None)) is not None and not self._certain:
            self._scope.pending[name] = (*pending[:2], False)

    def _resolve(self, name: str, scope: Scope) -> None:
        """Do the lazy import that a name of a scope stands for, as the name is used."""
        raise NotImplementedError

    def _kind_of(self, node: ast.expr) -> object:
        """The kind of an expression's value."""
        handler = _KINDS.get(type(node).__name__)
        return DATA if handler is None else getattr(self, handler)(node)

    def _kind_of_name(self, node: ast.Name) -> object:
        self._resolve(node.id, self._scope)
        kind = self._scope.names.get(node.id)
        return f"builtins.{node.id}" if kind is None else kind

    def _kind_of_attribute(self, node: ast.Attribute) -> object:
        base = self._kind_of(node.value)
        if isinstance(base, Scope):
            self._resolve(node.attr, base)
            return base.names.get(node.attr, DATA)
        base = harmless.DISPLAY if isinstance(base, Known) else base
        return f"{base}.{node.attr}" if isinstance(base, str) else DATA

    def _kind_of_call(self, node: ast.Call) -> object:
        function = self._kind_of(node.func)
        return f"{function}()" if isinstance(function, str) else DATA

    def _kind_of_operation(self, node: ast.BinOp) -> object:
        left = self._kind_of(node.left)  # a path and its part (`/`), or a text and its values (`%`)
        return harmless.DISPLAY if isinstance(left, Known) else left

    def _kind_of_display(self, _: ast.expr) -> object:
        return harmless.DISPLAY


# Node class -> handler that finds the kind of an expression.
_KINDS = {
    "Name": "_kind_of_name",
    "Attribute": "_kind_of_attribute",
    "Call": "_kind_of_call",
    "BinOp": "_kind_of_operation",
    **dict.fromkeys(
        ("Constant", "Dict", "DictComp", "JoinedStr", "List", "ListComp", "Set", "SetComp", "Tuple"),
        "_kind_of_display",
    ),
}


def parts_of(node: ast.AST) -> Iterator[Any]:
    """Yield the child nodes of a node: `ast.iter_child_nodes` without an import of `ast`."""
    for field in node._fields:
        value = getattr(node, field, None)
        for part in value if isinstance(value, list) else (value,):
            if hasattr(part, "_fields"):
                yield part

"""What the names of a module stand for, as far as that is known before it runs.

A name stands for a `Scope`, which is a module of the program's own; for a `Known` value; for what a library has under
some name, a string such as "os.environ" (see `harmless`); for the program's own code, or what may hold some (`OWN`), or
a class of its own of which an instance can be made without running any (`PLAIN`); or for some other value (`DATA`).
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


class CantTell(Exception):  # noqa: N818 - no error, but an answer
    """Whether a statement makes a difference can't be told: the text says where it stands."""


class Absent(CantTell):
    """A module isn't there: its import raises."""


class Known:
    """A value that is known before the program runs."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Scope:
    """A module of the program's own, or the body of a class, as far as it was walked.

    Attributes:
        name: `__name__` in a rank.
        package: where its relative imports begin.
        source: its text.
        names: what each name stands for.
        certain: whether it is imported in any case.
        in_class: whether this is the body of a class.
        lazy: whether annotations aren't evaluated.
        pending: lazy imports (PEP 810) by the names that they bind: what they import is imported where the name is
            first used. Each with the scope in which it stands, and whether the name stands for it in any case.
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
        """The scope of a class's body: it sees these names, and binds its own."""
        scope = Scope(self.name, self.package, self.source)
        scope.names = dict(self.names)
        scope.pending = dict(self.pending)
        scope.in_class, scope.lazy = True, self.lazy
        return scope


class Names:
    """The names in the place to which a walk has come."""

    def __init__(self) -> None:
        self.files = Files()
        self._scope = Scope("", "", Source("", b"", self.files))
        # Whether what is walked is executed in any case; and whether the supervisor has executed it, too.
        self._certain = True
        self._as_supervisor = True

    def cant_tell(self, node: Any, kind: type[CantTell] = CantTell) -> CantTell:
        """What is raised at a statement or an expression; None: at a module's source as a whole."""
        return kind(self._scope.source.quote(getattr(node, "lineno", None)))

    @contextlib.contextmanager
    def _under(self, *, certain: bool = True, as_supervisor: bool = True) -> Iterator[None]:
        """What is walked inside is executed in any case, and has been by the supervisor, only if that is so."""
        before = self._certain, self._as_supervisor
        self._certain &= certain
        self._as_supervisor &= as_supervisor
        try:
            yield
        finally:
            self._certain, self._as_supervisor = before

    @contextlib.contextmanager
    def _within(self, scope: Scope) -> Iterator[None]:
        """What is walked inside binds names of another scope."""
        outer, self._scope = self._scope, scope
        try:
            yield
        finally:
            self._scope = outer

    def _bind(self, name: str, kind: object) -> None:
        """Let a name stand for something; for what isn't known, if it may have stood for something else."""
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
        """Do the lazy import that stands behind a name of a scope, as that name is used."""
        raise NotImplementedError

    def _kind_of(self, node: ast.expr) -> object:
        """What an expression stands for."""
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
        left = self._kind_of(node.left)  # a path and a part of it, a text and what is formatted
        return harmless.DISPLAY if isinstance(left, Known) else left

    def _kind_of_display(self, _: ast.expr) -> object:
        return harmless.DISPLAY


# How what an expression stands for is found, by the kind of its node.
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
    """The nodes of which a node is made: `ast.iter_child_nodes`, without an import of `ast`."""
    for field in node._fields:
        value = getattr(node, field, None)
        for part in value if isinstance(value, list) else (value,):
            if hasattr(part, "_fields"):
                yield part

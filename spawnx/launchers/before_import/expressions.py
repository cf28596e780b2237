"""Find harmless expressions: their evaluation before an import doesn't change that import."""

from __future__ import annotations

from spawnx.launchers.before_import import harmless
from spawnx.launchers.before_import.imports import Imports
from spawnx.launchers.before_import.names import DATA, OWN, PLAIN, parts_of
from spawnx.launchers.before_import.values import NotKnown

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable
    from typing import Any


class Expressions(Imports):
    """The part of a walk that checks expressions."""

    def _store(self, target: ast.expr, kind: object, value: ast.expr | None = None) -> None:
        """Assign something to a name, an item or an attribute."""
        raise NotImplementedError

    def _expression(self, node: ast.AST) -> bool:
        """Check that an expression is harmless. Returns whether its value is, or may hold, the program's own code.

        Raises:
            CantTell: it may not be harmless.
        """
        handler = _EXPRESSIONS.get(type(node).__name__)
        own: bool = (self._parts if handler is None else getattr(self, handler))(node)
        return own

    def _parts(self, node: ast.AST) -> bool:
        return self._all(parts_of(node))

    def _all(self, nodes: Iterable[ast.AST]) -> bool:
        """Check that each of some expressions is harmless. Returns whether one may hold the program's own code."""
        own = False
        for node in nodes:
            own |= self._expression(node)
        return own

    def _name(self, node: ast.expr) -> bool:
        return self._kind_of(node) in {OWN, PLAIN}

    def _attribute(self, node: ast.Attribute) -> bool:
        return self._expression(node.value) or self._name(node)

    def _lambda(self, node: ast.Lambda) -> bool:
        self._parts(node.args)
        return True

    def _comprehension(self, node: Any) -> bool:
        own = False
        for generator in node.generators:
            own_items = self._expression(generator.iter)
            # The target has a scope of its own. Bound here, it may hide what is known of an outer name, which is safe.
            self._store(generator.target, OWN if own_items else DATA)
            own |= own_items
        names = ("key", "value") if hasattr(node, "key") else ("elt",)
        with self._under(certain=False):  # the items may be none
            own |= self._all(condition for generator in node.generators for condition in generator.ifs)
            return own | self._all(getattr(node, name) for name in names)

    def _choice(self, node: ast.BoolOp) -> bool:
        return self._first(node.values[0], node.values[1:])

    def _conditional(self, node: ast.IfExp) -> bool:
        return self._first(node.test, [node.body, node.orelse])

    def _comparison(self, node: ast.Compare) -> bool:
        second, *others = node.comparators
        return self._expression(node.left) | self._first(second, others)

    def _first(self, first: ast.expr, others: Iterable[ast.expr]) -> bool:
        """Check an expression whose first part is always evaluated, and whose others may be."""
        own = self._expression(first)
        with self._under(certain=False):
            return own | self._all(others)

    def _named(self, node: ast.NamedExpr) -> bool:
        own = self._expression(node.value)
        self._store(node.target, OWN if own else DATA)
        return own

    def _refused(self, node: ast.expr) -> bool:
        raise self.cant_tell(node)

    def _call(self, node: ast.Call) -> bool:
        own = self._all((*node.args, *(word.value for word in node.keywords)))
        self._expression(node.func)
        name = self._kind_of(node.func)
        if name is PLAIN and not own:
            return True
        if not isinstance(name, str):
            raise self.cant_tell(node)
        special = _CALLS.get(name)
        if special is not None:
            getattr(self, special)(node)
        elif not harmless.is_call(name) or (own and not harmless.keeps(name)):
            raise self.cant_tell(node)
        return own

    def _change_path(self, node: ast.AST) -> None:
        """Allow a change that the supervisor has made too: the template inherits its `sys.path` and current folder."""
        if not self._as_supervisor:
            raise self.cant_tell(node)

    def _filter_warnings(self, node: ast.Call) -> None:
        """Allow a filter of warnings unless it turns them into errors, which could end an import."""
        actions = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "action")]
        try:
            action = self._value(actions[0])
        except (NotKnown, IndexError):
            action = "error"
        if action == "error":
            raise self.cant_tell(node)


# Calls that are harmless under a condition.
_CALLS = {
    "builtins.__import__": "_import_by_call",
    "importlib.import_module": "_import_by_call",
    "os.chdir": "_change_path",
    "os.environ.pop": "_pop_variable",
    "os.environ.setdefault": "_set_default",
    "os.environ.update": "_update_environment",
    "pytest.importorskip": "_import_by_call",
    "sys.path.append": "_change_path",
    "sys.path.extend": "_change_path",
    "sys.path.insert": "_change_path",
    "warnings.filterwarnings": "_filter_warnings",
    "warnings.simplefilter": "_filter_warnings",
}
# Node class -> handler, for expressions that need more than a check of their parts.
_EXPRESSIONS = {
    "Attribute": "_attribute",
    "BoolOp": "_choice",
    "Call": "_call",
    "Compare": "_comparison",
    "IfExp": "_conditional",
    "Lambda": "_lambda",
    "Name": "_name",
    "NamedExpr": "_named",
    **dict.fromkeys(("Await", "Yield", "YieldFrom"), "_refused"),
    **dict.fromkeys(("DictComp", "GeneratorExp", "ListComp", "SetComp"), "_comprehension"),
}

"""Compute values that are known before a module runs: from constants, the platform and the environment.

The template, and so each rank, inherits the supervisor's present environment.
"""

from __future__ import annotations

import os
import sys
from operator import eq, ge, gt, is_, is_not, le, lt, ne

from spawnx.launchers.before_import.names import Known, Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Callable
    from typing import Any


class NotKnown(Exception):  # noqa: N818 - not an error: a result
    """A value isn't known before the module runs."""


class Values(Names):
    """The part of a walk that computes values.

    Attributes:
        environment: the variables that the walk has looked up -> their values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.environment: dict[str, str | None] = {}
        self._times_asked = 0

    def _value(self, node: ast.expr) -> object:
        """The value of an expression in a rank.

        Raises:
            NotKnown: the value isn't known.
        """
        handler = _VALUES.get(type(node).__name__)
        if handler is None:
            raise NotKnown
        try:
            return getattr(self, handler)(node)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise NotKnown from error

    def _variable(self, name: object) -> str | None:
        """Look up a variable of the environment, and record the look-up."""
        if not isinstance(name, str):
            raise NotKnown
        self._times_asked += 1
        self.environment[name] = value = os.environ.get(name)
        return value

    def _value_of_constant(self, node: ast.Constant) -> object:
        return node.value

    def _value_of_name(self, node: ast.Name) -> object:
        if node.id == "__name__" and "__name__" not in self._scope.names:
            return self._scope.name
        return self._value_of_attribute(node)

    def _value_of_attribute(self, node: ast.expr) -> object:
        kind = self._kind_of(node)
        if isinstance(kind, Known):
            return kind.value
        if not isinstance(kind, str) or kind not in _FIXED:
            raise NotKnown
        return _FIXED[kind]

    def _value_of_subscript(self, node: ast.Subscript) -> object:
        key: Any = self._value(node.slice)
        if self._kind_of(node.value) != "os.environ":
            return self._value(node.value)[key]  # type: ignore[index]
        value = self._variable(key)
        if value is None:
            raise NotKnown  # in a rank, this raises
        return value

    def _value_of_call(self, node: ast.Call) -> object:
        function = self._kind_of(node.func)
        if node.keywords or (function not in _CONVERTERS and function not in {"os.environ.get", "os.getenv"}):
            raise NotKnown
        values = [self._value(argument) for argument in node.args]
        if function in _CONVERTERS:
            return _CONVERTERS[function](*values)
        found = self._variable(values[0])
        return found if found is not None or len(values) == 1 else values[1]

    def _value_of_choice(self, node: ast.BoolOp) -> object:
        stops = type(node.op).__name__ == "Or"
        value: object = None
        for part in node.values:
            value = self._value(part)
            if bool(value) is stops:
                break
        return value

    def _value_of_not(self, node: ast.UnaryOp) -> object:
        if type(node.op).__name__ != "Not":
            raise NotKnown
        return not self._value(node.operand)

    def _value_of_comparison(self, node: ast.Compare) -> object:
        if len(node.ops) > 1:
            raise NotKnown
        kind, (right,) = type(node.ops[0]).__name__, node.comparators
        if kind in {"In", "NotIn"} and self._kind_of(right) == "os.environ":
            return (self._variable(self._value(node.left)) is not None) is (kind == "In")
        return _COMPARISONS[kind](self._value(node.left), self._value(right))

    def _value_of_tuple(self, node: ast.Tuple) -> object:
        return tuple(self._value(part) for part in node.elts)

    # A change of the environment is harmless if the inherited environment is already so.

    def _see(self, holds: Callable[[], bool], node: ast.AST) -> None:
        """Check that a condition is known, and true."""
        try:
            if holds():
                return
        except (NotKnown, IndexError):
            pass
        raise self.cant_tell(node)

    def _set_variable(self, name: ast.expr, value: ast.expr, node: ast.AST) -> None:
        self._see(lambda: self._variable(self._value(name)) == self._value(value), node)

    def _remove_variable(self, name: ast.expr, node: ast.AST) -> None:
        self._see(lambda: self._variable(self._value(name)) is None, node)

    def _set_default(self, node: ast.Call) -> None:
        self._see(lambda: self._variable(self._value(node.args[0])) is not None, node)

    def _pop_variable(self, node: ast.Call) -> None:
        self._see(lambda: self._variable(self._value(node.args[0])) is None, node)

    def _update_environment(self, node: ast.Call) -> None:
        for argument in node.args:
            items = zip(getattr(argument, "keys", [None]), getattr(argument, "values", [None]), strict=True)
            for name, value in items:
                if name is None or value is None:
                    raise self.cant_tell(node)  # not a literal dictionary
                self._set_variable(name, value, node)
        for word in node.keywords:
            self._see(lambda word=word: self._variable(word.arg) == self._value(word.value), node)  # type: ignore[misc]


_FIXED = {
    "sys.platform": sys.platform,
    "sys.version_info": tuple(sys.version_info),
    "sys.byteorder": sys.byteorder,
    "os.name": os.name,
    "os.sep": os.sep,
    "os.pathsep": os.pathsep,
    "typing.TYPE_CHECKING": False,
    "builtins.__debug__": __debug__,
}
_CONVERTERS: dict[object, Any] = {"builtins.bool": bool, "builtins.int": int, "builtins.str": str}
_COMPARISONS: dict[str, Any] = {
    "Eq": eq, "NotEq": ne, "Lt": lt, "LtE": le, "Gt": gt, "GtE": ge, "Is": is_, "IsNot": is_not,
    "In": lambda part, whole: part in whole,
    "NotIn": lambda part, whole: part not in whole,
}  # fmt: skip
# Node class -> handler that computes the value of an expression.
_VALUES = {
    "Constant": "_value_of_constant",
    "Name": "_value_of_name",
    "Attribute": "_value_of_attribute",
    "Subscript": "_value_of_subscript",
    "Call": "_value_of_call",
    "BoolOp": "_value_of_choice",
    "UnaryOp": "_value_of_not",
    "Compare": "_value_of_comparison",
    "Tuple": "_value_of_tuple",
}

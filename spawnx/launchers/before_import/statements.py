"""Find harmless statements: their execution before an import doesn't change that import."""

from __future__ import annotations

import os
import sys

from spawnx.launchers.before_import import harmless
from spawnx.launchers.before_import.expressions import Expressions
from spawnx.launchers.before_import.names import DATA, OWN, PLAIN, Absent, Known, Scope, parts_of
from spawnx.launchers.before_import.values import NotKnown
from spawnx.remote import preload as preloading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any


class Walk(Expressions):
    """A walk through source, in the order in which a rank executes it."""

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(candidates)
        self._main: Scope | None = None

    def run(self, name: object, path: object, of_function: str) -> None:
        """Walk the main module, by the name or path that multiprocessing sends to ranks, then the function's module.

        Raises:
            CantTell, Enough, RecursionError: the walk ended early.
        """
        self._run_main(name, path)
        if of_function not in {"__main__", "__mp_main__"}:
            self.import_(of_function, None)

    def _run_main(self, name: object, path: object) -> None:
        """Walk the main module as `multiprocessing.spawn` runs it: see its `_fixup_main_from_name` and `..._path`."""
        package = ""
        if isinstance(name, str):
            if name == "__main__" or name.endswith(".__main__"):
                return  # a folder, an archive or a package: ranks don't run it
            package = name.rpartition(".")[0]
            if package:
                self.import_(package, None)
            path = preloading.spec_of(sys.modules["__main__"])[1]
        elif path is None or os.path.splitext(os.path.basename(str(path)))[0] == "ipython":
            return
        self._main = Scope("__mp_main__", package, self.files.read(str(path), "__main__"))
        self.walk(self._main)

    def block(self, body: Iterable[ast.stmt]) -> None:
        """Walk statements."""
        for node in body:
            handler = _STATEMENTS.get(type(node).__name__)
            if handler is None:
                raise self.cant_tell(node)
            getattr(self, handler)(node)

    def _nothing(self, node: ast.stmt) -> None:
        pass

    def _evaluate(self, node: ast.stmt) -> None:
        self._parts(node)

    def _assert(self, node: ast.Assert) -> None:
        with self._under(certain=False):  # `python -O` doesn't execute it
            self._parts(node)

    def _assign(self, node: ast.Assign) -> None:
        own = self._expression(node.value)
        for target in node.targets:
            self._store(target, OWN if own else self._assigned(node.value), node.value)

    def _assign_annotated(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value is not None:
            own = self._expression(node.value)
            self._store(node.target, OWN if own else self._assigned(node.value), node.value)

    def _assigned(self, node: ast.expr) -> object:
        try:
            return Known(self._value(node))
        except NotKnown:
            return self._kind_of(node)

    def _annotation(self, node: ast.expr | None) -> None:
        if node is not None and not self._scope.lazy:
            self._expression(node)

    def _store(self, target: ast.expr, kind: object, value: ast.expr | None = None) -> None:
        """Assign something to a name, an item or an attribute."""
        handler = _STORES.get(type(target).__name__)
        if handler is None:
            raise self.cant_tell(target)
        getattr(self, handler)(target, kind, value)

    def _store_name(self, target: ast.Name, kind: object, _: ast.expr | None) -> None:
        self._bind(target.id, kind)

    def _store_each(self, target: ast.Tuple, kind: object, _: ast.expr | None) -> None:
        for part in target.elts:
            self._store(part, OWN if kind is OWN else DATA)

    def _store_rest(self, target: ast.Starred, kind: object, _: ast.expr | None) -> None:
        self._store(target.value, kind)

    def _store_item(self, target: ast.Subscript, kind: object, value: ast.expr | None) -> None:
        self._parts(target)
        base = self._kind_of(target.value)
        if base == "os.environ" and value is not None:
            self._set_variable(target.slice, value, target)
        else:
            self._store_in(base, target, kind)

    def _store_attribute(self, target: ast.Attribute, kind: object, _: ast.expr | None) -> None:
        self._expression(target.value)
        name = self._kind_of(target)
        if isinstance(name, str) and name.startswith("torch.backends."):
            return
        self._store_in("sys.path" if name == "sys.path" else self._kind_of(target.value), target, kind)

    def _store_in(self, base: object, target: Any, kind: object) -> None:
        if base == "sys.path":
            self._change_path(target)
        elif not isinstance(base, str) or not harmless.is_made(base):
            raise self.cant_tell(target)
        elif kind is OWN and type(target.value).__name__ == "Name":
            self._bind(target.value.id, OWN)

    def _augment(self, node: ast.AugAssign) -> None:
        own = self._expression(node.value)
        kind = self._kind_of(node.target)
        if type(node.target).__name__ != "Name":
            self._store(node.target, OWN if own else DATA)
        elif kind == "sys.path":
            self._change_path(node)
        elif isinstance(kind, str) and not harmless.is_made(kind):
            raise self.cant_tell(node)  # an object of a library, changed in place
        else:
            self._store(node.target, OWN if own else kind if isinstance(kind, str) else DATA)

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            base = self._kind_of(target.value) if hasattr(target, "value") else None
            if type(target).__name__ == "Name":
                self._bind(target.id, DATA)  # type: ignore[attr-defined]
            elif type(target).__name__ == "Subscript" and base == "os.environ":
                self._remove_variable(target.slice, node)  # type: ignore[attr-defined]
            else:
                self._store(target, DATA)

    def _if(self, node: ast.If) -> None:
        self._expression(node.test)
        asked = self._times_asked
        try:
            value = self._value(node.test)
        except NotKnown:
            # The test may have had another result in the supervisor. One of `sys.path` is assumed to have had the same.
            with self._under(certain=False, as_supervisor=self._mentions(node.test, "sys.path")):
                self.block(node.body)
                self.block(node.orelse)
            return
        of_main = self._scope is self._main and self._mentions(node.test, "builtins.__name__")
        with self._under(as_supervisor=asked == self._times_asked and not of_main):
            self.block(node.body if value else node.orelse)

    def _mentions(self, node: Any, name: str) -> bool:
        """Whether an expression contains a library's name."""
        is_name = type(node).__name__ in {"Name", "Attribute"}
        return (is_name and self._kind_of(node) == name) or any(
            self._mentions(part, name) for part in parts_of(node)
        )

    def _for(self, node: ast.For) -> None:
        own = self._expression(node.iter)
        try:
            values = [self._value(part) for part in getattr(node.iter, "elts", ())]
        except NotKnown:
            values = []
        if not 0 < len(values) <= _MOST_ROUNDS:
            self._repeat(node, lambda: self._store(node.target, OWN if own else DATA))
            return
        for value in values:
            self._store(node.target, Known(value))
            self.block(node.body)
        self.block(node.orelse)

    def _while(self, node: ast.While) -> None:
        self._repeat(node, lambda: self._expression(node.test))

    def _repeat(self, node: ast.For | ast.While, begin: Callable[[], object]) -> None:
        with self._under(certain=False):
            for _ in range(2):  # the second round sees the names that the first one has bound
                begin()
                self.block(node.body)
            self.block(node.orelse)

    def _with(self, node: ast.With) -> None:
        suppressed = False
        for item in node.items:
            own = self._expression(item.context_expr)
            kind = self._kind_of(item.context_expr)
            suppressed |= kind == "contextlib.suppress()"
            if item.optional_vars is not None:
                self._store(item.optional_vars, OWN if own else kind)
        try:
            self.block(node.body)
        except Absent:
            if not suppressed:
                raise

    def _try(self, node: ast.Try) -> None:
        try:
            self.block(node.body)
            absent = False
        except Absent:
            if not node.handlers:
                raise
            absent = True
        if absent or not all(map(self._is_known_import, node.body)):
            for handler in node.handlers:
                with self._under(certain=absent and len(node.handlers) == 1):
                    if handler.type is not None:
                        self._expression(handler.type)
                    if handler.name is not None:
                        self._bind(handler.name, DATA)
                    self.block(handler.body)
        if not absent:
            self.block(node.orelse)
        self.block(node.finalbody)

    def _is_known_import(self, node: ast.stmt) -> bool:
        """Whether a statement imports only what the supervisor has imported, so that it doesn't raise."""
        names = {alias.name for alias in getattr(node, "names", ())}
        if type(node).__name__ == "Import":
            return all(name in sys.modules for name in names)
        if type(node).__name__ != "ImportFrom" or getattr(node, "level", False):
            return False
        return names <= vars(sys.modules.get(getattr(node, "module", ""), object)).keys()

    def _function(self, node: ast.FunctionDef) -> None:
        if self._scope.in_class and node.name in {"__init_subclass__", "__class_getitem__"}:
            raise self.cant_tell(node)  # a later derivation from the class calls it
        self._decorators(node.decorator_list)
        arguments = node.args
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self._expression(default)
        if not self._scope.lazy:
            every = (
                *arguments.posonlyargs,
                *arguments.args,
                *arguments.kwonlyargs,
                arguments.vararg,
                arguments.kwarg,
            )
            for argument in every:
                self._annotation(getattr(argument, "annotation", None))
            self._annotation(node.returns)
        self._bind(node.name, OWN)

    def _decorators(self, decorators: Iterable[ast.expr]) -> None:
        for decorator in decorators:
            self._expression(decorator)
            name = self._kind_of(decorator)
            if type(decorator).__name__ == "Call":
                continue  # the result of a harmless call
            of_property = getattr(decorator, "attr", "") in {"setter", "getter", "deleter"}
            if not of_property and not (isinstance(name, str) and harmless.is_call(name)):
                raise self.cant_tell(decorator)

    def _class(self, node: ast.ClassDef) -> None:
        self._decorators(node.decorator_list)
        for base in node.bases:
            self._expression(base)
        for word in node.keywords:
            self._expression(word.value)
            if word.arg in {None, "metaclass"} and self._kind_of(word.value) not in _METACLASSES:
                raise self.cant_tell(node)
        body = self._scope.of_class()
        with self._within(body):
            self.block(node.body)
        self._bind(node.name, PLAIN if self._is_plain(node, body) else OWN)

    def _is_plain(self, node: ast.ClassDef, body: Scope) -> bool:
        """Whether an instance can be made, used as a value and dropped without running code of the program's own."""
        shapes = {*map(self._kind_of, node.bases), *map(self._kind_of, node.decorator_list)}
        functions = [part for part in node.body if type(part).__name__ == "FunctionDef"]
        methods = {part.name for part in functions if not part.decorator_list}  # type: ignore[attr-defined]
        before = self._scope.names
        held = {name for name, kind in body.names.items() if kind is OWN and before.get(name) is not OWN}
        return shapes <= _PLAIN_SHAPES and held <= {name for name in methods if not name.startswith("__")}

    def _alias(self, node: Any) -> None:
        self._bind(node.name.id, OWN)


# A loop over at most so many known values is walked once for each value.
_MOST_ROUNDS = 32
# Bases and decorators that add no code of the program's own.
_PLAIN_SHAPES = {
    "builtins.Exception",
    "builtins.object",
    "dataclasses.dataclass",
    "dataclasses.dataclass()",
    PLAIN,
}
_METACLASSES = frozenset({"abc.ABCMeta", "enum.EnumMeta", "enum.EnumType", "builtins.type"})
# Node class -> handler of an assignment's target.
_STORES = {
    "Attribute": "_store_attribute",
    "List": "_store_each",
    "Name": "_store_name",
    "Starred": "_store_rest",
    "Subscript": "_store_item",
    "Tuple": "_store_each",
}
# Node class -> handler of a statement.
_STATEMENTS = {
    "AnnAssign": "_assign_annotated",
    "Assert": "_assert",
    "Assign": "_assign",
    "AsyncFunctionDef": "_function",
    "AugAssign": "_augment",
    "ClassDef": "_class",
    "Delete": "_delete",
    "Expr": "_evaluate",
    "For": "_for",
    "FunctionDef": "_function",
    "If": "_if",
    "Import": "_imports",
    "ImportFrom": "_imports",
    "Raise": "_evaluate",
    "Try": "_try",
    "TryStar": "_try",
    "TypeAlias": "_alias",
    "While": "_while",
    "With": "_with",
    **dict.fromkeys(("Break", "Continue", "Global", "Nonlocal", "Pass"), "_nothing"),
}

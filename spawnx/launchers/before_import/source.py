"""Parse the source of the program's own modules, only as far as that is worth its time.

Parsing takes 0.2 to 0.6 ms for each KiB. Imports are at the beginning of a file, so the beginning of a long file is
parsed first.
"""

from __future__ import annotations

import os
import sys

from spawnx.standard import standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterator

    # Modification time in ns and size of a file, which show that it has changed. None: there is no file.
    State = tuple[int, int] | None

# ast.PyCF_ONLY_AST: an import of `ast` costs 3 ms.
_ONLY_AST = 0x400
# In bytes. A file longer than `_WHOLE` is parsed in growing beginnings. At most `_LITTLE` is parsed in all for modules
# of the standard library, which take milliseconds to import. It is `_MUCH` for vetted ones, which take up to a second.
_BEGINNINGS = (4 * 1024, 16 * 1024, 64 * 1024)
_WHOLE = 32 * 1024
_LITTLE = 64 * 1024
_MUCH = 512 * 1024
_QUOTED = 80
_MOST_TRIES = 4


class Source:
    """The text of a module.

    Attributes:
        path: the path of its file.
    """

    __slots__ = ("_files", "_text", "path")

    def __init__(self, path: str, text: bytes | None, files: Files) -> None:
        self.path = path
        self._text = text
        self._files = files

    def parts(self, is_worth_much: Callable[[], bool]) -> Iterator[list[ast.stmt] | None]:
        """Yield growing lists of its statements, each from the first one on; None if the rest is not parsed.

        Args:
            is_worth_much: returns whether the slowest candidate is still left, so that more parsing is worth its time.
        """
        text = self._text
        if text is None:
            yield None
            return
        for size in _BEGINNINGS if len(text) > _WHOLE else ():
            yield self._beginning(text, size)
            if not is_worth_much():
                break
        may_read = _MUCH if is_worth_much() else _LITTLE if len(text) <= _WHOLE else 0
        yield self._files.parsed(text, may_read)

    def _beginning(self, text: bytes, size: int) -> list[ast.stmt]:
        """The statements in about `size` bytes; none if no line near that is a place to cut."""
        end, tries = size, 0
        while (end := text.rfind(b"\n", 0, end)) >= 0 and tries < _MOST_TRIES:
            first = text[end + 1 : end + 2]
            if (first.isalpha() or first == b"@") and not text.startswith(_GO_ON, end + 1):
                # The line may be inside a string. The text before it then has an unclosed string, and can't be parsed.
                if body := self._files.parsed(text[: end + 1], _MUCH):
                    return body
                tries += 1
        return []

    def quote(self, line: int | None) -> str:
        """Return a reason for the end of a walk: the file, the line and its text."""
        lines = (self._text or b"").splitlines()
        if line is None or line > len(lines):
            return f"{self.path} is not analysed to its end: it is too long, or not valid source"
        said = lines[line - 1].decode(errors="replace").strip()
        return f"{self.path}:{line} may make a difference: {said[:_QUOTED]}"


# The keywords that continue a statement which began before.
_GO_ON = (b"else", b"elif", b"except", b"finally")


class Files:
    """The files that a walk has read.

    Attributes:
        states: path -> state of the file.
    """

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self._parsed = 0

    def read(self, path: str, name: str) -> Source:
        """Read the source of a module, and record the state of its file."""
        self.states[path] = state_of(path)
        try:
            with open(path, "rb") as file:
                return Source(path, file.read(_MUCH + 1), self)
        except OSError:
            return Source(path, _from_archive(name), self)

    def parsed(self, text: bytes, may_read: int) -> list[ast.stmt] | None:
        """Return the statements of a text; None if all texts exceed `may_read` bytes, or this one can't be parsed."""
        self._parsed += len(text)
        if self._parsed > may_read:
            return None
        try:
            with _QuietCompiler() as name:
                return compile(text, name, "exec", _ONLY_AST, dont_inherit=True).body  # type: ignore[no-any-return]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


class _QuietCompiler:
    """Hides warnings of the compiler: the user gets them when the text is compiled to run.

    Not `catch_warnings`, which isn't safe with threads.
    """

    _NAME = "<looked at by spawnx>"

    def __enter__(self) -> str:
        with standard_library():
            import re
            import warnings

        self._filters, self._filter = (
            warnings.filters,
            ("ignore", None, Warning, re.compile(re.escape(self._NAME)), 0),
        )
        self._filters.insert(0, self._filter)  # type: ignore[attr-defined]
        return self._NAME

    def __exit__(self, *_: object) -> None:
        if self._filter in self._filters:
            self._filters.remove(self._filter)  # type: ignore[attr-defined]


def _from_archive(name: str) -> bytes | None:
    """The source of an imported module that is not a file, such as one in a zip archive."""
    loader = getattr(getattr(sys.modules.get(name), "__spec__", None), "loader", None)
    try:
        text = loader.get_source(name)  # type: ignore[union-attr]
    except (AttributeError, ImportError, OSError):
        return None
    return None if text is None else text.encode()


def state_of(path: str) -> State:
    """Return the state of a file, which shows later whether it has changed; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def is_installed(path: str) -> bool:
    """Return whether a module's file is a third party's, not the program's own."""
    return "site-packages" in path or "dist-packages" in path

"""The programs of `programs/`, one kind a file.

A program is what one rank does: the text of a module with a function `work`. It begins with a line

    # -- NAME: One sentence that says what it is about. [flag] [flag]

Flags:
    raises: multiprocessing prints a traceback where a rank of spawnx reports: stderr is not compared.
    numpy, torch: only where that is installed.
    script: the text is that of a main module. It may have two parts, divided by a line `# ---`: the first is
    site: what the interpreter runs at its start (`sitecustomize`).
    preload: a module `aside`, which the main module imports, and a template before it.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"

_HEAD = re.compile(r"^# -- (?P<name>.+?): (?P<sentence>.+?\.)(?P<flags>( \[\w+\])*)$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        name: "kind/name".
        sentence: what it is about.
        flags: see above.
        text: that of the module.
        aside: that of the module beside it, or "".
    """

    name: str
    sentence: str
    flags: frozenset[str]
    text: str
    aside: str

    @property
    def kind(self) -> str:
        """What it is an example of."""
        return self.name.partition("/")[0]

    @property
    def module(self) -> str:
        """Its name as a module: of letters, digits and underscores, and no other program's."""
        return re.sub(r"\W", lambda match: f"_{ord(match[0]):x}_", self.name).replace("_20_", "_")


@functools.cache
def programs() -> dict[str, Program]:
    """All programs that can be run here, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        heads = list(_HEAD.finditer(text))
        ends = [head.start() for head in heads[1:]] + [len(text)]
        for head, end in zip(heads, ends, strict=True):
            program = _program(path.stem, head, text[head.end() : end].strip() + "\n")
            if program.name in found:
                raise ValueError(f"two programs are called {program.name}")
            if all(map(_is_installed, program.flags & {"numpy", "torch"})):
                found[program.name] = program
    return found


def _program(kind: str, head: re.Match[str], text: str) -> Program:
    flags = frozenset(re.findall(r"\w+", head["flags"]))
    aside, divided, main = text.partition("# ---\n")
    name = f"{kind}/{head['name']}"
    return Program(name, head["sentence"], flags, *((main, aside) if divided else (text, "")))


@functools.cache
def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None

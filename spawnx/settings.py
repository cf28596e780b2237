"""Every environment variable that spawnx reads: its name, its values, its meaning.

A setting is read when a call needs it, not at import, so that a program may set it for its next call. Settings are for
programs whose code can't be changed; in code, use the argument of the same meaning where one exists.
"""

from __future__ import annotations

import os

# The reference reads this variable, to start forkserver ranks from threads. In spawnx no rank waits for the start of
# another, so the variable changes nothing. The name is kept because callers import it.
ENV_VAR_PARALLEL_START = "TORCH_MP_PARALLEL_START"


# In seconds: 23 days, which fits into an int of milliseconds.
_LONGEST_S = 2_000_000


class _Words:
    """The base of variables that take words.

    Attributes:
        name: the variable.
        choices: the words; the first one is the default.
        meaning: what it decides, in one sentence.
    """

    __slots__ = ("choices", "meaning", "name")

    def __init__(self, name: str, choices: tuple[str, ...], meaning: str) -> None:
        self.name = name
        self.choices = choices
        self.meaning = meaning


class Choice(_Words):
    """A `Choice` is a variable that takes one of a few words."""

    __slots__ = ()

    def read(self) -> str:
        """Return the word in force now.

        Raises:
            ValueError: the variable has another value; the text names the variable and the choices.
        """
        word = os.environ.get(self.name, "").strip().lower() or self.choices[0]
        if word not in self.choices:
            msg = f"{self.name}={word!r} is not a choice: set it to one of {', '.join(self.choices)}, or unset it"
            raise ValueError(msg)
        return word


class Modules(_Words):
    """A `Modules` is a variable that takes names of modules, or one of a few words."""

    __slots__ = ()

    def read(self) -> str | tuple[str, ...]:
        """Return `auto`, or the names in force now; `()` for `off`.

        Raises:
            ValueError: an item can't be the name of a module; the text names the variable.
        """
        text = os.environ.get(self.name, "").strip() or self.choices[0]
        if text.lower() == "auto":
            return "auto"
        if text.lower() == "off":
            return ()
        names = tuple(name.strip() for name in text.split(","))
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                what = "set it to module names separated by commas, to auto or to off"
                msg = f"{self.name}: {name!r} is not a module name: {what}"
                raise ValueError(msg)
        return names


class Seconds:
    """A `Seconds` is a variable that takes a time in seconds, and maybe `off`.

    Attributes:
        name: the variable.
        default: the value if the variable is not set; None is `off`.
        meaning: what it decides, in one sentence.
        may_be_off: whether it takes `off`.
    """

    __slots__ = ("default", "may_be_off", "meaning", "name")

    def __init__(self, name: str, default: float | None, meaning: str, *, may_be_off: bool) -> None:
        self.name = name
        self.default = default
        self.meaning = meaning
        self.may_be_off = may_be_off

    def read(self) -> float | None:
        """Return the seconds in force now; None for `off`.

        Raises:
            ValueError: the variable has another value; the text names the variable and the values that it takes.
        """
        word = os.environ.get(self.name, "").strip().lower()
        if not word:
            return self.default
        if word == "off" and self.may_be_off:
            return None
        try:
            seconds = float(word)
        except ValueError:
            seconds = -1
        if not 0 <= seconds <= _LONGEST_S:
            off = " or to off" if self.may_be_off else ""
            msg = f"{self.name}={word!r} is no time: set it to seconds (0 or more){off}, or unset it"
            raise ValueError(msg)
        return seconds


BACKEND = Choice(
    "SPAWNX_BACKEND",
    ("auto", "native", "python"),
    "who watches and signals ranks: the C core, or the same contract in the standard library",
)
LAUNCHER = Choice(
    "SPAWNX_LAUNCHER",
    ("auto", "clone", "exec", "stdlib"),
    "how ranks come into being; `clone` and `exec` are ways to serve start_method=spawn; `stdlib` is"
    " multiprocessing.Process, the first thing to try when something is odd",
)


PRELOAD = Modules(
    "SPAWNX_PRELOAD",
    ("auto", "off"),
    "what is imported once, before ranks are cloned, instead of once in each: `auto` is torch and numpy where the"
    " supervisor has imported them, what the main module uses of the standard library, and what"
    " multiprocessing.set_forkserver_preload was told; or names of modules, `__main__` for the main module",
)
ORPHAN_GRACE = Seconds(
    "SPAWNX_ORPHAN_GRACE",
    10.0,
    "how long ranks may outlive a supervisor that was killed, in seconds: SIGINT at once, SIGTERM after a fifth of it,"
    " SIGKILL at its end; `off` leaves it to SIGINT by the kernel, as torch has it",
    may_be_off=True,
)
GRACE = Seconds(
    "SPAWNX_GRACE",
    0.0,
    "how long the other ranks may take to end by themselves when one has failed, before SIGTERM, where `join` is"
    " given no grace_period",
    may_be_off=False,
)
KILL_AFTER = Seconds(
    "SPAWNX_KILL_AFTER",
    30.0,
    "how long they may take after SIGTERM, before SIGKILL, where `join` is given no grace_period",
    may_be_off=False,
)
TIMEOUT = Seconds(
    "SPAWNX_TIMEOUT",
    None,
    "how long the ranks of a call may take in all; then they are ended, and `join` raises a TimeoutError with the"
    " stacks of those that lived",
    may_be_off=True,
)

ALL = (BACKEND, LAUNCHER, PRELOAD, ORPHAN_GRACE, GRACE, KILL_AFTER, TIMEOUT)


def check() -> None:
    """Read all settings, so that an invalid one raises before any rank is started.

    Raises:
        ValueError: a setting is invalid; the text names the variable.
    """
    for setting in ALL:
        setting.read()

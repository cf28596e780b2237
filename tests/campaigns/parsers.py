"""Can any bytes that a rank writes make the supervisor raise, wait, or use much time or memory?

A fuzzer for each parser of the supervisor: `python -m tests.campaigns.parsers --seconds 600`. Inputs are valid outputs
of ranks, cut, spliced, and changed in sensitive places: lengths, opcodes, brackets, digits. Memory is limited, which
finds a parser that trusts a length. A short form is in the suite: tests/unit/test_parsers.py.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from spawnx.failures import verdict
from spawnx.ipc import names, notices, report, scoreboard
from spawnx.ipc import report_reader as reports
from spawnx.ipc.scoreboard_reader import Scoreboard

RANKS = 3
# Seconds that one input may take, on a busy machine.
SLOW_S = 1.0
# The most memory of this process, in bytes. A parser that trusts a length exceeds it.
MEMORY = 2 << 30
_BOUNDARIES = [0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
_WIDTHS = (1, 2, 4, 8)
# Sensitive inputs: opcodes that pickle executes, JSON that nests or doesn't end, text that makes regexes slow.
_DEAR = [
    b"\x80\x04", b"\x95", b"\x94", b".", b"X", b"\x8c", b"\x8d", b"q", b"r\xff\xff\xff\x7f", b"cos\nsystem\n", b"R",
    b"(", b"\x8a\xff", b"\x8b",
    b"I", b"L", b"F", b"S'", b"V", b"]", b"}", b"0", b"1", b"2", b"\x93", b"\x81", b"\x82\xff",
    b"{", b"[", b'"', b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 5000, b'{"a":' * 1000,
    b"\0", b"\xff", b"\n", b" \n" * 1000, b"\n\n" * 1000, b"During handling of the above exception, another",
    b"Traceback (most recent call last):\n", b"connection connection closed by remote", b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
]  # fmt: skip


def valid(rng: random.Random) -> bytes:
    """Return bytes that a rank, of spawnx or the reference, may have written."""
    text = rng.choice(
        ["", "Traceback…\nValueError: no good\n", "\udc80", "x" * rng.choice([255, 256, 70_000])]
    )
    if rng.random() < 0.3:
        return pickle.dumps(rng.choice([text, [text], {"a": text}, 10**50, None]), rng.randrange(6))
    stage = rng.choice([scoreboard.IMPORT, scoreboard.UNPICKLE, scoreboard.RUN])
    said = report.Report(text, stage, rng.uniform(-1e9, 1e9), type_name="a.B", peak_kib=rng.getrandbits(40))
    return report.pack(said) + bytes(rng.choice([0, 0, 100]))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return `data` changed in a few places."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(changed) + 1) if rng.random() < 0.5 else min(rng.randrange(32), len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([rng.getrandbits(8)])
        elif kind == 1:
            width = rng.choice(_WIDTHS)
            number = rng.choice(_BOUNDARIES) % 256**width
            changed[at : at + width] = number.to_bytes(width, "little")
        elif kind == 2:
            changed[at:at] = rng.choice(_DEAR)
        elif kind == 3:
            del changed[at : at + rng.choice([1, 1, 8, 1000])]
        else:
            changed[at:at] = changed[: rng.randrange(64)]
    return bytes(changed)


def try_report(data: bytes) -> None:
    """Parse bytes as a report. The result must be None, or a report that can be shown and judged."""
    found = reports.parse(data)
    if found is None:
        return
    assert isinstance(found.text, str)
    assert found.stage in {scoreboard.IMPORT, scoreboard.UNPICKLE, scoreboard.RUN}
    assert found.time is None or abs(found.time) < float("inf")
    assert found.type_name is None or len(found.type_name) <= 1 << 10
    assert found.peak_kib is None or found.peak_kib >= 0
    assert isinstance(found.message, str)
    verdict.is_genuine(verdict.Fact(0, text=found.text, raised=found.time))


def try_file(data: bytes, path: Path) -> None:
    """Parse the same bytes from a file. There must be a report if and only if the bytes parse as one."""
    path.write_bytes(data)
    found = reports.read(str(path))
    assert (found is None) is (reports.parse(data) is None)


def try_board(data: bytes, fd: int) -> None:
    """Read a scoreboard. Each rank must have a line, and parts that can be read."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    read = Scoreboard(fd, RANKS)
    assert [True] * RANKS == [
        line.stage in {"boot", "import", "unpickle", "run", "exit"} for line in read.lines()
    ]
    assert all(isinstance(line.headline, str) for line in read.lines())
    assert set(read.failing()) <= set(range(RANKS))
    os.pwrite(fd, data, scoreboard.report_at(1))
    os.pwrite(fd, data, scoreboard.stack_at(2))
    assert isinstance(read.stack(2), str)
    assert (reports.parse(read.report(1)) is None) or reports.parse(data.rstrip(b"\0")) is not None


def try_notices(data: bytes, ends: tuple[int, int]) -> None:
    """Read notices. Each must be a rank and an errno for which a report can be made."""
    os.write(ends[1], data[:1024])
    for rank, errno in notices.read(ends[0]):
        assert rank >= 0
        assert isinstance(reports.unwritten(errno, "", 0.0).text, str)


def try_name(data: bytes) -> None:
    """Check a name. One that counts as ours must not be a path or a folder."""
    name = os.fsdecode(data[:64].replace(b"\0", b""))
    assert not (names.is_ours(name) and ("/" in name or name in {".", ".."}))


@contextlib.contextmanager
def parsers() -> Iterator[dict[str, Callable[[bytes], None]]]:
    """Yield the functions that try a parser, by name."""
    with contextlib.ExitStack() as opened:
        # In memory if possible: otherwise the time of the disk would be measured.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of our own there
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="spawnx-", dir=memory)))
        ends = notices.make()
        file = os.open(folder / "scoreboard", os.O_RDWR | os.O_CREAT)
        for fd in (*ends, file):
            opened.callback(os.close, fd)
        yield {
            "report": try_report,
            "file": lambda data: try_file(data, folder / "0.pickle"),
            "scoreboard": lambda data: try_board(data, file),
            "notices": lambda data: try_notices(data, ends),
            "name": try_name,
        }


def campaign(seconds: float, seed: int) -> bool:
    """Try all parsers for the same time each, and print faults. Return whether none has raised or was slow."""
    rng = random.Random(seed)
    tried: collections.Counter[str] = collections.Counter()
    slowest: collections.Counter[str] = collections.Counter()
    bad = 0
    until = time.monotonic() + seconds
    with parsers() as each:
        spent = dict.fromkeys(each, 0.0)
        while time.monotonic() < until:
            name = min(spent, key=spent.__getitem__)
            data = mutated(rng, valid(rng))
            began = time.monotonic()
            try:
                each[name](data)
            except BaseException as error:  # noqa: BLE001 - any, such as MemoryError or RecursionError
                bad += 1
                print(f"{name}: {type(error).__name__}: {error}: {data[:200]!r}")
            took = time.monotonic() - began
            tried[name] += 1
            spent[name] += took
            slowest[name] = max(slowest[name], round(1e6 * took))
            if took > SLOW_S:
                bad += 1
                print(f"{name}: {took:.1f} s: {data[:200]!r}")
    for name, count in tried.items():
        print(f"{name}: {count} inputs, the slowest took {slowest[name] / 1000:.1f} ms")
    print(f"seed {seed}: {bad} bad")
    return bad == 0


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    sys.exit(not campaign(options.seconds, seed))


if __name__ == "__main__":
    main()

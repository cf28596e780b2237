"""How many system calls does the supervisor make to start N forked ranks, and to join them?

strace counts the calls of the supervisor alone, in the call that starts and in the calls that join. All ranks are alive
in between. A call of one rank comes first, so that imports don't count. If `per rank` doesn't change with N, the total
is O(N). The reference polls every earlier child at each start: N(N+1)/2 `wait4` in all. The floor is a bare loop of
`os.fork` and `os.waitpid`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from benchmarks import harness, strace, variants

SIZES = [64, 256, 1024]
SIZES_QUICK = [64]


def cases(quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The ids."""
    for torch in (False, True):
        for ranks in SIZES_QUICK if quick else SIZES:
            for name in variants.names(torch=torch):
                if not (torch and name != "torch"):  # an import of torch changes times, but no counts
                    yield f"syscalls/{name}/fork/n={ranks}"


def measure(case: str) -> harness.Metrics:
    """Take one sample."""
    _, name, _, size = case.split("/")
    ranks = int(size.removeprefix("n="))
    start, join = count(name, ranks)
    return {
        "start per rank": start.total() / ranks,
        "join per rank": join.total() / ranks,
        "wait4": start["wait4"] + join["wait4"],
    }


def count(name: str, ranks: int) -> list[Counter[str]]:
    """Return the system calls of a variant's supervisor: those of the start, and those of the join."""
    code = f"from benchmarks import bench_syscalls; bench_syscalls.run({name!r}, {ranks})"
    return strace.count(code, harness.ROOT)


def run(name: str, ranks: int) -> None:
    """Run as the supervisor that is traced."""
    variants.raise_fd_limit()
    variant, gate = variants.Variant(name, "fork", floor=variants.Forked), variants.Gate()
    gate.let(1)
    first = variant.start(1, gate)
    first.join_all()
    first.check()
    gate.wait_for(1)
    strace.mark()
    started = variant.start(ranks, gate)
    strace.mark()
    gate.wait_for(ranks)
    gate.let(ranks)
    strace.mark()
    started.join_all()
    strace.mark()
    started.check()


if __name__ == "__main__":
    if reason := strace.missing():
        sys.exit(f"skipped: {reason}")
    harness.main("benchmarks.bench_syscalls", cases, repetitions=1)

"""Sandboxes that forbid system calls: the short form of `tests.campaigns.denied`; its table is in docs/sandboxes.md."""

from __future__ import annotations

import datetime as dt
import os
import sys

import pytest

from spawnx import backends
from tests.campaigns import denied
from tests.support import HAS_PIDFD

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="has system calls by their numbers on x86_64",
)

# Those without which ranks were left running, or no call worked; by EPERM, as sandboxes have it.
WORST = (
    "epoll_create1",
    "epoll_wait",
    "memfd_create",
    "pidfd_open",
    "pidfd_send_signal",
    "recvmsg",
    "vfork",
    "waitid",
)
WORST_ROWS = [
    denied.Row(call, "EPERM", method, backend)
    for i, call in enumerate(WORST)
    for method, backend in [(denied.METHODS[i % 2], backends.available()[i // 2 % len(backends.available())])]
]
# Of all others a few a day, so that each has its turn in three weeks.
DAY = dt.datetime.now(tz=dt.timezone.utc).toordinal()
ROWS_OF_THE_DAY = [row for i, row in enumerate(denied.all_rows()) if i % 64 == DAY % 64]


@pytest.mark.parametrize("row", [*WORST_ROWS, *ROWS_OF_THE_DAY], ids="-".join)
def test_sandbox_that_forbids_a_call_is_served_or_told(row: denied.Row) -> None:
    """By another way, or one error; and nothing is left."""
    if row.call == "kill" and not HAS_PIDFD:
        pytest.skip("nothing else ends a rank where there are no pidfds")
    assert [] == denied.run(row).faults


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize("call", ["epoll_create1", "memfd_create", "pidfd_send_signal"])
def test_sandbox_that_forbids_what_has_another_way_is_served(call: str, backend: str) -> None:
    """The failing rank's traceback is raised, and its peers are ended at once."""
    outcome = denied.run(denied.Row(call, "ENOSYS", "fork", backend))

    assert ([], True) == (outcome.faults, outcome.serves)


def test_table_in_the_documentation_has_every_call() -> None:
    """It is made by a command, which may be forgotten."""
    text = denied.DOCUMENT.read_text(encoding="utf-8")

    assert [] == [call for call in denied.CALLS if f"\n| `{call}` |" not in text]

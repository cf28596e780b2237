"""The clock by which everything here waits: one for the supervisor, its ranks and its guardian, on any platform.

Not `time.monotonic`: who tests with a frozen or a faked clock (freezegun, `mock.patch("time.monotonic")`) replaces that
name in every module, and no deadline would ever come. clock_gettime(2) is read under a name that they leave alone; and
inside of a `partial`, as freezegun looks for the functions themselves among the attributes of all modules. What is
loaded while the clock is frozen finds it, too: only on Windows, which has no such call, must it be loaded before.
"""

from __future__ import annotations

import time
from functools import partial

if hasattr(time, "clock_gettime"):
    monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:
    monotonic = partial(time.monotonic)

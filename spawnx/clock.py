"""The clock of every wait: one for the supervisor, its ranks and its guardian, on any platform.

Not `time.monotonic`: tests with a frozen or faked clock (freezegun, `mock.patch("time.monotonic")`) replace that name
in every module, and no deadline would ever pass. They don't replace `time.clock_gettime`. The function is in a
`partial`, because freezegun replaces functions that it finds among the attributes of modules. This module may be loaded
while the clock is frozen. Only on Windows, which lacks clock_gettime(2), it must be loaded before.
"""

from __future__ import annotations

import time
from functools import partial

if hasattr(time, "clock_gettime"):
    monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:
    monotonic = partial(time.monotonic)

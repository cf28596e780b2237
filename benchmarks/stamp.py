"""Imported last in a template, before it is cloned: when that was, is in the file that the environment names."""

from __future__ import annotations

import os
import time
from pathlib import Path

Path(os.environ["SPAWNX_BENCH_STAMP"]).write_text(str(time.monotonic()), encoding="ascii")

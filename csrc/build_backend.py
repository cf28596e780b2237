"""setuptools' build backend, which asks for cffi where setup.py builds the C core, and only there."""

from __future__ import annotations

import runpy
from typing import Any

from setuptools.build_meta import *  # noqa: F403 - its hooks are ours, but for those that say what a build needs


def get_requires_for_build_wheel(_settings: Any = None) -> list[str]:
    """See PEP 517."""
    why_not = runpy.run_path("setup.py")["why_not"]
    return [] if why_not(has_cffi=True) else ["cffi>=1.17"]


get_requires_for_build_sdist = get_requires_for_build_editable = get_requires_for_build_wheel

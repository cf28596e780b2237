"""The build. All metadata is in pyproject.toml; the optional cffi extension, the C core, comes here.

Without a C compiler, and on systems other than Linux, there is no extension: spawnx then runs on its Python
backend.
"""

from setuptools import setup

setup()

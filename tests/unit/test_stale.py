"""What a rank of the start method forkserver finds in the standard library: what a fresh interpreter would have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spawnx import backends
from tests.support import Impl, Program

if "native" not in backends.available():
    pytest.skip("this installation has no C core, which clones", allow_module_level=True)

# A module that has imported all of the library, and has asked it what it works out once. Left out: what opens a window,
# a file or a browser, reads the terminal, or is about tests.
ASKS = """
import contextlib, importlib, sys, warnings

LEFT_OUT = {
    "__main__", "_bootlocale", "_curses", "_tkinter", "antigravity", "curses", "distutils", "ensurepip", "idlelib",
    "lib2to3", "msilib", "pty", "pydoc_data", "readline", "rlcompleter", "test", "this", "tkinter", "turtle",
    "turtledemo", "venv", "xxlimited", "xxlimited_35", "xxsubtype",
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        if not name.startswith("_test"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)

import ctypes.util, locale, mimetypes, platform, random, site, sysconfig, tempfile, urllib.request, uuid, webbrowser

tempfile.gettempdir()
next(tempfile._get_candidate_names())
site.getuserbase()
sysconfig.get_config_vars()
platform.platform()
uuid.getnode()
locale.getlocale()
mimetypes.init()
random.random()
ctypes.util.find_library("c")
urllib.request.urlopen("file:///dev/null").close()
with contextlib.suppress(webbrowser.Error):
    webbrowser.get()
"""
COMPARE = """
    import json, os, sys, time

    def plain(value, depth=0):
        if isinstance(value, (str, int, float, bool, bytes, type(None))):
            return repr(value)
        if depth == 3 or isinstance(value, (type, type(sys))) or callable(value):
            return type(value).__name__
        if type(value) in (tuple, list):
            return repr([plain(one, depth + 1) for one in value])
        if type(value) in (set, frozenset):
            return repr(sorted(plain(one, depth + 1) for one in value))
        if type(value) is dict:
            return repr(sorted((plain(key, depth + 1), plain(one, depth + 1)) for key, one in value.items()))
        return type(value).__name__ + plain(dict(vars(value)), depth + 1) if hasattr(value, "__dict__") else "?"

    def write(rank, path):
        import asks

        found = {"age of logging": asks.importlib.import_module("logging").LogRecord(*"n1p1ma", None).relativeCreated}
        modules = [name for name in sys.modules if name.partition(".")[0] in sys.stdlib_module_names]
        for name in modules:
            if name not in ("__main__", "__mp_main__") and sys.modules[name] is not None:
                for key, value in list(vars(sys.modules[name]).items()):
                    if not key.startswith("__"):
                        found[f"{name}.{key}"] = plain(value)
        with open(path, "w") as file:
            json.dump(found, file)

    def of_rank(start_method, **options):
        began = time.monotonic()
        mp.start_processes(write, ("found",), 1, start_method=start_method, **options)
        with open("found") as file:
            found = json.load(file)
        age = found.pop("age of logging")
        return found, 0 <= age <= 1000 * (time.monotonic() - began)

    def be_in(folder):
        os.makedirs(folder)
        for name in ("TMPDIR", "HOME", "USER", "LOGNAME", "PAGER", "EDITOR", "XDG_CACHE_HOME", "SHELL"):
            os.environ[name] = folder
        os.environ["http_proxy"] = f"http://{os.path.basename(folder)}:1"

    if __name__ == "__main__":
        os.chdir(sys.argv[1])
        sys.path.insert(0, sys.argv[1])
        be_in(f"{sys.argv[1]}/first")
        of_rank("forkserver", preload=["asks"])
        be_in(f"{sys.argv[1]}/second")
        time.sleep(0.1)
        found, young = of_rank("forkserver", preload=["asks"])
        expected, _ = of_rank("spawn", preload=())
        again, _ = of_rank("spawn", preload=())
        steady = [key for key in expected if expected[key] == again.get(key)]
        told = {key: [found.get(key), expected[key]] for key in steady if found.get(key) != expected[key]}
        with open("told", "w") as file:
            json.dump([young, told], file)
"""
# Worked out at the next question, and nobody has asked again. And what is of each process: how it was started, and
# locks that a fork clears.
ASKED_AGAIN = {
    "linecache._interactive_cache",  # the command line of the interpreter, as in sys.orig_argv (CPython 3.15)
    "multiprocessing.context._default_context",
    "platform._platform_cache",
    "platform._uname_cache",
    "sys.modules",
    "sys.orig_argv",
    "sys.path_importer_cache",
    "tempfile.tempdir",
    "threading._shutdown_locks",
    "urllib.request._opener",
    "uuid._node",
}


def test_nothing_in_the_standard_library_is_older_than_the_call(tmp_path: Path) -> None:
    """All of the library's modules, which a preloaded one has asked for what they keep."""
    (tmp_path / "asks.py").write_text(ASKS, encoding="utf-8")
    program = Program(Impl("native"), tmp_path)
    done = program.run_command(program.command(COMPARE, str(tmp_path)), timeout=140)
    assert done.returncode == 0, done.stderr
    young, told = json.loads((tmp_path / "told").read_text(encoding="utf-8"))

    assert young
    assert {} == {name: what for name, what in told.items() if name not in ASKED_AGAIN}

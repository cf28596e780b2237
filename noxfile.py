"""The project's checks, each in an environment of its own: `nox -l` lists them, `nox -s NAME` runs one.

What comes after `--` goes to the tool: `nox -s tests-3.13 -- -k join`, `nox -s bench -- --quick`.
"""

from __future__ import annotations

import contextlib
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
# The version that is matched: messages, signatures and defaults are read off it at run time.
TORCH = "torch==2.13.0"

# What the C core is compiled with (setup.py), and what it is read by in addition.
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
# The tests that run the C core, by itself and in each launcher that uses it.
CORE_TESTS = [f"tests/unit/test_{name}.py" for name in ("core", "popen", "exec", "fork")]
# A process that is cloned has one thread: there is nothing for ThreadSanitizer, which starts another one.
CLONE_TESTS = [f"tests/unit/test_{name}.py" for name in ("clone", "clone_guards", "preload")]
# By name: the flags, gcc's runtimes, which must be loaded before the interpreter, and the environment of the tests.
SANITIZERS = {
    # The interpreter leaks on purpose at its exit, and its own allocator would hide what the core does.
    "address": (
        "-fsanitize=address,undefined -fno-sanitize-recover=undefined",
        ["libasan.so", "libubsan.so"],
        {"ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
    ),
    # Forking from a process with threads is what the fork launcher is for.
    "thread": ("-fsanitize=thread", ["libtsan.so"], {"TSAN_OPTIONS": "die_after_fork=0"}),
}

nox.needs_version = ">=2025.2.9"  # `requires`
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, as linter and as formatter; clang-format over the C core."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("clang-format", "--dry-run", "-Werror", *map(str, Path("csrc").glob("*.[ch]")))


@nox.session
def types(session: nox.Session) -> None:
    """The package under `mypy --strict`."""
    session.install("-e", ".[lint]")
    session.run("mypy", "--strict", "spawnx", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite without torch: what spawnx promises to those who don't have it."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """An sdist, and the wheel with the C core that is made of it, in dist/; both checked."""
    session.install("abi3audit", "build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", env={"SPAWNX_PURE": "0", "SPAWNX_CFLAGS": "-Werror"})
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.run("abi3audit", "--strict", *map(str, Path("dist").glob("*.whl")))


@nox.session(python=[PYTHONS[0], PYTHONS[-1]], requires=["build"])
def wheel(session: nox.Session) -> None:
    """The suite on the wheel of `build`, as users have it: one for all Pythons, and no checkout."""
    (built,) = Path("dist").glob("*.whl")
    session.install(f"{built}[test]")
    with no_package(session):
        session.run("python", "-m", "pytest", *session.posargs)


@nox.session
@nox.parametrize("sanitizer", [nox.param(name, id=name) for name in SANITIZERS])
def sanitize(session: nox.Session, sanitizer: str) -> None:
    """The tests of the C core under AddressSanitizer with UBSan, and under ThreadSanitizer."""
    if shutil.which("gcc") is None:
        session.skip("there is no gcc")
    flags, libraries, environment = SANITIZERS[sanitizer]
    paths = [
        session.run("gcc", f"-print-file-name={name}", external=True, silent=True).strip()
        for name in libraries
    ]
    if not all(Path(path).is_absolute() for path in paths):
        session.skip(f"gcc has no {' and '.join(libraries)}")
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        # By way of an sdist: objects of another build that lie about in build/ would be taken for ours.
        session.run(
            "python", "-m", "build", "--outdir", folder,
            env={"CC": "gcc", "SPAWNX_PURE": "0", "SPAWNX_CFLAGS": f"-Werror -g -O1 {flags}", "LDFLAGS": flags},
        )  # fmt: skip
        (built,) = Path(folder).glob("*.whl")
        session.install("--force-reinstall", f"{built}[test]")
    chosen = session.posargs or [*CORE_TESTS, *(CLONE_TESTS if sanitizer == "address" else [])]
    environment = {**environment, "SPAWNX_BACKEND": "native", "LD_PRELOAD": " ".join(paths)}
    with no_package(session):
        session.run("python", "-m", "pytest", *chosen, env=environment)


@nox.session
def analyze(session: nox.Session) -> None:
    """The C core read by clang-tidy, cppcheck and gcc's analyzer."""
    session.install("-e", ".[analyze]")
    sources = sorted(map(str, Path("csrc").glob("*.c")))
    python = f"-isystem{sysconfig.get_path('include')}"
    session.run("clang-tidy", "--quiet", *sources, "--", "-Icsrc", python, *WARNINGS)
    # Unused members, callbacks' parameters: the kernel's structs, and libc's types, are what they are.
    checks = [
        "--enable=warning,style,performance,portability",
        "--inconclusive",
        "--suppress=unusedStructMember",
        "--suppress=constParameterCallback",
    ]
    session.run("cppcheck", "--quiet", "--error-exitcode=1", "--std=c11", *checks, "-Icsrc", "csrc")
    if shutil.which("gcc") is None:
        session.skip("there is no gcc to analyze with; clang-tidy and cppcheck found nothing")
    for source in sources:
        session.run(
            "gcc",
            "-fanalyzer",
            "-O2",
            "-Icsrc",
            python,
            *WARNINGS,
            "-c",
            source,
            "-o",
            "/dev/null",
            external=True,
        )


@nox.session
def oracle(session: nox.Session) -> None:
    """The suite with torch: every test of behaviour runs on the original as well."""
    session.install("-e", ".[test]", TORCH)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def callers(session: nox.Session) -> None:
    """Torch elastic and Lightning, launched by spawnx and by torch."""
    session.install("-e", ".[test,callers]", TORCH)
    session.run("python", "-m", "pytest", "tests/callers", *session.posargs)


@nox.session
def example(session: nox.Session) -> None:
    """What a newcomer runs: the self-test of the command line, and DDP over gloo on real digits."""
    session.install("-e", ".[example]", TORCH)
    session.run("python", "-m", "spawnx")
    session.run("python", "examples/train_ddp.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, one after the other; `-- --quick` for a first look."""
    session.install("-e", ".[test]", TORCH)
    for file in sorted(Path("benchmarks").glob("bench_*.py")):
        session.run("python", "-m", f"benchmarks.{file.stem}", *session.posargs)


@nox.session
def systems(session: nox.Session) -> None:
    """The wheels in Debian trixie and sid, on each Python there; needs root: `-- --help`."""
    if {"-h", "--help", "--list"} & set(session.posargs):
        session.run("python", "-m", "tests.systems", *session.posargs)
        return
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        for pure in "01":
            session.run("python", "-m", "build", "--wheel", "--outdir", folder, env={"SPAWNX_PURE": pure})
        session.run("python", "-m", "tests.systems", "--wheels", folder, *session.posargs)


@contextlib.contextmanager
def no_package(session: nox.Session) -> Iterator[None]:
    """Work in a copy of the checkout that has no `spawnx`, so that the one that is installed is tested.

    Not below the checkout: sockets that are made there would have too long a path.
    """
    with tempfile.TemporaryDirectory() as folder:
        unwanted = shutil.ignore_patterns("spawnx", "*.egg-info", ".*", "build", "dist", "__pycache__")
        shutil.copytree(".", folder, ignore=unwanted, dirs_exist_ok=True)
        with session.chdir(folder):
            yield

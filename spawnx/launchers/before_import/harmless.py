"""The calls that a module may make before an import without changing that import.

A name is the library's own name for the function, such as `os.path.join`. `()` stands for the result of a call:
`pathlib.Path().resolve` is a method of an object that `pathlib.Path` has made. All calls that are not listed count as
not harmless. A call may be listed if it doesn't run code that it is given, and doesn't change what an import finds or
reads. That is `sys.meta_path`, `sys.modules`, the environment, other modules' names, limits, processors.
"""

from __future__ import annotations

import builtins

# Modules whose functions and classes are all harmless, except those in `_NOT`.
_MODULES = frozenset({
    "abc", "argparse", "base64", "calendar", "click", "collections", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "enum", "fnmatch", "fractions", "functools", "getpass", "glob",
    "hashlib", "itertools", "json", "logging", "math", "numbers", "pathlib", "platform", "pprint", "pytest", "random",
    "re", "secrets", "statistics", "string", "struct", "tempfile", "textwrap", "time", "typer", "types",
    "typing", "typing_extensions", "uuid", "warnings",
})  # fmt: skip
_NOT = frozenset(
    {
        "functools.reduce",
        "logging.config",
        "logging.setLoggerClass",
        "pytest.main",
        "pytest.register_assert_rewrite",
        "typing.get_type_hints",
    }
)
_CALLS = frozenset({
    "atexit.register", "faulthandler.enable", "gc.collect", "gc.disable", "gc.enable", "gc.freeze",
    "hydra.main", "importlib.metadata.version", "importlib.util.find_spec", "inspect.signature", "io.StringIO",
    "matplotlib.use", "multiprocessing.cpu_count", "multiprocessing.current_process",
    "multiprocessing.freeze_support", "multiprocessing.get_context", "multiprocessing.parent_process",
    "multiprocessing.set_start_method", "numpy.array", "numpy.random.default_rng", "numpy.random.seed",
    "operator.attrgetter", "operator.itemgetter", "os.cpu_count", "os.environ.copy", "os.environ.get",
    "os.environ.items", "os.environ.keys", "os.getcwd", "os.getenv", "os.getpid", "os.getppid", "os.listdir",
    "os.makedirs", "os.mkdir", "queue.Queue", "signal.signal", "socket.gethostname", "spawnx.get_context",
    "sys.exit", "sys.getrecursionlimit", "sys.setrecursionlimit", "sys.stderr.flush", "sys.stderr.reconfigure",
    "sys.stderr.write", "sys.stdout.flush", "sys.stdout.reconfigure", "sys.stdout.write", "threading.Condition",
    "threading.Event", "threading.Lock", "threading.RLock", "threading.Semaphore", "threading.local",
    "torch.cuda.device_count", "torch.cuda.is_available", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all", "torch.device", "torch.distributed.elastic.multiprocessing.errors.record",
    "torch.inference_mode", "torch.manual_seed", "torch.multiprocessing.get_context",
    "torch.multiprocessing.set_sharing_strategy", "torch.multiprocessing.set_start_method", "torch.no_grad",
    "torch.set_default_dtype", "torch.set_float32_matmul_precision", "torch.set_num_threads", "torch.tensor",
    "traceback.format_exc", "weakref.WeakKeyDictionary", "weakref.WeakValueDictionary",
})  # fmt: skip
_BUILTINS = frozenset({
    "abs", "all", "any", "bool", "bytearray", "bytes", "callable", "chr", "classmethod", "complex", "dict",
    "divmod", "enumerate", "float", "format", "frozenset", "getattr", "hasattr", "hash", "hex", "id", "int",
    "isinstance", "issubclass", "iter", "len", "list", "max", "min", "next", "object", "oct", "open", "ord",
    "pow", "print", "property", "range", "repr", "reversed", "round", "set", "slice", "sorted", "staticmethod",
    "str", "sum", "super", "tuple", "type", "zip",
})  # fmt: skip
# Objects that these modules and calls return have only harmless methods.
_MADE_BY = frozenset({
    "argparse", "collections", "configparser", "datetime", "display", "json", "logging", "pathlib", "random",
    "re", "string", "time", "typer", "uuid",
})  # fmt: skip
_MADE_BY_CALLS = frozenset({
    "builtins.dict", "builtins.list", "builtins.open", "builtins.set", "builtins.str", "importlib.metadata.version",
    "io.StringIO", "os.environ.get", "os.getcwd", "os.getenv", "os.listdir", "socket.gethostname",
})  # fmt: skip
# Calls that keep code that they are given, to call it later or never.
_KEEPS = frozenset({
    "atexit.register", "collections.defaultdict", "dataclasses.field", "functools.partial", "functools.wraps",
    "signal.signal", "typing.NewType", "typing.TypeVar", "typing.cast",
})  # fmt: skip

# The name of an object that a literal has made: a string, a list, a dictionary.
DISPLAY = "display()"


def is_call(name: str) -> bool:
    """Return whether a call of a library's function or method with this name is harmless."""
    if "()" in name:
        return is_made(name) and not name.endswith("()")
    if name.startswith("builtins."):
        return name[9:] in _BUILTINS or _is_exception(name[9:])
    if any(name == other or name.startswith(f"{other}.") for other in _NOT):
        return False
    return name in _CALLS or name.startswith("os.path.") or name.partition(".")[0] in _MODULES


def is_made(name: str) -> bool:
    """Return whether a name stands for an object that a harmless call has made, or for a part of such an object."""
    maker, called, _ = name.partition("()")
    return bool(called) and (
        maker in _MADE_BY_CALLS or maker.startswith("os.path.") or maker.partition(".")[0] in _MADE_BY
    )


def keeps(name: str) -> bool:
    """Return whether a call only keeps the program's own code that it is given, and doesn't run it."""
    return name in _KEEPS


def _is_exception(name: str) -> bool:
    value = getattr(builtins, name, None)
    return isinstance(value, type) and issubclass(value, BaseException)

"""Which imports could not be changed by what the main module does before: programs, and the decision for each."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from spawnx import backends
from spawnx.launchers import before_import
from tests.support import HAS_TORCH, LONG_S, ROOT

# In this order, where a program imports them in this order.
CANDIDATES = ("argparse", "json", "multiprocessing.queues", "numpy", "numpy.random", "random", "torch")

Decide = Callable[..., "before_import._Decision"]


@pytest.fixture
def decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """Decide for a main module, with others beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    if not HAS_TORCH:
        (tmp_path / "torch.py").touch()
    if importlib.util.find_spec("numpy") is None:  # as on PyPy
        (tmp_path / "numpy").mkdir()
        for name in ("__init__", "random"):
            (tmp_path / "numpy" / f"{name}.py").touch()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SEED", "DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def decide(
        source: str, of_function: str = "__main__", candidates: tuple[str, ...] = CANDIDATES, **helpers: str
    ) -> before_import._Decision:
        for name, text in helpers.items():
            path = tmp_path / f"{name.replace('__of__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        main = tmp_path / "train.py"
        main.write_text(textwrap.dedent(source), encoding="utf-8")
        return before_import._Decision(candidates, None, str(main), of_function)

    return decide


# Programs in which all that is preloaded as "auto" is imported before anything else is done, or in spite of that.

DDP_TUTORIAL = """
    import os
    import sys
    import tempfile
    import torch
    import torch.distributed as dist
    import torch.nn as nn
    import torch.optim as optim
    import torch.multiprocessing as mp

    from torch.nn.parallel import DistributedDataParallel as DDP

    if sys.platform == "win32":
        init_method = "file:///" + os.path.join(tempfile.gettempdir(), "x")

    def setup(rank, world_size):
        os.environ['MASTER_ADDR'] = 'localhost'
        os.environ['MASTER_PORT'] = '12355'
        dist.init_process_group("gloo", rank=rank, world_size=world_size)

    class ToyModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.net1 = nn.Linear(10, 10)

    def demo_basic(rank, world_size):
        setup(rank, world_size)

    if __name__ == "__main__":
        n_gpus = torch.cuda.device_count()
        os.environ["OMP_NUM_THREADS"] = "1"
        mp.spawn(demo_basic, args=(2,), nprocs=2, join=True)
"""
ARGPARSE = """
    #!/usr/bin/env python3
    # -*- coding: utf-8 -*-
    '''Train a model.'''
    from __future__ import annotations

    import argparse
    import json
    import logging
    import random
    import time
    import warnings
    from dataclasses import dataclass, field
    from functools import partial
    from pathlib import Path
    from typing import TYPE_CHECKING, Any, Optional

    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logger = logging.getLogger(__name__)
    logger.setLevel(logging.DEBUG)
    ROOT = Path(__file__).resolve().parent
    DATA = ROOT / "data"
    START = time.time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=1e-3)
    group = parser.add_argument_group("more")
    group.add_argument("--root", default=str(DATA))

    import numpy as np
    import torch
    from numpy import random as npr

    if TYPE_CHECKING:
        from nowhere import Thing

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        names: list[str] = field(default_factory=list)
        made: Any = field(default_factory=lambda: [])

    @torch.no_grad()
    def evaluate(model: torch.nn.Module, where: Optional[Path] = None) -> float:
        return 0.0

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    TABLE = {name: i for i, name in enumerate(["a", "b"])}
    TABLE["c"] = 3
    words = [w for w in "a b c".split()]
    words.append("d")

    def main() -> None: ...

    if __name__ == "__main__":
        main()
"""
PATH_FIRST = """
    import os, sys
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.insert(0, root)
    sys.path.append(os.path.join(root, "src"))
    sys.path += [root]
    sys.path[0:0] = [root]
    import torch
"""
OPTIONAL = """
    try:
        import nowhere_to_be_found as apex
        HAS_APEX = True
    except ImportError:
        apex = None
        HAS_APEX = False
    try:
        import json
    except ImportError:
        import subprocess
        subprocess.check_call(["pip", "install", "json"])
    import contextlib
    with contextlib.suppress(ImportError):
        import nowhere_either
    import torch
"""
OWN_MODULES = """
    import argparse
    from helper import WIDTH, Base, work
    from pack.models import Net
    import pack.losses as losses
    import torch

    class Net2(Base):
        pass

    print("width", max(WIDTH, 3))
"""
OWN_HELPERS = {
    "helper": "import os\nWIDTH = os.cpu_count()\nclass Base: pass\ndef work(rank): os.environ['A'] = '1'\n",
    "pack__of____init__": "from .models import *\nfrom . import losses\n",
    "pack__of__models": "import json\nfrom .losses import L\nclass Net: pass\n",
    "pack__of__losses": "import random\nL = 3\n",
}
EXPORTED_NOTEBOOK = """
    # coding: utf-8
    # In[1]:
    import numpy as np
    import torch
    # In[2]:
    x = torch.randn(3)
    get_ipython().run_line_magic('matplotlib', 'inline')
"""
LIGHTNING = """
    import random, json
    import numpy.random
    import torch
    from torch import nn

    class Module(nn.Module):
        def __init__(self, hidden: int = 3) -> None:
            super().__init__()
        @property
        def width(self): return 1
        @width.setter
        def width(self, value): ...
        @staticmethod
        def f(x=(1, 2)): ...

    def main(): ...
"""
BY_PLATFORM = """
    import os, sys
    if sys.platform == "nonsense" or os.name == "nonsense":
        os.environ["OMP_NUM_THREADS"] = "1"
    if sys.version_info < (3, 8):
        sys.exit("too old")
    if __name__ == "__main__":
        os.environ["OMP_NUM_THREADS"] = "1"
    else:
        import json
    if os.environ.get("DEBUG"):
        import nowhere
        nowhere.set_trace()
    if "OMP_NUM_THREADS" in os.environ and os.getenv("DEBUG", "0") == "1":
        os.environ.clear()
    import torch
"""

STANDARD = {"argparse", "json", "multiprocessing.queues", "random"}
WITH_TORCH = {*STANDARD, "torch"}
# Source of the main module, other modules, what is preloaded of `CANDIDATES`.
PRELOADED: dict[str, tuple[str, dict[str, str], set[str]]] = {
    "DDP tutorial": (DDP_TUTORIAL, {}, WITH_TORCH),
    "argparse": (ARGPARSE, {}, set(CANDIDATES)),
    "path set first": (PATH_FIRST, {}, WITH_TORCH),
    "optional modules": (OPTIONAL, {}, WITH_TORCH),
    "own modules": (OWN_MODULES, OWN_HELPERS, WITH_TORCH),
    "exported notebook": (EXPORTED_NOTEBOOK, {}, {"numpy", "torch"}),
    "Lightning": (LIGHTNING, {}, set(CANDIDATES)),
    "by platform": (BY_PLATFORM, {}, WITH_TORCH),
    "all names": ("from os.path import *\nfrom json import *\nimport torch", {}, WITH_TORCH),
    "nothing": ("", {}, STANDARD),
    "imported by the function": ("def work(rank):\n    import torch", {}, STANDARD),
    "imported by a call": ("import importlib\nt = importlib.import_module('torch')\nt.compile(3)", {}, {"torch"}),
    "class in a class": (("class A:\n    class B: x: int = 3\n"
        "    def f(self): ...\nimport torch"), {}, WITH_TORCH),
    "loop": (("import os\nfor n in range(3):\n    print(n)\nelse:\n"
        "    print()\nwhile False:\n    break\nimport torch"), {}, WITH_TORCH),
    "plain value": (("from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = 3\n    def f(self): ...\n"
        "config = C(x=4)\nlr = config.x + 1\nimport torch"), {}, WITH_TORCH),
    "file": (("import json\nwith open('x') as f:\n    config = json.load(f)\n"
        "lr = config.get('lr')\nimport torch"), {}, WITH_TORCH),
    "method of a value": (("import time\nt = time.strftime('%x').split()\n"
        "s = '-'.join(t).upper()\nimport torch"), {}, WITH_TORCH),
}  # fmt: skip


@pytest.mark.parametrize("name", PRELOADED)
def test_program_that_only_imports_and_defines_has_its_modules_preloaded(name: str, decide: Decide) -> None:
    """Training programs as people write them."""
    source, helpers, expected = PRELOADED[name]
    decision = decide(source, **helpers)

    assert (expected, len(expected)) == (set(decision.modules), len(decision.modules)), decision.why


# Programs that do something before, after which it can't be told; the candidates that are imported in time.

BEFORE = {
    "variable": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    "variable by another name": "from os import environ as e\ne['OMP_NUM_THREADS'] = '1'\nimport torch",
    "variable by an alias": "import os\nenv = os.environ\nenv['OMP_NUM_THREADS'] = '1'\nimport torch",
    "setdefault": "import os\nos.environ.setdefault('OMP_NUM_THREADS', '1')\nimport torch",
    "update": "import os\nos.environ.update(OMP_NUM_THREADS='1')\nimport torch",
    "update by a dictionary": "import os\nos.environ.update({'OMP_NUM_THREADS': '1'})\nimport torch",
    "update by another's": "import os\nos.environ.update(dict(OMP_NUM_THREADS='1'))\nimport torch",
    "or": "import os\nos.environ |= {'OMP_NUM_THREADS': '1'}\nimport torch",
    "bytes": "import os\nos.environb[b'OMP_NUM_THREADS'] = b'1'\nimport torch",
    "putenv": "import os\nos.putenv('OMP_NUM_THREADS', '1')\nimport torch",
    "computed": "import os\nos.environ['OMP_NUM_THREADS'] = str(os.cpu_count())\nimport torch",
    "in ranks": "import os\nif __name__ == '__mp_main__':\n    os.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    "not in the supervisor": "import os\nif __name__ != '__main__':\n    os.environ['SEED'] = '1'\nimport torch",
    "otherwise": "import os\nif __name__ == '__main__':\n    pass\nelse:\n    os.environ['SEED'] = '1'\nimport torch",
    "in other processes": "import multiprocessing, os\nif multiprocessing.parent_process() is not None:\n"
    "    os.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    "path in ranks": "import sys\nif __name__ == '__mp_main__':\n    sys.path.insert(0, '/opt/lib')\nimport torch",
    "loop": "import os\nfor name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):\n    os.environ[name] = '1'\nimport torch",
    "second round": "import os\nx = os.environ.get('SEED', '')\n"
        "while input():\n    os.environ['A'] = x\n    x = '2'\nimport torch",
    "exception": "import os\ntry:\n    import nowhere_at_all\n"
        "except ImportError:\n    os.environ['A'] = '1'\nimport torch",
    "finally": "import os\ntry:\n    pass\nfinally:\n    os.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    "class": "import os\nclass Config:\n    os.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    "default": "import os\ndef f(x=os.environ.setdefault('OMP_NUM_THREADS', '1')): ...\nimport torch",
    "walrus": "import os\n(e := os.environ)['OMP_NUM_THREADS'] = '1'\nimport torch",
    "comprehension": "import os\n[os.environ.__setitem__(n, '1') for n in ('A', 'B')]\nimport torch",
    "ctypes": "import ctypes\nctypes.CDLL('libgomp.so.1').omp_set_num_threads(1)\nimport torch",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))\nimport torch",
    "processors": "import os\nos.sched_setaffinity(0, {0})\nimport torch",
    "finder": "import sys\nclass Finder: ...\nsys.meta_path.insert(0, Finder)\nimport torch",
    "finder made": "import sys\nclass Finder: ...\nsys.meta_path.insert(0, Finder())\nimport torch",
    "path hook": "import sys\nhooks = sys.path_hooks\nhooks += [lambda path: None]\nimport torch",
    "__import__": "import builtins\nreal = builtins.__import__\n"
        "builtins.__import__ = lambda *a: real(*a)\nimport torch",
    "stand-in": "import sys, types\nsys.modules['torchvision'] = types.ModuleType('x')\nimport torch",
    "patch": "import ssl\nssl._create_default_https_context = ssl._create_unverified_context\nimport torch",
    "set by setattr": "import os\nsetattr(os, 'environ', {})\nimport torch",
    "own function": "import os\ndef seed_everything(): os.environ['A'] = '1'\nseed_everything()\nimport torch",
    "own decorator": "import os\ndef deco(f):\n    os.environ['A'] = '1'\n"
        "    return f\n@deco\ndef g(): ...\nimport torch",
    "own constructor": "class A:\n    def __init__(self): ...\na = A()\nimport torch",
    "own method": "class A:\n    def f(self): ...\na = A()\na.f()\nimport torch",
    "own property": "class A:\n    @property\n    def f(self): ...\na = A()\na.f\nimport torch",
    "own factory": "from dataclasses import dataclass, field\ndef f(): ...\n@dataclass\nclass A:\n"
    "    x: int = field(default_factory=f)\na = A()\nimport torch",
    "own base's constructor": "class A:\n    def __init__(self): ...\nclass B(A): ...\nb = B()\nimport torch",
    "own metaclass": "class M(type):\n    def __new__(*a): ...\nclass A(metaclass=M): ...\nimport torch",
    "own __init_subclass__": "class A:\n    def __init_subclass__(cls): ...\nclass B(A): ...\nimport torch",
    "own key": "import os\nx = sorted([1, 2], key=lambda n: os.putenv('A', '1'))\nimport torch",
    "own type": "import argparse\ndef gpu(x): ...\np = argparse.ArgumentParser()\np.add_argument('x', type=gpu)\n"
    "p.parse_args()\nimport torch",
    "shadowed name": "class os:\n    def getcwd(): ...\nos.getcwd()\nimport torch",
    "exec": "exec('import os')\nimport torch",
    "match": "import sys\nmatch sys.platform:\n    case 'linux': pass\nimport torch",
    "warnings are errors": "import warnings\nwarnings.simplefilter('error')\nimport torch",
    "subprocess": "import subprocess\nsubprocess.run(['true'])\nimport torch",
    "third party's function": "import psutil\npsutil.Process().nice(3)\nimport torch",
    "own module": "import helper\nimport torch",
    "own module's function": "import plain\nplain.work()\nimport torch",
    "own module by a name": "import importlib\nimportlib.import_module('helper')\nimport torch",
    "own package": "import pack.models\nimport torch",
    "missing": "import nowhere_at_all\nimport torch",
    "only perhaps": "import os\nif input():\n    import torch\nos.environ['A'] = '1'\nimport torch",
    "instead": "try:\n    import psutil as t\n    t.x\nexcept Exception:\n    import torch\nimport helper",
    "endless": "x = " + "-" * 5000 + "1\nimport torch",
    "not Python": "def (:\nimport torch",
    "no text": "x = '\0'\nimport torch",
}  # fmt: skip
HELPERS = {
    "helper": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n",
    "plain": "def work(): ...",
    "pack__of____init__": "import helper",
    "pack__of__models": "",
}


@pytest.mark.parametrize("name", BEFORE)
def test_program_that_does_something_before_an_import_imports_for_itself(name: str, decide: Decide) -> None:
    """Whatever could change what the import finds or reads, or can't be told not to; and the log says where."""
    decision = decide(BEFORE[name], **HELPERS)

    assert "torch" not in decision.modules
    assert ".py" in decision.why or "nested" in decision.why


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_imported_before_that_is_preloaded(name: str, decide: Decide) -> None:
    """The first lines of a program are as good as any."""
    if name in {"endless", "not Python", "no text"}:
        pytest.skip("there is no line to begin with")
    decision = decide(f"import numpy\nimport torch\n{BEFORE[name]}", **HELPERS)

    assert ("numpy", "torch") == decision.modules[:2]


# What the environment is now


@pytest.mark.parametrize(
    ("statement", "now", "preloaded"),
    [
        ("os.environ['SEED'] = '1'", "1", True),
        ("os.environ['SEED'] = '1'", "2", False),
        ("os.environ['SEED'] = str(1)", "1", True),
        ("ONE = '1'; os.environ['SEED'] = ONE", "1", True),
        ("os.environ.setdefault('SEED', '1')", "2", True),
        ("os.environ.update(SEED='1')", "1", True),
        ("os.environ.update({'SEED': '1'})", "2", False),
        ("os.environ.pop('SEED', None)", None, True),
        ("os.environ.pop('SEED', None)", "1", False),
        ("del os.environ['SEED']", "1", False),
        ("for n in ('SEED', 'SEED'): os.environ[n] = '1'", "1", True),
        ("for n in ('SEED', 'DEBUG'): os.environ[n] = '1'", "1", False),
        ("if 'SEED' not in os.environ: os.environ['SEED'] = '1'", "7", True),
        ("if os.environ.get('SEED') == '7': os.environ['DEBUG'] = '1'", "7", False),
        ("if int(os.environ.get('SEED', 0)) > 7: os.environ['DEBUG'] = '1'", "7", True),
        ("if os.environ['SEED'] == '7': import nowhere_at_all", "7", False),
    ],
)
def test_variable_that_the_template_inherits_is_no_reason(
    statement: str, now: str | None, decide: Decide, monkeypatch: pytest.MonkeyPatch, *, preloaded: bool
) -> None:
    """What a rank would set is what it has already; what it would ask is answered."""
    if now is not None:
        monkeypatch.setenv("SEED", now)
    decision = decide(f"import os\n{statement}\nimport torch")

    assert preloaded == ("torch" in decision.modules), decision.why


def test_order_is_that_in_which_ranks_import(decide: Decide) -> None:
    """Of two libraries the one that is loaded first may settle which OpenMP both have."""
    one = decide("import numpy, torch", candidates=("numpy", "torch"))
    other = decide("import torch, numpy", candidates=("numpy", "torch"))

    assert (("numpy", "torch"), ("torch", "numpy")) == (one.modules, other.modules)


# What is looked at, and how much of it


def test_module_of_the_function_is_looked_at_after_the_main_module(decide: Decide) -> None:
    """Ranks import it when the main module has run."""
    found = [
        decide("import json", "work", work="import torch\ndef work(rank): ...").modules,
        decide("import json\nexec('')", "work").modules,
        decide("import json", "sets", sets="import os\nos.environ['A'] = '1'\nimport torch").modules,
    ]

    assert [True, False, False] == ["torch" in modules for modules in found]


@pytest.mark.parametrize("bytes_", [40_000, 300_000, 3_000_000])
def test_long_program_is_looked_at_from_its_beginning(bytes_: int, decide: Decide) -> None:
    """What is slow to import stands there; the rest is not worth the time."""
    line = 'def f(x):\n    """\nimport psutil\n    """\n    return [x]\n'
    source = "import torch\n" + line * (bytes_ // len(line))
    decision = decide(source)

    assert ("torch",) == decision.modules
    assert "train.py is not analysed to its end" in decision.why


def test_slow_module_is_looked_for_in_a_long_program(decide: Decide) -> None:
    """A second for each rank is worth more than milliseconds."""
    line = "def f(x):\n    return [x]\n"
    source = line * (100_000 // len(line)) + "if True:\n    pass\nelse:\n    import json\nimport torch"

    assert "torch" in decide(source).modules


def test_archive_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decide: Decide) -> None:
    """By the source that its loader has."""
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("zipped_work.py", "import torch\ndef work(rank): ...")
        file.writestr("zipped_set.py", "import os\nos.environ['A'] = '1'\nimport torch")
    monkeypatch.syspath_prepend(str(tmp_path / "app.zip"))
    for name in ("zipped_work", "zipped_set"):
        monkeypatch.setitem(sys.modules, name, module_of(name))

    assert [True, False] == ["torch" in decide("", name).modules for name in ("zipped_work", "zipped_set")]


def module_of(name: str) -> ModuleType:
    """A module as if imported, of which nothing was executed."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def test_main_module_that_ranks_do_not_run_is_not_looked_at(decide: Decide, tmp_path: Path) -> None:
    """A package's `__main__`, `-c`, a notebook: the function's module is all that they import."""
    decide("", work="import torch", sets="import os\nos.environ['A'] = '1'")
    found = [
        before_import._Decision(("torch",), name, path, "work").modules
        for name, path in [
            ("pack.__main__", None),
            ("__main__", None),
            (None, None),
            (None, "/usr/bin/ipython"),
        ]
    ]

    assert [("torch",)] * 4 == found


def test_warnings_about_a_program_are_for_who_runs_it(decide: Decide) -> None:
    """An invalid escape is told where the main module is compiled to be run."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        decision = decide("x = '\\d'\nimport torch")
        kept = list(warnings.filters)

    assert ([], True, filters) == (seen, "torch" in decision.modules, kept)


def test_decision_is_made_once_until_a_file_or_the_environment_changes(
    decide: Decide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept knows what it depends on."""
    monkeypatch.setenv("SEED", "1")
    decision = decide("import os, helper\nos.environ['SEED'] = '1'\nimport torch", helper="A = 1")
    holds = [decision.holds()]
    monkeypatch.setenv("DEBUG", "not asked for")
    holds.append(decision.holds())
    monkeypatch.setenv("SEED", "2")
    holds.append(decision.holds())
    monkeypatch.setenv("SEED", "1")
    (tmp_path / "helper.py").write_text("A = 10", encoding="utf-8")
    holds.append(decision.holds())

    assert [True, True, False, False] == holds


# In ranks, beside those of multiprocessing itself

# What the import of a library finds, and in which process it runs.
LIBRARY = """
    import os, sys

    PID = os.getpid()
    FOUND = [os.environ.get("OMP_NUM_THREADS"), type(sys.meta_path[0]).__name__, sys.path[0][-4:]]
"""
PROGRAM = """
    import json, logging, multiprocessing, os, sys
    {before}
    import numpy

    def work(rank, queue):
        queue.put((numpy.FOUND, numpy.PID == os.getpid()))

    if __name__ == "__main__":
        logging.basicConfig(level=logging.DEBUG)
        {after}
        method, impl = sys.argv[1:]
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        if impl == "spawnx":
            import spawnx
            spawnx.start_processes(work, (queue,), 2, start_method=method)
        else:
            ranks = [context.Process(target=work, args=(rank, queue)) for rank in range(2)]
            for rank in ranks:
                rank.start()
            for rank in ranks:
                rank.join()
        print(json.dumps([queue.get() for _ in range(2)]))
"""
FINDER = "class Finder:\n    def find_spec(*_): pass\nsys.meta_path.insert(0, Finder())"
# What comes before the import, what the supervisor does before it spawns, and whether ranks share the import.
ENDS = {
    "nothing": ("", "", True),
    "in ranks": ("if __name__ == '__mp_main__': os.environ['OMP_NUM_THREADS'] = '1'", "", False),
    "in the supervisor": ("if __name__ == '__main__': os.environ['OMP_NUM_THREADS'] = '3'", "", True),
    "set": ("os.environ['OMP_NUM_THREADS'] = '1'", "", True),
    "set, then changed": ("os.environ['OMP_NUM_THREADS'] = '1'", "os.environ['OMP_NUM_THREADS'] = '2'", False),
    "updated, then removed": ("os.environ.update(OMP_NUM_THREADS='1')", "del os.environ['OMP_NUM_THREADS']", False),
    "default": ("os.environ.setdefault('OMP_NUM_THREADS', '1')", "os.environ['OMP_NUM_THREADS'] = '2'", True),
    "default, then removed": (
        "os.environ.setdefault('OMP_NUM_THREADS', '1')",
        "del os.environ['OMP_NUM_THREADS']",
        False,
    ),
    "removed": ("os.environ.pop('OMP_NUM_THREADS', None)", "os.environ['OMP_NUM_THREADS'] = '2'", False),
    "by a module": ("import sets_it", "os.environ['OMP_NUM_THREADS'] = '2'", False),
    "by a function": ("from sets_it import again; again()", "os.environ['OMP_NUM_THREADS'] = '2'", False),
    "finder": (FINDER, "", False),
    "finder in ranks": (f"if __name__ != '__main__':\n{textwrap.indent(FINDER, '    ')}", "sys.meta_path", False),
    "finder of a third party": ("import hooks_it", "", False),
    "path in ranks": ("if __name__ != '__main__': sys.path.insert(0, '/opt')", "", False),
}  # fmt: skip


def run_on_both(
    method: str, folder: Path, library: str, before: str, after: str
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run `PROGRAM` on spawnx and on multiprocessing."""
    source = textwrap.dedent(PROGRAM).replace("{before}", before).replace("{after}", after or "pass")
    sets = "import os\nos.environ['OMP_NUM_THREADS'] = '1'\ndef again(): os.environ['OMP_NUM_THREADS'] = '7'"
    for name, text in [("program", source), ("numpy", library), ("sets_it", sets)]:
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "hooks_it.py").write_text(f"import sys\n{FINDER}", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{installed}", "SPAWNX_BACKEND": "native"}
    environment.pop("OMP_NUM_THREADS", None)
    return {
        impl: subprocess.run(
            [sys.executable, "program.py", method, impl],
            env=environment, capture_output=True, text=True, timeout=LONG_S, check=True, cwd=folder,
        )
        for impl in ("spawnx", "multiprocessing")
    }  # fmt: skip


@pytest.mark.skipif("native" not in backends.available(), reason="clones need the C core")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("name", ENDS)
def test_import_in_ranks_finds_what_it_finds_in_those_of_multiprocessing(
    name: str, method: str, tmp_path: Path
) -> None:
    """Whatever the main module does before it; and where it does nothing, the import is shared."""
    before, after, shared = ENDS[name]
    done = run_on_both(method, tmp_path, textwrap.dedent(LIBRARY), before, after)
    found = {impl: list(zip(*json.loads(ran.stdout), strict=True)) for impl, ran in done.items()}

    assert found["multiprocessing"][0] == found["spawnx"][0]
    assert (not shared,) * 2 == found["spawnx"][1]
    assert shared == ("not preloaded" not in done["spawnx"].stderr), done["spawnx"].stderr
    assert shared or "may make a difference: " in done["spawnx"].stderr


@pytest.mark.skipif("native" not in backends.available(), reason="clones need the C core")
def test_warning_of_an_import_is_printed_once_though_the_main_module_ignores_it(tmp_path: Path) -> None:
    """A difference: the filters of the main module come later than the import in the template."""
    library = f"{textwrap.dedent(LIBRARY)}\nimport warnings\nwarnings.warn('of old age', stacklevel=1)\n"
    ran = run_on_both("spawn", tmp_path, library, "import warnings; warnings.filterwarnings('ignore')", "")

    assert [1, 0] == [ran[impl].stderr.count("of old age\n") for impl in ("spawnx", "multiprocessing")]


# Lazy imports (PEP 810)

LAZY = {
    "used by functions only": ("lazy import numpy\ndef f(): numpy.zeros(3)\nimport json", ("json",)),
    "used by the module": ("lazy import numpy\nimport json\nX = numpy.float32", ("json", "numpy")),
    "a part of it": (
        "lazy from numpy import random\nimport json\nX = random.seed",
        ("json", "numpy", "numpy.random"),
    ),
    "used after a change": (
        "import os, json\nlazy import numpy\nos.environ['OMP_NUM_THREADS'] = '1'\nX = numpy.float32",
        ("json",),
    ),
    "used on a condition": ("import json, sys\nlazy import numpy\nX = sys.argv and numpy.float32", ("json",)),
    "a choice": ("import json, sys\nlazy import numpy\nX = numpy.a if sys.argv else 2", ("json",)),
    "used in a loop": ("import json, sys\nlazy import numpy\nX = [numpy.a for _ in sys.argv]", ("json",)),
    "may be something else": (
        "import json, sys\nlazy import numpy\nif sys.argv:\n numpy = 3\nY = numpy.a",
        ("json",),
    ),
    "of our own, not used": ("lazy import helpers\nimport numpy", ("json", "numpy")),
    "of our own, used before": ("lazy import helpers\nX = helpers.Y\nimport numpy", ("json",)),
    "of our own, on a condition": (
        "import json, sys\nlazy import helpers\nX = sys.argv and helpers.Y\nimport numpy",
        ("json",),
    ),
    "by another name": ("import json\nlazy import numpy as np\nclass A(np.ndarray): pass", ("json", "numpy")),
    "in another module": ("import json\nimport quiet\nX = quiet.np.float32", ("json", "numpy")),
    "out of another module": ("import json\nfrom quiet import np", ("json", "numpy")),
    "all out of another module": ("import json\nfrom quiet import *\nimport numpy", ("json",)),
    "annotation": (
        "import json\nlazy import numpy\ndef f(a: numpy.ndarray): pass\nX: numpy.ndarray = 1",
        ("json",),
    ),
    "as the module asks": ("import json\n__lazy_modules__ = ['numpy']\nimport numpy", ("json",)),
    "as the module asks, and used": (
        "import json\n__lazy_modules__ = ['numpy']\nimport numpy\nX = numpy.float32",
        ("json", "numpy"),
    ),
}


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports are CPython 3.15's")
@pytest.mark.parametrize(("source", "reached"), LAZY.values(), ids=LAZY)
def test_lazy_import_imports_where_its_name_is_used(
    source: str, reached: tuple[str, ...], decide: Decide
) -> None:
    """Not where it stands: what comes before the first use may change what it does."""
    helpers = "import json, os\nos.environ['SEED'] = '1'\nY = 1\n"
    candidates = ("json", "numpy", "numpy.random")
    decided = decide(source, candidates=candidates, helpers=helpers, quiet="lazy import numpy as np\n")

    assert set(reached) == set(decided.modules)

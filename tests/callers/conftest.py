"""What the callers' tests are given: spawnx put into a library, and the library's own leftovers taken away."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import Impl


class Spy:
    """A function that does what `original` does, and notes who served each call.

    It keeps a name and not the result: a context kept alive here would keep its processes' fds open.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.served_by: list[str] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the original and note the top-level package of the result's class."""
        result = self.original(*args, **kwargs)
        self.served_by.append(type(result).__module__.partition(".")[0])
        return result


@pytest.fixture
def put_into(impl: Impl, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], Spy]:
    """Make a library's module, which has done `import torch.multiprocessing as mp`, use `impl` instead.

    With the reference as `impl` nothing changes but the spy: what the tests expect is shown on torch itself.
    """

    def put(module: ModuleType) -> Spy:
        spy = Spy(impl.mp.start_processes)
        monkeypatch.setattr(impl.mp, "start_processes", spy)
        monkeypatch.setattr(module, "mp", impl.mp)
        return spy

    return put


@pytest.fixture(scope="session", autouse=True)
def _long_lived_pipe() -> None:
    """Have libuv open the pipe for signals that it keeps for the life of the process.

    It does so with the first store that torch serves: the test that comes first would seem to leave it behind.
    """
    distributed = pytest.importorskip("torch.distributed")
    distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


@pytest.fixture(autouse=True)
def _caches_elsewhere(_nothing_left: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the compiler's cache, which torch means to outlive us, out of what is checked for leftovers."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))


@pytest.fixture(autouse=True)
def _process_state_as_before() -> Iterator[None]:
    """Undo what these libraries change in the calling process and never put back.

    Elastic replaces the handlers of four signals at each start; Lightning writes `MASTER_PORT` into the
    environment, where the next Trainer would find it and reuse a port that may be taken.
    """
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    environ = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environ)
    for signum, handler in handlers.items():
        # `None` is a handler that was not installed from Python: it can't be put back, nor was it replaced.
        if handler is not None and signal.getsignal(signum) is not handler:
            signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def _own_leftovers_removed(_nothing_left: object, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Take away what these libraries and pytest leave under any launcher, the reference included.

    Asking for `_nothing_left` orders this one's end before that check, which stays as strict for all else.
    """
    yield
    # Elastic logs a failure with its traceback, and pytest keeps the record: its frames hold elastic's
    # objects, those hold the processes, and they hold their sentinels.
    caplog.get_records("call").clear()
    for entry in Path(tempfile.gettempdir()).iterdir():
        # Lightning carries the weights from rank 0 to the caller in a file: it removes the file, and leaves
        # the empty directory that it made for it by `mkdtemp()`.
        if entry.name.startswith("tmp") and entry.is_dir() and not any(entry.iterdir()):
            entry.rmdir()

"""What ends the ranks of a supervisor that was killed where there are no pidfds: a thread in each of them."""

from __future__ import annotations

import os
import select
import shutil
from pathlib import Path

import pytest

from spawnx.remote.rank import LIFELINE
from tests.pypy import open_pidfd
from tests.support import LONG_S, Impl, Program, linux_only

pytestmark = linux_only


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_lifeline_ends_a_rank_whose_supervisor_is_killed(
    start_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ignores signals. Not by "forkserver", which lives as long as its ranks, and they as long as it."""
    monkeypatch.setenv("SPAWNX_BACKEND", "python")
    monkeypatch.setenv("SPAWNX_ORPHAN_GRACE", "0.5")
    with Program(Impl("spawnx"), tmp_path).popen(
        f"""
        import multiprocessing, sys
        from spawnx.backends.python import PythonBackend
        from tests import ranks

        PythonBackend.has_pidfd = lambda self: False
        if __name__ == "__main__":
            gate = ranks.Gate(multiprocessing.get_context({start_method!r}))
            context = mp.start_processes(
                ranks.arrive_and_stay_deaf, (gate,), 2, join=False, start_method={start_method!r}
            )
            gate.wait_for(2)
            print(context.processes[0].supervision.owner.kind, *context.pids(), flush=True)
            context.join()
        """
    ) as supervisor:
        assert supervisor.stdout is not None
        kind, *pids = supervisor.stdout.readline().split()
        pidfds = [open_pidfd(int(pid)) for pid in pids]
        supervisor.kill()
        ended = [select.select([pidfd], [], [], LONG_S)[0] for pidfd in pidfds]
        for pidfd in pidfds:
            os.close(pidfd)
    for folder in Path(os.environ["TMPDIR"]).glob("spawnx-*"):  # a guardian would have removed it
        shutil.rmtree(folder)

    assert LIFELINE == kind
    assert [[pidfd] for pidfd in pidfds] == ended

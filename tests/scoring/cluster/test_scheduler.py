"""A scheduler of its own, as people start it, that is killed while a run is under way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_by_one import MemoryCache

pytest.importorskip("distributed")
sys.path.insert(0, str(Path(__file__).parent))
from functools import partial

import faulty
from test_cluster import SETTINGS, Run, assert_same_bits

from delift_cli.errors import RunError
from delift_cli.scoring.cluster import connect


class Daemons:
    """A scheduler on a port that stays the same, and a worker of it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        host, port = self.address.removeprefix("tcp://").split(":")
        scheduler = ("scheduler", "--host", host, "--port", port, "--no-dashboard")
        worker = ("worker", self.address, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--no-nanny")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        for arguments in (scheduler, worker):
            command = [sys.executable, "-m", "dask", *arguments]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._processes.append(subprocess.Popen(command, env=environment, **quiet))  # type: ignore[call-overload]

    def kill(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._processes.clear()


@pytest.fixture
def daemons() -> Iterator[Daemons]:
    made = Daemons()
    made.start()
    yield made
    made.kill()


@pytest.mark.parametrize("restarted", [True, False])
def test_a_scheduler_that_is_killed(
    restarted: bool, daemons: Daemons, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back on its port with a worker, the run goes on; if it stays away, the run ends and keeps what it has."""
    run = Run(tiny_model())
    if not restarted:
        monkeypatch.setattr("delift_cli.scoring.cluster.addresses.CONNECT_SECONDS", 6.0)
    cache, killed = MemoryCache(*run.block.shape), []

    def kill(rows: int) -> None:
        if not killed:
            killed.append(rows)
            daemons.kill()
            if restarted:
                daemons.start()

    # slow from the check pairs on: no worker is thought fast enough to be sent all units at once
    opening = partial(faulty.opening, faults={"*": "quarter"}, checked=0)
    with connect(daemons.address) as connection, run.on(connection, opening=opening) as scoring:
        if restarted:
            run.all_pairs(scoring, cache, kill)
        else:
            with pytest.raises(RunError, match=r"the dask scheduler is gone.*goes on from there"):
                run.all_pairs(scoring, cache, kill)
    expected = run.block.score(SETTINGS)
    assert killed
    if restarted:
        assert_same_bits(cache, expected)
        assert sorted(cache.written) == list(range(len(expected.distance)))
    else:
        done = sorted(cache.written)
        assert 0 < len(done) < len(expected.distance)
        assert cache.distance[done].tobytes() == expected.distance[done].tobytes()

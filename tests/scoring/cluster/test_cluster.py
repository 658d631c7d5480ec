"""Two worker processes of this machine, killed, stopped and spoiled: the same bytes as from this process alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one import TEXTS, Block, MemoryCache, pool

pytest.importorskip("distributed")
sys.path.insert(0, str(Path(__file__).parent))  # the workers import what is wrong with them from here
import faulty
import gguf_models as g

from delift_cli.errors import InputError, RunError
from delift_cli.model.adapter import read_adapters
from delift_cli.model.llama import Settings
from delift_cli.scoring.cluster import ClusterScoring, at_work_on, connect, dispatch
from delift_cli.scoring.cluster.content import content_of
from delift_cli.scoring.job import Engine, Inputs
from delift_cli.scoring.pairs import TargetTokens, Unit

SETTINGS = Settings(threads=1, batch=64)
SLOW_SECONDS = faulty.SLOW_SECONDS


class Run:
    """A block of the tiny model, how it is scored here and on a cluster."""

    def __init__(self, path: Path) -> None:
        records = pool([(f"{prompt} {at}", response) for at in range(2) for prompt, response in TEXTS])
        self.block = Block(path, records)
        self.inputs = Inputs(records, None, self.block.examples, self.block.targets)
        self.said: list[str] = []
        self.kinds: dict[str, float] = {}
        self.began = 0.0  # when the last run came to its pairs, s

    @contextmanager
    def on(self, connection: Any, settings: Settings = SETTINGS, **changes: Any) -> Iterator[ClusterScoring]:
        file = self.block.file
        with at_work_on(
            connection.client,
            file,
            file.identity()["sha256"],
            Engine(file, "as-is", None, settings),
            self.inputs,
            TargetTokens(self.block.targets),
            threads=1,
            took_part=self.kinds.__setitem__,
            say=self.said.append,
            **changes,
        ) as scoring:
            yield scoring

    def all_pairs(self, scoring: ClusterScoring, cache: MemoryCache, at: Callable[[int], None] | None = None) -> None:
        for _ in scoring.base(cache):  # type: ignore[arg-type]
            pass
        m = cache.distance.shape[1]
        rows = np.flatnonzero(cache.rows["done"] < m).tolist()
        self.began = time.monotonic()
        units = (Unit(row, np.arange(m)) for row in rows)
        for work in scoring.units(units, lambda unit, measured: cache.write_row(unit.example, *measured)):
            if at:
                at(work.rows)


@pytest.fixture(scope="module")
def run(tiny_model: Callable[..., Path]) -> Run:
    return Run(tiny_model())


@pytest.fixture(scope="module")
def expected(run: Run) -> MemoryCache:
    return run.block.score(SETTINGS)


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    with connect("local:2") as connection:
        yield connection


def assert_same_bits(given: MemoryCache, expected: MemoryCache) -> None:
    for one, other in zip(given.arrays(), expected.arrays(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_two_processes_give_the_same_bytes(run: Run, two: Any, expected: MemoryCache) -> None:
    cache = MemoryCache(*run.block.shape)
    with run.on(two) as scoring:
        run.all_pairs(scoring, cache)
        work = scoring.work
    assert_same_bits(cache, expected)
    assert sorted(cache.written) == list(range(len(cache.distance)))
    assert work.pairs == cache.distance.size
    assert work.rows == len(cache.distance)
    assert work.tokens > 0
    assert list(run.kinds.values()) == [0.0]


KILLS = int(os.environ.get("DELIFT_TEST_KILLS", "2"))  # runs, each with a worker that dies


def test_a_worker_killed_at_a_random_unit(run: Run, two: Any, expected: MemoryCache) -> None:
    rng = random.Random(20)
    for _ in range(KILLS):
        cache = MemoryCache(*run.block.shape)
        dies_at = rng.randrange(1, len(cache.distance) - 8)
        killed: list[int] = []

        def kill(rows: int, dies_at: int = dies_at, killed: list[int] = killed) -> None:
            if rows >= dies_at and not killed:
                killed.append(rng.choice(sorted(two.client.run(os.getpid, on_error="ignore").values())))
                os.kill(killed[0], signal.SIGKILL)

        with run.on(two, opening=partial(faulty.opening, faults={"*": "brief"})) as scoring:
            run.all_pairs(scoring, cache, kill)
            assert killed
            assert scoring.work.pairs == cache.distance.size
        assert_same_bits(cache, expected)
        assert sorted(cache.written) == list(range(len(cache.distance)))


def score_with(run: Run, two: Any, faults: dict[str, str], at: Callable[[int], None] | None = None) -> MemoryCache:
    """All pairs by both workers, of which some have a fault."""
    cache = MemoryCache(*run.block.shape)
    run.said.clear()
    two.client.wait_for_workers(2, timeout=60)
    with run.on(two, opening=partial(faulty.opening, faults=faults)) as scoring:
        scoring.wait_for(2)
        run.all_pairs(scoring, cache, at)
    return cache


def test_a_worker_that_gives_nan_is_put_aside(run: Run, two: Any, expected: MemoryCache) -> None:
    assert_same_bits(score_with(run, two, {"0": "nan", "1": "brief"}), expected)
    assert any("worker 0" in line and "left out" in line for line in run.said)


def test_a_worker_with_other_numbers_is_refused_by_name(run: Run, two: Any, expected: MemoryCache) -> None:
    cache = MemoryCache(*run.block.shape)
    run.said.clear()
    opening = partial(faulty.opening, faults={"0": "other numbers"}, checked=0)
    with run.on(two, opening=opening) as scoring:
        scoring.wait_for(1)
        run.all_pairs(scoring, cache)
    assert_same_bits(cache, expected)
    (refused,) = (line for line in run.said if "refused" in line)
    assert "worker 0 on" in refused
    assert "0.0500" in refused


def test_when_all_workers_are_refused_the_run_ends(run: Run, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delift_cli.scoring.cluster.scoring.WAITING_SECONDS", 1.0)
    opening = partial(faulty.opening, faults={"*": "other numbers"}, checked=0)
    with run.on(two, opening=opening) as scoring, pytest.raises(RunError, match="no worker is left; worker"):
        run.all_pairs(scoring, MemoryCache(*run.block.shape))


NONE_COMES = r"no process of this machine has come to work for \d+ seconds, [1-9]\d* died"


def test_when_no_process_can_be_started_again_the_run_ends(
    run: Run, expected: MemoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delift_cli.scoring.cluster.scoring.WAITING_SECONDS", 0.5)
    cache = MemoryCache(*run.block.shape)
    with connect("local:1") as one:
        (nanny,) = one.client.cluster.workers.values()

        def kill(rows: int) -> None:
            if nanny.instantiate is not None:
                monkeypatch.setattr(nanny, "instantiate", None)
                os.kill(nanny.pid, signal.SIGKILL)

        opening = partial(faulty.opening, faults={"*": "quarter"}, checked=0)
        with run.on(one, patience=2.0, opening=opening) as scoring, pytest.raises(RunError, match=NONE_COMES):
            run.all_pairs(scoring, cache, kill)
    scored = ~np.isnan(cache.distance).any(axis=1)
    assert scored.any()
    assert (cache.distance[scored] == expected.distance[scored]).all()


def test_when_one_process_after_the_other_dies_the_run_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delift_cli.scoring.cluster.scoring.WAITING_SECONDS", 0.5)
    monkeypatch.setattr("delift_cli.scoring.cluster.scoring.HOPELESS", 1)
    opening = partial(faulty.opening, faults={"*": "dies"}, checked=0)
    with (
        connect("local:1") as one,
        run.on(one, patience=2.0, opening=opening) as scoring,
        pytest.raises(RunError, match=NONE_COMES),
    ):
        run.all_pairs(scoring, MemoryCache(*run.block.shape))


def test_a_script_without_a_guard_gets_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('from delift_cli.scoring.cluster import connect\nwith connect("local:2"):\n    pass\n')
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert "must do so under if __name__" in ended.stderr.splitlines()[-1]
    assert ended.stderr.count("Traceback") == 1


def test_a_unit_that_fails_everywhere_stops_the_run_with_its_reason(run: Run, two: Any) -> None:
    cache = MemoryCache(*run.block.shape)
    opening = partial(faulty.opening, faults={"*": "one unit"})
    with run.on(two, opening=opening) as scoring, pytest.raises(RunError, match=r"example 8 failed 3 times.*a number"):
        run.all_pairs(scoring, cache)
    assert cache.written
    assert np.isnan(cache.distance[7]).all()


def test_a_worker_that_hangs(run: Run, two: Any, expected: MemoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SLACK", 0.5)
    stopped: list[int] = []

    def stop(rows: int) -> None:
        if rows >= 5 and not stopped:
            stopped.append(two.client.run(os.getpid)[min(two.client.scheduler_info()["workers"])])
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        assert_same_bits(score_with(run, two, {"*": "brief"}, stop), expected)
        assert stopped
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):  # its nanny may have ended it
                os.kill(pid, signal.SIGCONT)


def test_a_slow_worker_does_not_hold_the_others_back(run: Run, two: Any, expected: MemoryCache) -> None:
    came: list[float] = []  # several units may come in one step, even all
    assert_same_bits(score_with(run, two, {"0": "slow"}, lambda rows: came.append(time.monotonic())), expected)
    assert came[-1] - run.began < SLOW_SECONDS  # of one unit, and the slow worker has one to begin with


def test_a_model_and_an_adapter_that_are_not_there_are_sent(
    run: Run, expected: MemoryCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = g.write_adapter(tmp_path / "mine.gguf", g.lora())
    settings = replace(SETTINGS, adapters=read_adapters([f"{adapter}:0.5"], run.block.file))
    there = tmp_path / "there"
    monkeypatch.setenv("DELIFT_CACHE", str(there))
    monkeypatch.setenv("DELIFT_MODEL", "/nowhere.gguf")
    monkeypatch.setattr(
        "delift_cli.scoring.cluster.scoring.content_of",
        lambda path, sha256: content_of(path, sha256)._replace(path=f"/nowhere/{path.name}"),
    )
    cache = MemoryCache(*run.block.shape)
    with connect("local:1") as one, run.on(one, settings) as scoring:
        run.all_pairs(scoring, cache)
    assert_same_bits(cache, run.block.score(settings))
    assert np.abs(cache.distance - expected.distance).max() > 1e-3
    sent = {file.read_bytes() for file in there.glob("*-received.gguf")}
    assert sent == {run.block.file.path.read_bytes(), adapter.read_bytes()}
    assert not [*there.glob("*.part"), *there.glob("*.arriving")]


@pytest.mark.parametrize("where", ["local:0", "local:x", "nowhere", "tcp://no-port", "local:"])
def test_addresses_that_are_none(where: str) -> None:
    with pytest.raises(InputError, match="--cluster"), connect(where):
        pass


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delift_cli.scoring.cluster.addresses.CONNECT_SECONDS", 0.2)
    with pytest.raises(RunError, match="no dask scheduler answers"), connect("tcp://127.0.0.1:9"):
        pass

"""Two worker processes of this machine, killed, stopped and spoiled: the same bytes as from this process alone."""

from __future__ import annotations

import os
import random
import sys
import time
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one import TEXTS, Block, MemoryCache, pool

pytest.importorskip("distributed")
sys.path.insert(0, str(Path(__file__).parent))  # the workers import what is wrong with them from here
import faulty

from delift_cli.errors import InputError, RunError
from delift_cli.model.llama import Settings
from delift_cli.scoring.cluster import ClusterScoring, at_work_on, connect, dispatch
from delift_cli.scoring.job import Engine, Inputs
from delift_cli.scoring.pairs import TargetTokens, Unit

SETTINGS = Settings(threads=1, batch=64)


class Run:
    """A block of the tiny model, how it is scored here and on a cluster."""

    def __init__(self, path: Path) -> None:
        records = pool([(f"{prompt} {at}", response) for at in range(4) for prompt, response in TEXTS])
        self.block = Block(path, records)
        self.inputs = Inputs(records, None, self.block.examples, self.block.targets)
        self.said: list[str] = []
        self.kinds: dict[str, float] = {}

    @contextmanager
    def on(self, connection: Any, **changes: Any) -> Iterator[ClusterScoring]:
        file = self.block.file
        with at_work_on(
            connection.client,
            file,
            file.identity()["sha256"],
            Engine(file, "as-is", None, SETTINGS),
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


def test_a_worker_killed_at_a_random_unit(run: Run, two: Any, expected: MemoryCache) -> None:
    rng = random.Random(20)
    for _ in range(10):
        cache = MemoryCache(*run.block.shape)
        dies_at = rng.randrange(1, len(cache.distance) - 5)

        def kill(rows: int, dies_at: int = dies_at) -> None:
            if rows == dies_at:
                pids = two.client.run(os.getpid, on_error="ignore")
                os.kill(rng.choice(sorted(pids.values())), signal.SIGKILL)

        with run.on(two, opening=partial(faulty.opening, faults={"*": "brief"})) as scoring:
            run.all_pairs(scoring, cache, kill)
            assert scoring.work.pairs == cache.distance.size
        assert_same_bits(cache, expected)
        assert sorted(cache.written) == list(range(len(cache.distance)))


def test_a_slow_worker_does_not_hold_the_others_back(run: Run, two: Any, expected: MemoryCache) -> None:
    cache = MemoryCache(*run.block.shape)
    two.client.wait_for_workers(2, timeout=30)
    with run.on(two, opening=partial(faulty.opening, faults={"0": "slow", "1": "brief"})) as scoring:
        while len(scoring.crew.members) < 2:
            scoring.crew.wait(0.1)
        started = time.monotonic()
        run.all_pairs(scoring, cache)
        assert time.monotonic() - started < 2.5  # one unit of the slow one takes 3 s
    assert_same_bits(cache, expected)

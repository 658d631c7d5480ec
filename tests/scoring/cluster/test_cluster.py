"""Two worker processes of this machine, killed, stopped and spoiled: the same bytes as from this process alone."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one import TEXTS, Block, MemoryCache, pool

pytest.importorskip("distributed")

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

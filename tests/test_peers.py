"""Ways to choose that the evidence compares with, and the tenths of a pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evidence import deciles, peers, report
from tests.evidence.matrices import Matrix


@pytest.fixture
def matrix() -> Matrix:
    euclidean = np.array([[0.5, -0.3], [0.1, 0.2], [0.4, -0.1], [0.0, 0.0]])
    return Matrix(list("abcd"), ["t", "u"], euclidean, 2 * euclidean, np.ones(2), np.ones(2))


def test_each_target_takes_its_nearest_in_turn() -> None:
    targets = np.array([[1.0, 0.0], [0.0, 3.0]])
    pool = np.array([[9.0, 1.0], [5.0, 1.0], [1.0, 5.0], [1.0, 1.0]])
    assert peers.by_states(pool, targets, 3) == [0, 2, 1]
    assert peers.by_states(pool, targets[:1], 3) == [0, 1, 3]
    assert sorted(peers.by_states(pool, targets, 9)) == [0, 1, 2, 3]


def test_influence_is_the_mean_over_the_targets(matrix: Matrix) -> None:
    assert peers.by_influence(matrix, 3) == ["b", "c", "a"]  # of 0.1 and 0.1 the first


def test_a_curve_is_followed_greedily(matrix: Matrix) -> None:
    assert peers.by_curve(matrix, "euclidean: best", 2) == ["a", "b"]


def test_chance_stops_at_the_tokens_of_another_choice() -> None:
    lengths = {f"r{at}": 1 + at % 7 for at in range(100)}
    like = [f"r{at}" for at in range(30)]
    wanted = sum(lengths[name] for name in like)
    choices = [peers.by_tokens(lengths, like, seed) for seed in range(20)]
    assert all(abs(sum(lengths[name] for name in chosen) - wanted) <= 3.5 for chosen in choices)
    assert len({tuple(chosen) for chosen in choices}) == 20
    assert all(len(set(chosen)) == len(chosen) for chosen in choices)


def test_tenths_go_up() -> None:
    rng = np.random.default_rng(0)
    utility = rng.normal(size=(47, 5))
    found = deciles.tenths(Matrix([], [], utility, utility, np.ones(5), np.ones(5)))
    assert sorted(place for part in found for place in part) == list(range(47))
    means = [utility[part].mean() for part in found]
    assert means == sorted(means)


def test_the_table_of_tenths() -> None:
    def line(tenth: int, loss: float) -> dict[str, Any]:
        tested = {"loss": [loss, 8 * loss], "tokens": [1, 4]}
        return {"pool": "p", "tenth": tenth, "utility": 0.1 * tenth, "tokens": 1000, "heldout": tested}

    found = list(deciles.table([line(1, 0.5), line(0, 1.0), line(2, 0.25)]))
    assert found[2] == "| 1 | +0.000 | 1,000 | 1.500 | 1.800 |"
    assert found[5] == "| rank correlation with the utility | | +nan | -1.00 | -1.00 |\n"


def test_informed_choices_are_judged_by_what_they_saw_and_by_the_rest() -> None:
    tested = {"loss": [1.0] * peers.SEEN + [3.0] * 20, "tokens": [1] * 70, "exact": [True] * 70, "tasks": ["t"] * 70}
    lines = [
        {
            "stage": "informed", "pool": "p3", "method": method, "size": "30%", "measured": {"heldout": tested},
        }
        for method in ("random", "rds")
    ]  # fmt: skip
    found = {place.test: rows for place, rows in report.tables(lines).items()}
    assert [found[test][1].by_token.loss for test in report.TESTS["informed"]] == [1.0, 3.0]

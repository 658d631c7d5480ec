"""The datamodel: curves as they are defined, figures that are of what was not learnt from, and the oracle's greedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evidence import datamodel
from tests.evidence.matrices import Matrix, load_matrix, save_matrix
from tests.evidence.offers import offers

N, TARGETS = 40, 12


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    rng = np.random.default_rng(0)
    utility = rng.normal(0.1, 0.3, (N, TARGETS)).clip(-1, 0.9)
    names = [f"r{at}" for at in range(N)], [f"t{at}" for at in range(TARGETS)]
    return Matrix(*names, utility, 3 * utility, rng.uniform(2, 5, TARGETS), rng.integers(2, 9, TARGETS).astype(float))


def line(matrix: Matrix, method: str, size: str, chosen: list[int], seed: int, fall: float) -> dict[str, Any]:
    """A run in which the best utility alone lowers the loss, `fall` nats for each 1."""
    best = matrix.euclidean[chosen].max(axis=0) if chosen else np.zeros(TARGETS)
    tested = {"loss": ((matrix.base_loss - fall * best) * matrix.tokens).tolist(), "tokens": matrix.tokens.tolist()}
    return {
        "name": f"{method}/{size}/{seed}", "pool": "p", "stage": "instruction", "method": method, "size": size,
        "training_seed": seed,
        "chosen": [matrix.examples[at] for at in chosen], "measured": {"heldout": tested},
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(matrix: Matrix) -> list[datamodel.Trained]:
    rng = np.random.default_rng(1)
    lines = [line(matrix, "nothing", "0%", [], 0, 2.0)]
    for size, k in (("10%", 4), ("30%", 12)):
        for seed in range(8):
            method = "random" if seed < 4 else f"m{seed}"
            lines.append(line(matrix, method, size, rng.choice(N, k, replace=False).tolist(), seed, 2.0))
    return datamodel.trained(lines, "p", matrix)


def test_stages_that_differ_in_more_than_the_subset_are_left_out(matrix: Matrix) -> None:
    plain = [line(matrix, "nothing", "0%", [], 0, 2.0), line(matrix, "random", "30%", [0, 1], 0, 2.0)]
    many = [{**line(matrix, "random", "30%", [at, 3], at, 1.0), "stage": "chance"} for at in range(3)]
    many = [{**each, "name": f"chance/{each['name']}"} for each in many]
    many[0]["measured"]["same_as"] = plain[1]["name"]
    longer = [{**line(matrix, "random", "30%", [5, 6], 0, 9.0), "stage": "as-long"}]
    nothing = [{**plain[0], "name": "chance/nothing", "stage": "chance"}]
    results = [*plain, *many, *longer, *nothing]
    assert [run.places for run in datamodel.trained(results, "p", matrix)] == [[0, 1]]
    assert [run.places for run in datamodel.trained(results, "p", matrix, chance=True)] == [[0, 3], [1, 3], [2, 3]]


def test_curves() -> None:
    chosen = np.array([[0.5], [-0.2], [0.3], [0.1]])
    found = {name: float(values[0]) for name, values in offers(chosen, np.vstack([chosen] * 2), pmi=False).items()}
    assert found["best"] == pytest.approx(0.5)
    assert found["second"] == pytest.approx(0.3)
    assert found["sum (p = 1)"] == pytest.approx(0.9)
    assert found["sum, below 0 too"] == pytest.approx(0.7)
    assert found["sum of the harmful"] == pytest.approx(-0.2)
    assert found["top 3: 1, 1/2, …"] == pytest.approx(0.5 + 0.3 / 2 + 0.1 / 3)
    assert found["lp, p = 2"] == pytest.approx(0.35**0.5)
    assert found["noisy-or, beta = 1"] == pytest.approx(1 - 0.5 * 0.7 * 0.9)
    assert found["saturated, 0.3"] == pytest.approx(0.3 * 1.8)
    of_nats = offers(chosen, chosen, pmi=True)
    assert float(of_nats["noisy-or, beta = 1"][0]) == pytest.approx(1 - np.exp(-0.9))


def test_what_the_runs_were_made_by_explains_them(matrix: Matrix, runs: list[datamodel.Trained]) -> None:
    data = datamodel.cells([(matrix, runs)])
    found = datamodel.judge(data, "", ["euclidean: best, below 0 too"], ["size", "subset"])
    assert found.over > 0.999
    assert found.runs > 0.999
    assert found.over_rank > 0.999
    other = datamodel.judge(data, "", ["euclidean: share of the harmful"], ["size", "subset"])
    assert other.over < 0.5 < found.over
    without = datamodel.judge(data, "", [], ["size", "subset"])
    assert without.nothing["size"] < found.nothing["size"]


def test_chance_explains_nothing(matrix: Matrix, runs: list[datamodel.Trained]) -> None:
    """R2 is of what was not learnt from: figures that mean nothing are worse than none."""
    rng = np.random.default_rng(2)
    noise = [run._replace(fall=rng.normal(size=TARGETS)) for run in runs]
    data = datamodel.cells([(matrix, noise)])
    assert datamodel.judge(data, "", ["euclidean: best"], ["subset"]).over < 0.05


def test_training_seeds_of_one_subset_count_as_one(matrix: Matrix) -> None:
    lines = [line(matrix, "nothing", "0%", [], 0, 2.0)]
    lines += [line(matrix, "fl", "10%", [3, 1, 2], seed, fall) for seed, fall in ((0, 1.0), (1, 3.0))]
    (run,) = datamodel.trained(lines, "p", matrix)
    assert run.places == [1, 2, 3]
    np.testing.assert_allclose(run.fall, 2.0 * matrix.euclidean[1:4].max(axis=0))


def test_oracle_chooses_by_the_tested(matrix: Matrix, runs: list[datamodel.Trained]) -> None:
    data = datamodel.cells([(matrix, runs)])
    found = datamodel.oracle(data, matrix, runs, "euclidean: best", "10%")
    assert len(set(found.places)) == 4
    first = np.maximum(matrix.euclidean, 0).mean(axis=1).argmax()
    assert found.places[0] == first
    best = np.maximum(matrix.euclidean[found.places].max(axis=0), 0).mean()
    drawn = np.random.default_rng(3)
    others = [np.maximum(matrix.euclidean[drawn.choice(N, 4, replace=False)].max(axis=0), 0).mean() for _ in range(50)]
    assert best > max(others)
    assert found.fall > 0


def test_a_kept_matrix_is_read_back(matrix: Matrix, tmp_path: Path) -> None:
    save_matrix(matrix, tmp_path / "m.npz")
    again = load_matrix(tmp_path / "m.npz")
    assert again.examples == matrix.examples
    np.testing.assert_allclose(again.euclidean, matrix.euclidean, atol=1e-3)
    np.testing.assert_array_equal(again.tokens, matrix.tokens)

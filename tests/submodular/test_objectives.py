"""Objectives: values equal their formulas, and are monotone submodular."""

from __future__ import annotations

import numpy as np
import pytest
from small_blocks import E, N, T, blocks, both

from delift_cli.errors import InputError
from delift_cli.submodular.constraints import Constraints, make_rules
from delift_cli.submodular.greedy import gains_given, greedy, initial_gains
from delift_cli.submodular.kernel import dense_kernel
from delift_cli.submodular.objectives import NAMES, aggregate, make_objective, target_gains, value


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_formula(name):
    pool, others = blocks(name)
    objective, f = both(name, pool, others, eta=0.7, nu=0.6, alpha=0.2)
    rng = np.random.default_rng(1)
    for size in (0, 1, 5, N):
        subset = rng.permutation(N)[:size]
        assert value(objective, subset) == pytest.approx(f(subset.tolist()), rel=1e-9, abs=1e-12)
    assert value(objective) == pytest.approx(f(list(range(N))), rel=1e-9)
    parts = target_gains(objective, aggregate(objective, [1, 2]))
    assert parts.shape == objective.start.shape
    assert (parts >= 0).all()


@pytest.mark.parametrize("name", ["sqrt", "log1p", "saturated"])
def test_sums_towards_a_target_set_and_given_existing_data(name):
    rng = np.random.default_rng(2)
    target, existing = dense_kernel(rng.random((N, T))), dense_kernel(rng.random((E, T)) / 9)
    objective, f = both(name, None, {"target": target, "existing": existing}, eta=0.5, nu=0.8)
    for subset in ([3], [1, 4, 20], list(range(N))):
        assert value(objective, subset) == pytest.approx(f(subset), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gains_are_differences_of_values_and_only_fall(name):
    pool, others = blocks(name, seed=3)
    objective = make_objective(name, pool, **others)
    singles = initial_gains(objective)
    np.testing.assert_allclose(singles, [value(objective, [j]) for j in range(N)], rtol=1e-9, atol=1e-12)
    previous = singles
    for k in (1, 4, 9):
        run = greedy(objective, make_rules(Constraints(k), N), singles)
        now = gains_given(objective, run.coverage)
        subset = run.indices.tolist()
        differences = [value(objective, [*subset, j]) - value(objective, subset) for j in range(N)]
        outside = np.setdiff1d(np.arange(N), subset)
        np.testing.assert_allclose(now[outside], np.array(differences)[outside], rtol=1e-7, atol=1e-10)
        assert (now >= 0).all()
        assert (now <= previous + 1e-12).all()
        previous = now


def test_long_rows_of_logarithms():
    s = np.random.default_rng(4).random((3, 5000)) * 50
    objective = make_objective("log1p", dense_kernel(s))
    np.testing.assert_allclose(initial_gains(objective), np.log1p(s).sum(axis=1), rtol=1e-12)


def test_blocks_that_are_missing_unused_or_do_not_fit_are_refused():
    pool, wide, tall = (dense_kernel(np.ones(shape)) for shape in ((4, 4), (2, 4), (4, 2)))
    for name, given in [
        ("facility", {}),
        ("flmi", {}),
        ("flcg", {}),
        ("fl", {"target": tall}),
        ("flcg", {"target": tall, "existing": wide}),
        ("flmi", {"target": wide}),
        ("fl1mi", {"target": tall}),
        ("flcg", {"existing": tall}),
        ("flmi", {"target": tall, "eta": -1.0}),
        ("saturated", {"alpha": 0.0}),
    ]:
        with pytest.raises(InputError):
            make_objective(name, pool, **given)
    with pytest.raises(InputError):
        make_objective("fl", None)

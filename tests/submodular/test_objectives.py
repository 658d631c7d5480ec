"""Objectives: values equal their formulas, and are monotone submodular."""

from __future__ import annotations

import numpy as np
import plain_greedy
import pytest
from small_blocks import E, N, T, blocks, both

from delift_cli.errors import InputError
from delift_cli.submodular.constraints import Constraints, make_rules
from delift_cli.submodular.greedy import gains_given, greedy, initial_gains
from delift_cli.submodular.kernel import dense_kernel
from delift_cli.submodular.objectives import NAMES, SUMS, aggregate_of, make_objective, target_gains, value
from delift_cli.submodular.sweeps import similarities


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_formula(name):
    pool, others = blocks(name)
    objective, f = both(name, pool, others, eta=0.7, nu=0.6, alpha=0.2)
    rng = np.random.default_rng(1)
    for size in (0, 1, 5, N):
        subset = rng.permutation(N)[:size]
        assert value(objective, subset) == pytest.approx(f(subset.tolist()), rel=1e-9, abs=1e-12)
    assert value(objective) == pytest.approx(f(list(range(N))), rel=1e-9)
    parts = target_gains(objective, aggregate_of(objective, [1, 2]))
    assert parts.shape == objective.start.shape[-1:]
    assert (parts >= 0).all()


@pytest.mark.parametrize("name", SUMS)
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


PARAMETERS = [("lp", {"p": p}) for p in (1.0, 2.0, 3.5, 64.0)]
PARAMETERS += [("noisyor", {"beta": beta}) for beta in (0.3, 1.0, 4.0)]
PARAMETERS += [("topm", {"depth": depth}) for depth in (1, 2, 5, 40)]


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_curves_with_a_parameter_are_monotone_with_diminishing_returns(name, parameter):
    """Every subset of 7 records, every record beyond it, against every larger subset: by the values themselves."""
    rng = np.random.default_rng(5)
    s = rng.random((7, 4)) * (rng.random((7, 4)) < 0.7) * rng.choice([0.05, 0.5, 1.1], (7, 1))
    objective = make_objective(name, dense_kernel(s), **parameter)
    f = plain_greedy.formula(name, s, eta=0.0, **parameter)
    values = np.array([value(objective, [j for j in range(7) if code >> j & 1]) for code in range(128)])
    np.testing.assert_allclose(values, [f([j for j in range(7) if code >> j & 1]) for code in range(128)], atol=1e-12)
    gains = np.array([[values[code | 1 << j] - values[code] for j in range(7)] for code in range(128)])
    assert gains.min() > -1e-12
    for code in range(128):
        for larger in range(128):
            if code & larger == code:
                outside = [j for j in range(7) if not larger >> j & 1]
                assert (gains[code, outside] >= gains[larger, outside] - 1e-12).all()


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_the_greedy_of_curves_with_a_parameter(name, parameter):
    pool, _ = blocks(name, seed=6)
    existing = dense_kernel(np.random.default_rng(7).random((E, N)) / 4)
    objective, f = both(name, pool, {"existing": existing}, **parameter, eta=0.0, nu=0.7)
    run = greedy(objective, make_rules(Constraints(N), N), initial_gains(objective))
    indices, gains = plain_greedy.plain_greedy(f, N, N)
    assert run.indices[: len(indices)].tolist() == indices
    np.testing.assert_allclose(run.gains[: len(indices)], gains, rtol=1e-6)


def test_the_ends_of_the_new_curves_are_old_ones():
    pool, _ = blocks("fl")
    best = [value(make_objective("fl", pool), subset) for subset in ([3], [4, 7, 9])]
    for name, parameter in (("topm", {"depth": 1}), ("lp", {"p": 64.0})):
        objective = make_objective(name, pool, **parameter)
        assert [value(objective, subset) for subset in ([3], [4, 7, 9])] == pytest.approx(best, rel=0.01)
    added = make_objective("lp", pool, p=1.0)
    assert value(added, [4, 7]) == pytest.approx(value(added, [4]) + value(added, [7]))


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_is_so_many_targets(name):
    pool, others = blocks(name, seed=8)
    rng = np.random.default_rng(9)
    swept = others["target"] if name == "flvmi" else pool
    times = rng.integers(1, 4, swept.offset.size)
    bonus = rng.random(N) * 3

    def repeated(block):
        s = similarities(block)
        return dense_kernel(np.repeat(s, times, axis=1) if s.shape[1] == times.size else s)

    one_by_one = {role: similarities(repeated(block)) for role, block in others.items()}
    f = plain_greedy.formula(name, similarities(repeated(pool)), **one_by_one, eta=0.6, nu=0.5)
    objective = make_objective(name, pool, **others, eta=0.6, nu=0.5, weight=times, bonus=bonus)
    for subset in ([], [2], [1, 4, 20], list(range(N))):
        assert value(objective, subset) == pytest.approx(f(subset) + bonus[subset].sum(), rel=1e-9, abs=1e-12)
    run = greedy(objective, make_rules(Constraints(N), N), initial_gains(objective))
    indices, gains = plain_greedy.plain_greedy(lambda A: f(A) + bonus[A].sum(), N, N)
    assert run.indices.tolist() == indices
    np.testing.assert_allclose(run.gains, gains, rtol=1e-6)


def test_weights_and_bonuses_that_do_not_fit_are_refused():
    pool, _ = blocks("fl")
    for given in (
        {"weight": np.ones(N - 1)},
        {"weight": -np.ones(N)},
        {"weight": np.full(N, np.inf)},
        {"bonus": np.ones(N + 1)},
        {"bonus": np.full(N, -1e-9)},
        {"bonus": np.full(N, np.nan)},
    ):
        with pytest.raises(InputError):
            make_objective("fl", pool, **given)


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
        ("lp", {"p": 0.5}),
        ("lp", {"p": 65.0}),
        ("noisyor", {"beta": 0.0}),
        ("noisyor", {"beta": np.inf}),
        ("flmi", {"target": tall, "eta": np.nan}),
        ("flcg", {"existing": wide, "nu": np.nan}),
        ("flcg", {"existing": wide, "nu": np.inf}),
        ("topm", {"depth": 0}),
    ]:
        with pytest.raises(InputError):
            make_objective(name, pool, **given)
    with pytest.raises(InputError):
        make_objective("fl", None)

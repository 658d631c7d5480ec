"""Explanations: small cases that can be read off the matrix."""

from __future__ import annotations

import numpy as np
import pytest
from small_blocks import N, blocks, both

from delift_cli.errors import InputError
from delift_cli.submodular.explain import coverers, explain_chosen, explain_left_out, harmed, lost_without
from delift_cli.submodular.kernel import dense_kernel, utility_kernel
from delift_cli.submodular.objectives import NAMES, fl, topm, value, weighted, with_bonus

S = np.array(
    [
        [0.9, 0.1, 0.0, 0.5],
        [0.2, 0.8, 0.0, 0.4],
        [0.5, 0.3, 0.0, 0.5],
        [0.0, 0.0, 0.0, 0.7],
    ]
)


def test_best_and_second_best():
    who = coverers(dense_kernel(S), [0, 1, 2])
    assert who.best.tolist() == [0, 1, -1, 0]  # a tie at the last target: the earlier one
    assert who.next.tolist() == [2, 2, -1, 2]
    assert who.next_value.tolist() == [0.5, 0.3, 0.0, 0.5]


def test_chosen_record():
    why = explain_chosen(fl(dense_kernel(S)), [0, 1], 0)
    assert why.targets.tolist() == [0, 3]
    assert why.otherwise.tolist() == [1, 1]
    np.testing.assert_allclose(why.value - why.otherwise_value, [0.7, 0.1])
    assert why.margin == pytest.approx(0.8)
    assert explain_chosen(fl(dense_kernel(S)), [0, 1], 0, top=1).targets.tolist() == [0]
    with pytest.raises(InputError):
        explain_chosen(fl(dense_kernel(S)), [0, 1], 2)


def test_record_left_out():
    why = explain_left_out(fl(dense_kernel(S)), [0, 1], 2)
    assert why.by.tolist() == [0, 1]
    assert why.targets.tolist() == [2, 1]
    np.testing.assert_allclose(why.share, [1.0 / 1.3, 0.3 / 1.3])
    assert why.gain == 0.0
    assert explain_left_out(fl(dense_kernel(S)), [0, 1], 3).gain == pytest.approx(0.2)
    with pytest.raises(InputError):
        explain_left_out(fl(dense_kernel(S)), [0, 1], 1)


def test_worth_is_that_of_the_objective():
    goal = weighted(topm(dense_kernel(S), depth=2), [1.0, 2.0, 0.0, 4.0])
    for subset, j in (([0, 1], 0), ([2], 2)):
        others = [one for one in subset if one != j]
        assert explain_chosen(goal, subset, j).margin == pytest.approx(value(goal, subset) - value(goal, others))
    why = explain_left_out(goal, [0, 1], 2)
    assert why.gain == pytest.approx(value(goal, [0, 1, 2]) - value(goal, [0, 1]))
    assert why.gain > 0
    assert why.total == pytest.approx(value(goal, [2]))
    own = S[2] * [1.0, 2.0, 0.0, 4.0]
    assert why.share.sum() == pytest.approx(own[[0, 1, 3]].sum() / own.sum())
    heavy = explain_chosen(weighted(fl(dense_kernel(S)), [1.0, 1.0, 1.0, 9.0]), [0, 1], 0)
    assert heavy.targets.tolist() == [3, 0]  # by what a target counts for


def test_excluded_pairs_explain_nothing():
    kernel = dense_kernel(S, example_group=range(4), target_group=range(4))
    assert coverers(kernel, [0, 1]).best.tolist() == [1, 0, -1, 0]


def test_harmed_targets():
    distance, base = np.array([[0.5, 0.9, 0.2, 0.6]]), np.array([0.6, 0.5, 0.1, 0.5])
    whom = harmed(utility_kernel(distance, base, transform="raw"), 0, top=2)
    assert whom.targets.tolist() == [1, 2]
    np.testing.assert_allclose(whom.utility, [-0.4, -0.1])
    assert whom.count == 3


@pytest.mark.parametrize("name", NAMES)
def test_what_is_lost_without_each_record(name: str) -> None:
    goal, f = both(name, *blocks(name), eta=0.7, nu=0.6, alpha=0.2)
    rng = np.random.default_rng(1)
    goal = with_bonus(goal, bonus := rng.random(N))
    for k in (0, 1, 2, 7, 12):
        subset = rng.permutation(N)[:k].tolist()
        lost = lost_without(goal, subset)
        others = [[other for other in subset if other != j] for j in subset]
        expected = [f(subset) - f(rest) + bonus[j] for j, rest in zip(subset, others, strict=True)]
        np.testing.assert_allclose(lost, expected, atol=1e-5)

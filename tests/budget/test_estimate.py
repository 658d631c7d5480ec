from __future__ import annotations

import numba
import numpy as np
import pytest

from delift_cli.budget.estimate import Graph, fit, graph
from delift_cli.budget.trust import quality, subset_value


def no_graph(n):
    return Graph(np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


def sample(n=120, m=100, share=0.3, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    U = 0.2 + 0.3 * rng.standard_normal((n, 1)) + 0.3 * rng.standard_normal(m)
    U = U + rng.standard_normal((n, 2)) @ rng.standard_normal((2, m)) * 0.3
    mask = rng.random((n, m)) < share
    J, T = np.nonzero(mask)
    y = (U[J, T] + noise * rng.standard_normal(len(J))).astype(np.float32)
    return U, mask, J.astype(np.int32), T.astype(np.int32), y


def test_low_rank_and_effects_are_recovered():
    U, mask, J, T, y = sample()
    model = fit(J, T, y, no_graph(120), no_graph(100))
    left, right = model.factors(0.0)
    assert left.dtype == right.dtype == np.float32
    error = (left @ right.T - U)[~mask]
    assert 1 - (error**2).mean() / U[~mask].var() > 0.8
    every = np.nonzero(~mask)
    assert model.predict(every[0].astype(np.int32), every[1].astype(np.int32)) == pytest.approx(
        (left @ right.T)[~mask], abs=1e-4
    )


def test_caution_lowers_each_target_by_its_deviation():
    _, _, J, T, y = sample()
    model = fit(J, T, y, no_graph(120), no_graph(100))
    plain, cautious = (a @ b.T for a, b in (model.factors(0.0), model.factors(2.0)))
    assert plain - cautious == pytest.approx(np.tile(2 * model.target_sd, (120, 1)), abs=1e-4)


def test_random_pairs_correct_what_chosen_ones_promise():
    """Sixty small tasks: good pairs are those within one, most scored pairs too; a low rank cannot tell them apart."""
    rng = np.random.default_rng(2)
    n = 300
    task = np.arange(n) % 60
    U = np.where(task[:, None] == task, 0.4, 0.0) * rng.uniform(0, 1, n) + 0.1 * rng.standard_normal((n, n))
    drawn = rng.random((n, n)) < 0.02
    J, T = (a.astype(np.int32) for a in np.nonzero(drawn | (task[:, None] == task)))
    pairs = J, T, U[J, T].astype(np.float32)
    J_new, T_new = (a.astype(np.int32) for a in np.nonzero(rng.random((n, n)) < 0.02))
    found = U[J_new, T_new].astype(np.float32)
    as_is = quality(fit(*pairs, no_graph(n), no_graph(n)).predict(J_new, T_new), found)
    model = fit(*pairs, no_graph(n), no_graph(n), random=drawn[J, T])
    corrected = quality(model.predict(J_new, T_new), found)
    assert as_is.bias > 0.02
    assert as_is.r2 < -0.2
    assert abs(corrected.bias) < 0.01
    assert corrected.r2 > -0.05
    again = fit(*pairs, no_graph(n), no_graph(n), random=drawn[J, T])
    assert np.array_equal(model.right, again.right)


def test_a_few_random_pairs_have_a_mean_and_no_line():
    _, _, J, T, y = sample()
    drawn = np.zeros(len(y), bool)
    drawn[np.argsort(y)[::200]] = True  # ten or so, from low to high
    y[~drawn] += 0.5  # chosen for being good
    assert 5 <= drawn.sum() < 30
    model = fit(J, T, y, no_graph(120), no_graph(100), random=drawn)
    assert model.mean == pytest.approx(y[drawn].mean(), abs=1e-5)
    one = np.zeros(len(y), bool)
    one[0] = True
    assert fit(J, T, y, no_graph(120), no_graph(100), random=one).mean == pytest.approx(y.mean(), abs=1e-5)


def test_features_say_what_few_random_pairs_cannot():
    """Effects that follow from features: of records that were hardly scored too, and not misled by chosen pairs."""
    rng = np.random.default_rng(3)
    n = 200
    lengths, losses = rng.normal(5, 2, (n, 1)), rng.normal(0, 0.3, (n, 1))
    task = np.arange(n) % 40
    same = task[:, None] == task
    U = 0.1 * lengths + 0.8 * losses.T + 0.05 * rng.standard_normal((n, n)) + np.where(same, 0.8 - losses.T, 0)
    drawn = rng.random((n, n)) < 0.01
    J, T = (a.astype(np.int32) for a in np.nonzero(drawn | same))
    pairs = J, T, U[J, T].astype(np.float32), no_graph(n), no_graph(n)
    J_new, T_new = (a.astype(np.int32) for a in np.nonzero(~same & (rng.random((n, n)) < 0.1)))
    found = U[J_new, T_new].astype(np.float32)
    without = quality(fit(*pairs, random=drawn[J, T]).predict(J_new, T_new), found)
    features = lengths.astype(np.float32), losses.astype(np.float32)
    model = fit(*pairs, random=drawn[J, T], features=features)
    assert quality(model.predict(J_new, T_new), found).r2 > max(0.5, without.r2 + 0.1)
    left, right = model.factors(0.0)
    assert model.predict(J_new, T_new) == pytest.approx((left[J_new] * right[T_new]).sum(1), abs=1e-4)


def test_neighbours_carry_a_record_that_was_hardly_scored():
    rng = np.random.default_rng(1)
    cluster = np.arange(60) % 3
    U = rng.standard_normal((3, 3))[cluster][:, cluster]
    mask = rng.random(U.shape) < 0.3
    mask[0] = False
    J, T = np.nonzero(mask)
    lists = np.array([[j for j in range(60) if cluster[j] == cluster[i] and j != i][:10] for i in range(60)], np.int32)
    near = graph(lists, np.full(lists.shape, 0.6, np.float32))
    args = (J.astype(np.int32), T.astype(np.int32), U[J, T].astype(np.float32))
    targets = np.arange(60, dtype=np.int32)
    with_graph = fit(*args, near, near).predict(np.zeros(60, np.int32), targets)
    without = fit(*args, no_graph(60), no_graph(60)).predict(np.zeros(60, np.int32), targets)
    assert np.corrcoef(with_graph, U[0])[0, 1] > 0.95
    assert ((with_graph - U[0]) ** 2).mean() < 0.5 * ((without - U[0]) ** 2).mean()


def test_graph_is_symmetric_and_counts_an_edge_once():
    found = graph(np.array([[1], [0], [0], [-1]], np.int32), np.array([[0.5], [0.5], [0.2], [0]], np.float32))
    assert found.indptr.tolist() == [0, 2, 3, 4, 4]
    assert found.indices.tolist() == [1, 2, 0, 0]
    assert found.weights == pytest.approx([0.5, 0.2, 0.5, 0.2])


def test_fit_is_deterministic_whatever_the_threads():
    _, _, J, T, y = sample()
    first = fit(J, T, y, no_graph(120), no_graph(100), seed=3)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        second = fit(J, T, y, no_graph(120), no_graph(100), seed=3)
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(first.left, second.left)
    assert np.array_equal(first.right, second.right)


def test_nothing_scored_gives_a_flat_estimate():
    empty = np.empty(0, np.int32)
    model = fit(empty, empty, np.empty(0, np.float32), no_graph(3), no_graph(2))
    left, right = model.factors(0.0)
    assert (left @ right.T == 0).all()


def test_quality():
    truth = np.arange(50, dtype=np.float32)
    q = quality(truth**2, truth)
    assert q.spearman == pytest.approx(1)
    assert q.r2 < 0
    perfect = quality(truth, truth)
    assert (perfect.r2, perfect.bias, perfect.rmse) == (1, 0, 0)
    assert np.isnan(quality(truth[:2], truth[:2]).r2)
    assert (q.enough, quality(truth[:19], truth[:19]).enough, quality(truth[:20], truth[:20]).enough) == (
        True,
        False,
        True,
    )
    assert not quality(truth, np.ones_like(truth)).enough
    few = quality(truth[:19], truth[:19])
    assert few.words == "too few pairs are held out at random (19) to say how good they are"
    assert not few.trusted
    assert quality(truth[:0], truth[:0]).words == "no pair is held out at random, so how good they are cannot be said"
    assert perfect.words.startswith("R² 1.00, rank correlation 1.00 on ")


def test_value_interval_holds_the_truth():
    U, mask, J, T, y = sample(noise=0.05, share=0.4)
    hold = np.random.default_rng(0).random(len(J)) < 0.1
    model = fit(J[~hold], T[~hold], y[~hold], no_graph(120), no_graph(100))
    chosen = np.arange(5, 25)
    covered = np.where(mask, U, 0)[chosen].max(0).clip(0).astype(np.float32)
    found = subset_value(
        covered, chosen, (J, T), model, (J[hold], T[hold], y[hold]),
        example_key=np.arange(120), target_key=1000 + np.arange(100),
    )  # fmt: skip
    assert found.measured == pytest.approx(covered.sum(), rel=1e-5)
    assert found.measured <= found.low <= found.estimated <= found.high
    assert found.low * 0.97 <= U[chosen].max(0).clip(0).sum() <= found.high * 1.03


@pytest.mark.parametrize("surprising", [0.0, 0.02])
def test_value_intervals_hold_the_truth_nearly_always(surprising):
    """Of whatever subset, also where a few pairs are unlike all others; and the estimate is nearer than the proof."""
    held = nearer = 0
    for seed in range(10):
        rng = np.random.default_rng(100 + seed)
        U, mask, _, _, _ = sample(seed=seed)
        U = U + (rng.random(U.shape) < surprising)
        J, T = (side.astype(np.int32) for side in np.nonzero(mask))
        y, hold = U[J, T].astype(np.float32), rng.random(len(J)) < 0.05
        model = fit(J[~hold], T[~hold], y[~hold], no_graph(120), no_graph(100))
        chosen = rng.choice(120, 25, replace=False)
        covered = np.where(mask, U, 0)[chosen].max(0).clip(0).astype(np.float32)
        found = subset_value(
            covered, chosen, (J, T), model, (J[hold], T[hold], y[hold]),
            example_key=np.arange(120), target_key=1000 + np.arange(100),
        )  # fmt: skip
        truth = U[chosen].max(0).clip(0).sum()
        assert found.low == found.measured
        held += found.low <= truth <= found.high
        nearer += abs(found.estimated - truth) < truth - found.measured
    assert held >= 9
    assert nearer >= 9


def test_no_value_is_beyond_what_is_possible():
    _, _, J, T, y = sample(share=0.4)
    model = fit(J, T, y, no_graph(120), no_graph(100))
    chosen, none = np.arange(5, 25), np.empty(0, np.int32)
    most = np.linspace(0.0, 0.3, 100).astype(np.float32)
    found = subset_value(
        np.zeros(100, np.float32), chosen, (none, none), model, (none, none, np.empty(0, np.float32)),
        example_key=np.arange(120), target_key=1000 + np.arange(100), most=most,
    )  # fmt: skip
    assert found.measured == 0.0
    assert 0.0 < found.estimated <= found.high <= most.sum() * 1.0001

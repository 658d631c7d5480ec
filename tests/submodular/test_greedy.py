"""Greedy is greedy: the fast selector against the plain one, under every constraint."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from itertools import combinations

import numpy as np
import plain_greedy
import pytest
from small_blocks import N, blocks, both

from delift_cli.errors import InputError
from delift_cli.submodular.kernel import dense_kernel, factored_kernel, utility_kernel
from delift_cli.submodular.objectives import NAMES, SUMS, fl, make_objective, value
from delift_cli.submodular.select import select
from delift_cli.submodular.sweeps import similarities


def agrees(selection, f, n, k):
    """Same sequence and gains as the plain greedy up to saturation."""
    indices, gains = plain_greedy.plain_greedy(f, n, k)
    assert selection.indices[: selection.filled_from].tolist() == indices
    np.testing.assert_allclose(selection.gains[: selection.filled_from], gains, rtol=1e-6)
    assert not selection.gains[selection.filled_from :].any()
    assert selection.value == pytest.approx(sum(gains), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_the_plain_greedy_sequence(name, seed):
    pool, others = blocks(name, seed)
    objective, f = both(name, pool, others, eta=0.8, nu=0.4)
    agrees(select(objective, N), f, N, N)


@pytest.mark.parametrize("name", ["fl", *SUMS])
@pytest.mark.parametrize("kind", ["float16", "float64", "factored", "scattered", "scattered, minmax"])
def test_every_kind_of_kernel(kind, name):
    rng = np.random.default_rng(5)
    if kind in ("factored", "scattered", "scattered, minmax"):
        known = rng.random((N, N)) < 0.3
        rank = 2 if kind == "factored" else 0  # without estimates a row is its measured pairs, at whatever curve
        copies = np.arange(N) // 2 if kind == "scattered" else np.arange(N)
        kernel = factored_kernel(
            np.concatenate([[0], np.cumsum(known.sum(axis=1))]),
            np.nonzero(known)[1],
            rng.standard_normal(known.sum()),
            rng.standard_normal((N, rank)),
            rng.standard_normal((N, rank)),
            *(["minmax"] if "minmax" in kind else []),
            example_group=copies,
            target_group=copies,
            value_range=(-2.0, 3.0),
        )
    else:
        kernel = dense_kernel((rng.random((N, N)) - 0.3).astype(kind))
    agrees(select(kernel, 15, objective=name), plain_greedy.formula(name, similarities(kernel), eta=0.0), N, 15)


@pytest.mark.parametrize("transform", ["clip", "minmax", "raw"])
@pytest.mark.parametrize("utility", ["euclidean", "pmi"])
def test_every_transform(utility, transform):
    rng = np.random.default_rng(6)
    copies = rng.integers(0, 18, N)  # some records are copies of others
    kernel = utility_kernel(
        rng.random((N, N), dtype=np.float32),
        rng.random(N),
        utility,
        transform,
        example_group=copies,
        target_group=copies,
    )
    agrees(select(kernel, N), plain_greedy.formula("fl", similarities(kernel)), N, N)


def test_large_enough_for_threads_and_batches():
    rng = np.random.default_rng(7)
    n, m = 400, 6000
    s = (rng.standard_normal((n, 6)) @ rng.standard_normal((6, m)) * 0.1).astype(np.float32)
    s += rng.standard_normal((n, m), dtype=np.float32) * 0.1
    for name, k in (("fl", 60), ("sqrt", 25)):
        selection = select(s, k, objective=name)
        before = np.zeros(m)
        chosen = np.zeros(n, bool)
        for j, gain in zip(selection.indices, selection.gains, strict=True):
            if name == "fl":
                gains = np.maximum(0.0, s - before).sum(axis=1, dtype=np.float64)
            else:
                gains = (np.sqrt(before + np.maximum(0.0, s)) - np.sqrt(before)).sum(axis=1)
            gains[chosen] = -1.0
            assert gains.argmax() == j
            assert gain == pytest.approx(gains[j], rel=1e-6)
            chosen[j] = True
            before = np.maximum(before, s[j]) if name == "fl" else before + np.maximum(0.0, s[j])


def test_weights_and_bonuses_of_a_selection():
    rng = np.random.default_rng(17)
    s, weight, bonus = rng.random((12, 9)), rng.random(9), rng.random(12)
    chosen = select(s, 6, weight=weight, bonus=bonus)
    agrees(chosen, lambda A: float((s[A].max(axis=0, initial=0.0) * weight).sum() + bonus[A].sum()), 12, 6)
    assert select(fl(dense_kernel(s)), 6, weight=weight, bonus=bonus).indices.tolist() == chosen.indices.tolist()
    assert chosen.optimum_bound >= chosen.value


def test_ties_go_to_the_lower_index():
    s = np.ones((6, 8), np.float32)
    s[4] = s[2] = 2.0
    assert select(s, 6).indices.tolist() == [2, 4, 0, 1, 3, 5]  # all but the first are filled
    halves = np.zeros((8, 8), np.float32)
    halves[np.arange(8), np.arange(8) // 2 * 2] = 0.5
    assert select(halves, 4).indices.tolist() == [0, 2, 4, 6]


def test_the_number_of_threads_changes_nothing():
    program = (
        "import numpy as np; from delift_cli import select; import hashlib;"
        "s = np.random.default_rng(0).random((400, 6000), dtype=np.float32);"
        "a = select(s, 100, objective='saturated'); b = select(s, 100, method='stochastic', seed=3);"
        "print(a.indices.sum(), repr(a.value), a.indices.tolist()[-3:], a.gains.tobytes().hex()[-40:],"
        " b.indices.tolist()[-5:], b.gains.tobytes().hex()[-40:], a.evaluations, b.evaluations)"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(answers) == 1


def test_memory_map_is_not_copied(tmp_path):
    n = 2000
    np.save(tmp_path / "s.npy", np.random.default_rng(8).random((n, n), dtype=np.float32))
    mapped = np.load(tmp_path / "s.npy", mmap_mode="r")
    select(np.asarray(mapped[:50, :50]), 5)  # compile outside of the measurement
    tracemalloc.start()
    select(mapped, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * n + 500_000  # the matrix has 16,000,000 bytes


# ---------------------------------------------------------------------------------------------- submodlib


def submodlib_sequence(name, pool, others, k):
    submodlib = pytest.importorskip("submodlib")
    s = pool.T.astype(np.float64).copy()  # theirs: [represented, representative]
    target = others.get("target")
    existing = others.get("existing")
    if name == "fl":
        f = submodlib.FacilityLocationFunction(n=N, mode="dense", separate_rep=False, sijs=s)
    elif name == "flvmi":
        f = submodlib.FacilityLocationVariantMutualInformationFunction(N, target.shape[1], query_sijs=target.copy())
    elif name == "fl1mi":
        f = submodlib.FacilityLocationMutualInformationFunction(
            N, target.shape[0], data_sijs=s, query_sijs=target.T.copy()
        )
    elif name == "flcg":
        f = submodlib.FacilityLocationConditionalGainFunction(
            N, existing.shape[0], data_sijs=s, private_sijs=existing.T.copy()
        )
    else:
        f = submodlib.FacilityLocationConditionalMutualInformationFunction(
            N,
            target.shape[0],
            existing.shape[0],
            data_sijs=s,
            query_sijs=target.T.copy(),
            private_sijs=existing.T.copy(),
        )
    # With stopIfZeroGain, submodlib 0.0.3 stops at gains below 1.
    return f.maximize(budget=k, optimizer="NaiveGreedy", stopIfZeroGain=False, show_progress=False)


@pytest.mark.parametrize("name", ["fl", "flvmi", "fl1mi", "flcg", "flcmi"])
def test_submodlib_chooses_the_same(name):
    pool, others = blocks(name, seed=9)
    plain = {role: np.maximum(0.0, similarities(block)) for role, block in others.items()}
    existing = {"existing": plain["existing"] * 0.3} if "existing" in plain else {}
    plain |= existing
    others = {role: dense_kernel(block) for role, block in plain.items()}
    ours = select(pool, 8, objective=name, **others, stop_at_zero=True)
    theirs = submodlib_sequence(name, np.maximum(0.0, similarities(pool)), plain, 8)
    assert ours.indices.tolist() == [j for j, _ in theirs]
    np.testing.assert_allclose(ours.gains, [gain for _, gain in theirs], rtol=1e-5)


# ---------------------------------------------------------------------------------------------- constraints


@pytest.fixture(scope="module")
def random_s():
    return np.random.default_rng(10).random((30, 30))


def constrained(s, k, allowed):
    """Plain greedy over what `allowed(chosen, j)` admits."""
    f, chosen = plain_greedy.formula("fl", s), []
    while len(chosen) < k:
        gains = {j: f([*chosen, j]) for j in range(len(s)) if j not in chosen and allowed(chosen, j)}
        if not gains:
            break
        chosen.append(max(gains, key=lambda j: (gains[j], -j)))
    return chosen


def test_always_and_never(random_s):
    selection = select(random_s, 8, always=[7, 3], never=[1, 2])
    assert selection.indices[:2].tolist() == [7, 3]
    f = plain_greedy.formula("fl", random_s)
    np.testing.assert_allclose(selection.gains[:2], [f([7]), f([7, 3]) - f([7])])
    chosen = [7, 3]
    while len(chosen) < 8:
        chosen.append(max((j for j in range(30) if j not in (*chosen, 1, 2)), key=lambda j: f([*chosen, j])))
    assert selection.indices.tolist() == chosen
    assert selection.curve[-1] == pytest.approx(f(chosen))


def test_quotas(random_s):
    group = ["code" if j % 5 == 0 else "chat" if j % 2 else "math" for j in range(30)]

    def count(chosen, label):
        return sum(group[j] == label for j in chosen)

    def allowed(chosen, j):
        if group[j] == "math" and count(chosen, "math") >= 2:
            return False
        owed = max(0, 4 - count(chosen, "code"))
        return owed < 10 - len(chosen) or (group[j] == "code" and owed > 0)

    selection = select(random_s, 10, group=group, at_least={"code": 4}, at_most={"math": 2})
    assert selection.indices.tolist() == constrained(random_s, 10, allowed)
    assert count(selection.indices, "code") >= 4
    assert count(selection.indices, "math") <= 2
    assert selection.guarantee == 0.5


def test_a_quota_that_cannot_be_met_says_why(random_s):
    group = ["code"] * 3 + ["chat"] * 27
    with pytest.raises(InputError, match=r"^group 'code' cannot have at least 4: only 3 of its records can be chosen$"):
        select(random_s, 10, group=group, at_least={"code": 4})
    with pytest.raises(InputError, match=r"^group 'code' cannot have at least 3 and at most 2$"):
        select(random_s, 10, group=group, at_least={"code": 3}, at_most={"code": 2})


def test_near_duplicates(random_s):
    pairs = {(0, 1), (1, 2), (5, 20), (6, 7), (7, 8)}
    rows = [[b for a, b in sorted(pairs) if a == j] for j in range(30)]  # one direction only
    indptr, indices = np.cumsum([0, *map(len, rows)]), [j for row in rows for j in row]

    def allowed(chosen, j):
        return not any((a, j) in pairs or (j, a) in pairs for a in chosen)

    selection = select(random_s, 30, near_duplicates=(indptr, indices))
    k = selection.filled_from
    assert k > 10
    assert selection.indices[:k].tolist() == constrained(random_s, k, allowed)
    chosen = selection.indices.tolist()
    assert all(allowed(chosen[:position], j) for position, j in enumerate(chosen))
    assert chosen == list(dict.fromkeys(chosen))
    assert all(not allowed(chosen, j) for j in range(30) if j not in chosen)
    assert selection.guarantee == pytest.approx(1 / 3)  # one record is alike to two that are not alike


def test_near_duplicates_last(random_s):
    pairs = [(a, b) for a in range(30) for b in range(30) if a % 10 == b % 10 and a != b]  # ten groups of three
    near = np.arange(31) * 2, [b for _, b in pairs]
    f = plain_greedy.formula("fl", random_s)
    strict = select(random_s, 10, near_duplicates=near)
    for k in (6, 10, 17, 30):
        selection = select(random_s, k, near_duplicates=near, lenient=True)
        chosen = selection.indices.tolist()
        assert chosen[:10] == strict.indices[:k].tolist()
        assert len({*chosen}) == k
        for at in range(10, selection.filled_from):  # once each group has one, the best of all that are left
            left = [j for j in range(30) if j not in chosen[:at]]
            best = max(f([*chosen[:at], j]) for j in left)
            assert f(chosen[: at + 1]) == pytest.approx(best)
        assert selection.value == pytest.approx(f(chosen))
        assert selection.guarantee == (0.5 if k <= 10 else 0.0)  # of one group one: a matroid
    assert select(random_s, 30, near_duplicates=near).indices.size == 10


def test_near_duplicates_last_under_other_limits(random_s):
    near = np.arange(31) * 2, [b for a in range(30) for b in range(30) if a % 10 == b % 10 and a != b]
    cost = np.arange(30) % 7 + 5
    for budget in (40, 90, 150):
        chosen = select(random_s, cost=cost, budget=budget, near_duplicates=near, lenient=True).indices
        assert cost[chosen].sum() <= budget < cost[chosen].sum() + np.delete(cost, chosen).min()
    group = ["a" if j % 10 < 2 else "b" for j in range(30)]  # two groups of near-duplicates, of three records each
    chosen = select(random_s, 12, near_duplicates=near, lenient=True, group=group, at_least={"a": 5}).indices
    assert sum(group[j] == "a" for j in chosen) == 5
    assert len({j % 10 for j in chosen if group[j] == "b"}) == 7
    stopped = select(random_s, 30, near_duplicates=near, lenient=True, stop_at_zero=True)
    assert (stopped.gains > 0).all()


def test_what_comes_last(random_s):
    last = [0, 3, 7, 12, 29]
    f = plain_greedy.formula("fl", random_s)
    for k in (1, 10, 25):
        selection, without = select(random_s, k, last=last), select(random_s, k, never=last)
        assert selection.indices.tolist() == without.indices.tolist()
        assert selection.guarantee == without.guarantee > 0
        assert selection.optimum_bound == without.optimum_bound
    for k in (26, 30):
        selection = select(random_s, k, last=last)
        chosen = selection.indices.tolist()
        assert {*chosen[:25]} == {*range(30)} - {*last}
        assert {*chosen[25:]} <= {*last}
        assert len({*chosen}) == k
        assert selection.value == pytest.approx(f(chosen))
        assert selection.guarantee == 0.0
        assert selection.optimum_bound >= f(range(30)) - 1e-9
    assert select(random_s, 3, last=last, always=[29 - 1]).indices[0] == 28
    with pytest.raises(InputError, match="record 29 is in both always and last"):
        select(random_s, 3, last=last, always=[29])
    for method in ("stochastic", "partitioned"):
        with pytest.raises(InputError, match="or last"):
            select(random_s, 3, last=last, method=method)


def test_what_comes_last_under_other_limits(random_s):
    last, cost = [0, 3, 7, 12, 29], np.arange(30) % 7 + 5
    rest = np.delete(np.arange(30), last)
    for budget in (40, 90, int(cost[rest].sum()) - 1):  # others are left, if too long
        chosen = select(random_s, cost=cost, budget=budget, last=last).indices
        assert not {*chosen} & {*last}
        assert cost[chosen].sum() <= budget < cost[chosen].sum() + np.delete(cost, [*chosen, *last]).min()
    small = np.where(np.isin(np.arange(30), last), 3, 9)
    assert {*select(random_s, cost=small, budget=8, last=last).indices} < {*last}  # none of the others fits
    budget = int(cost[rest].sum() + cost[last].min())
    chosen = select(random_s, cost=cost, budget=budget, last=last).indices
    assert len(chosen) == 26
    assert {*rest} < {*chosen}
    group = ["a" if j in last or j == 1 else "b" for j in range(30)]
    chosen = select(random_s, 8, last=last, group=group, at_least={"a": 3}).indices
    assert sum(group[j] == "a" for j in chosen) == 3  # for want of others of their group
    assert 1 in chosen
    chosen = select(random_s, 30, last=last, group=group, at_most={"b": 4}).indices
    assert {*chosen[-5:]} == {*last}
    assert len(chosen) == 10
    near = np.arange(31) * 2, [b for a in range(30) for b in range(30) if a % 10 == b % 10 and a != b]
    chosen = select(random_s, 30, last=last, near_duplicates=near, lenient=True).indices.tolist()
    assert len({j % 10 for j in chosen[:10]}) == 10
    assert {*chosen[-5:]} == {*last}  # behind the near-duplicates of others


def test_token_budget_keeps_the_better_rule(random_s):
    rng = np.random.default_rng(11)
    for budget in range(60, 180, 10):
        cost = rng.integers(1, 60, 30)
        both_rules = []
        for weight in (np.ones(30), cost):
            f, chosen = plain_greedy.formula("fl", random_s), []
            while True:
                fits = [j for j in range(30) if j not in chosen and cost[[*chosen, j]].sum() <= budget]
                if not fits:
                    break
                now = f(chosen)
                chosen.append(max(fits, key=lambda j: ((f([*chosen, j]) - now) / weight[j], -j)))
            both_rules.append(chosen)
        selection = select(random_s, cost=cost, budget=budget)
        values = [f(chosen) for chosen in both_rules]
        assert selection.indices.tolist() == both_rules[int(np.argmax(values))]
        assert selection.rule == ("gain", "gain per token")[int(np.argmax(values))]
        assert sorted([selection.value, selection.value_other_rule]) == pytest.approx(sorted(values))
        assert selection.optimum_bound >= max(values) - 1e-9


def test_token_budget_may_be_better_spent_on_gain():
    s = np.vstack([np.ones(10), np.eye(10)])
    selection = select(s, cost=[20] + [1] * 10, budget=20)
    assert (selection.rule, selection.indices.tolist(), selection.value) == ("gain", [0], 10.0)
    selection = select(s, cost=[20] + [1] * 10, budget=20, until=0.9)
    assert selection.value == 10.0
    cheap = select(s, cost=[30] + [2] * 10, budget=32)
    assert cheap.value == 10.0
    s[0] = 0.5
    thrifty = select(s, cost=[20] + [1] * 10, budget=20)
    assert (thrifty.rule, thrifty.value, thrifty.value_other_rule) == ("gain per token", 10.0, 5.0)


def test_what_gains_after_the_others_were_filled_is_not_said_to_gain_nothing():
    s = np.zeros((5, 4), np.float32)
    s[0] = [1, 1, 0, 0]
    s[3] = [0, 0, 1, 1]  # comes last, and gains all the same
    selection = select(s, 4, last=[3])
    assert selection.indices.tolist() == [0, 1, 2, 4]
    assert (selection.saturated_at, selection.stopped) == (1, "full")
    selection = select(s, 5, last=[3])
    assert selection.indices.tolist() == [0, 1, 2, 4, 3]
    assert selection.gains.tolist() == [2, 0, 0, 0, 2]
    assert (selection.saturated_at, selection.filled_from, selection.stopped) == (None, 5, "full")
    group = ["a", "b", "b", "a", "b"]
    selection = select(s, 3, group=group, at_most={"b": 0}, never=[3])
    assert (selection.indices.tolist(), selection.stopped) == ([0], "exhausted")
    selection = select(s, 4, group=group, at_most={"b": 1})
    assert (selection.indices.tolist(), selection.filled_from, selection.stopped) == ([0, 3, 1], 2, "exhausted")


def test_below_a_share_of_the_first_gain_nothing_is_filled():
    s = np.zeros((6, 4), np.float32)
    s[3] = [1, 1, 0, 0]
    s[5] = [0, 0, 1, 0]
    for limits in ({}, {"last": [0]}, {"near_duplicates": ([0, 1, 1, 1, 1, 1, 1], [1]), "lenient": True}):
        selection = select(s, 6, until=1e-6, **limits)
        assert (selection.indices.tolist(), selection.stopped) == ([3, 5], "until")
    assert select(np.zeros((4, 4), np.float32), 4, until=0.5).indices.size == 0


def test_a_least_number_has_room_beside_what_is_always_chosen(random_s):
    group = ["a" if j < 6 else "b" for j in range(30)]
    for always, least in (([7, 8, 9], 3), ([0, 7, 8], 4)):
        with pytest.raises(InputError, match="need 3 records beside the 3 that are always chosen"):
            select(random_s, 5, always=always, group=group, at_least={"a": least})
    chosen = select(random_s, 5, always=[0, 7, 8], group=group, at_least={"a": 3}).indices
    assert sum(group[j] == "a" for j in chosen) == 3


def test_saturation_fills_by_singleton_gain_or_stops():
    s = np.zeros((7, 4), np.float32)
    s[3] = [1, 1, 0, 0]
    s[5] = [0, 0, 1, 0]
    s[0] = [0, 1, 0, 0]
    s[6] = [0.5, 0.5, 0.5, 0]
    selection = select(s, 6)
    assert selection.indices.tolist() == [3, 5, 6, 0, 1, 2]
    assert (selection.saturated_at, selection.filled_from, selection.stopped) == (2, 2, "full")
    assert selection.gains.tolist() == [2, 1, 0, 0, 0, 0]
    short = select(s, 6, stop_at_zero=True)
    assert short.indices.tolist() == [3, 5]
    assert (short.saturated_at, short.stopped) == (2, "saturated")
    assert selection.value == selection.optimum_bound == 3.0


def test_until_stops_at_a_share_of_the_first_gain(random_s):
    whole, short = select(random_s, 30), select(random_s, 30, until=0.02)
    k = short.indices.size
    assert short.stopped == "until"
    assert 0 < k < 30
    assert short.indices.tolist() == whole.indices[:k].tolist()
    assert short.gains[-1] >= 0.02 * whole.gains[0] > whole.gains[k]


def test_initial_gains_may_be_given(random_s):
    first = select(random_s, 12)
    again = select(random_s, 12, initial_gains=first.initial_gains)
    assert again.indices.tolist() == first.indices.tolist()
    assert again.evaluations == first.evaluations


def test_nothing_exceeds_the_bound_on_the_optimum(random_s):
    f = plain_greedy.formula("fl", random_s)
    rng = np.random.default_rng(12)
    bound = select(random_s, 5).optimum_bound
    assert bound >= max(f(rng.permutation(30)[:5].tolist()) for _ in range(300))
    assert select(random_s, 30).optimum_bound == pytest.approx(f(list(range(30))))


@pytest.mark.parametrize("name", ["fl", "saturated", "topm", "sqrt", "log1p", "lp", "noisyor"])
def test_no_subset_is_worth_more_than_the_bound(name):
    rng = np.random.default_rng(4)
    for _ in range(5):
        s = rng.random((8, 8), np.float32)
        bonus = rng.random(8)
        for k in (2, 3, 7):
            selection = select(s, k, objective=name, bonus=bonus)
            worth = [select(s, k, objective=name, bonus=bonus, always=some).value for some in combinations(range(8), k)]
            assert max(worth) <= selection.optimum_bound + 1e-9
        for seed in range(4):  # of which some are what one part chose by itself
            selection = select(s, 3, objective=name, bonus=bonus, method="partitioned", seed=seed)
            worth = [select(s, 3, objective=name, bonus=bonus, always=some).value for some in combinations(range(8), 3)]
            assert max(worth) <= selection.optimum_bound + 1e-9
            assert selection.optimum_bound <= sum(sorted(selection.initial_gains)[-3:]) + selection.value + 1e-9
        whole = select(s, 8, objective=name, bonus=bonus)
        assert whole.optimum_bound == pytest.approx(whole.value)  # nothing else is left


# ---------------------------------------------------------------------------------------------- approximate


def test_stochastic_greedy_is_seeded_and_close():
    s = np.random.default_rng(13).random((400, 400)).astype(np.float32) ** 4
    exact = select(s, 60)
    one, same, other = (select(s, 60, method="stochastic", epsilon=0.05, seed=seed) for seed in (1, 1, 2))
    assert one.indices.tolist() == same.indices.tolist() != other.indices.tolist()
    assert np.unique(one.indices).size == 60
    assert 0.97 * exact.value < one.value <= exact.value * 1.001
    assert one.guarantee == pytest.approx(1 - 1 / np.e - 0.05)
    assert one.value == pytest.approx(value(fl(dense_kernel(s)), one.indices))
    everything = select(s, 60, method="stochastic", epsilon=1e-30)  # samples as large as the pool
    assert everything.indices.tolist() == exact.indices.tolist()


def test_stochastic_greedy_finds_the_last_gains_and_saturates():
    s = np.zeros((60, 60), np.float32)
    s[:, 0] = 1.0
    s[41, 1] = 1.0
    selection = select(s, 10, method="stochastic", epsilon=0.9, seed=0)
    assert selection.value == 2.0
    assert selection.saturated_at == np.flatnonzero(selection.gains)[-1] + 1
    assert np.unique(selection.indices).size == 10


@pytest.mark.parametrize("parts", [2, 5])
def test_partitioned_greedy(parts):
    s = np.random.default_rng(14).random((400, 400)).astype(np.float32) ** 4
    exact = select(s, 60, always=[5], never=[6])
    selection = select(s, 60, method="partitioned", parts=parts, seed=1, always=[5], never=[6])
    assert np.unique(selection.indices).size == 60
    assert selection.indices[0] == 5
    assert 6 not in selection.indices
    assert 0.97 * exact.value < selection.value <= exact.value * 1.001
    np.testing.assert_allclose(selection.initial_gains, exact.initial_gains)
    assert selection.value == pytest.approx(value(fl(dense_kernel(s)), selection.indices))


def test_parts_of_a_sorted_pool_and_of_estimates():
    """Rows of a file are taken in runs; of a factored kernel what is measured goes with its rows."""
    n = 3000
    s = (np.random.default_rng(15).random((n, 200)) * np.repeat(np.eye(10), n // 10, 0).repeat(20, 1)).astype(
        np.float32
    )
    exact = select(s, 90)
    selection = select(s, 90, method="partitioned", parts=3, never=range(7))
    assert 0.95 * exact.value < selection.value <= exact.value * 1.001
    left, right = s[:, :40], np.linalg.lstsq(s[:, :40], s, rcond=None)[0].T.astype(np.float32)
    rows, columns = np.nonzero(s > 0.7)
    groups = {"example_group": np.arange(n), "target_group": np.arange(200)}
    indptr = np.searchsorted(rows, np.arange(n + 1))
    kernel = factored_kernel(indptr, columns, s[rows, columns], left, right, **groups)
    exact = select(kernel, 90)
    selection = select(kernel, 90, method="partitioned", parts=3, seed=2, always=[4])
    assert 0.95 * exact.value < selection.value <= exact.value * 1.001
    assert selection.value == pytest.approx(value(fl(kernel), selection.indices), rel=1e-5)
    np.testing.assert_allclose(selection.initial_gains, exact.initial_gains)


def test_two_parts_of_nothing_but_copies():
    s = np.ones((40, 5), np.float32)
    selection = select(s, 12, method="partitioned")
    assert len(selection) == 12
    assert selection.saturated_at == 1
    assert len(select(s, 12, method="partitioned", stop_at_zero=True)) == 1


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"k": 31},
        {"k": -1},
        {"k": 3, "budget": 5},
        {"k": 3, "always": [30]},
        {"k": 3, "always": [1, 1]},
        {"k": 3, "always": [1], "never": [1]},
        {"k": 1, "always": [1, 2]},
        {"cost": [0] * 30, "budget": 9},
        {"cost": [5] * 30, "budget": 9, "always": [1, 2]},
        {"k": 3, "at_least": {"a": 1}},
        {"k": 3, "group": ["a"] * 30, "at_least": {"b": 1}},
        {"k": 3, "group": ["a"] * 30, "at_least": {"a": 4}},
        {"k": 9, "group": ["a"] + ["b"] * 29, "at_least": {"a": 2}},
        {"cost": [5] * 30, "budget": 90, "group": ["a"] * 30, "at_least": {"a": 4}},
        {"k": 3, "near_duplicates": ([0, 1], [0])},
        {"k": 3, "until": 1.5},
        {"k": 3, "method": "fast"},
        {"k": 3, "method": "stochastic", "epsilon": 0.0},
        {"k": 3, "method": "partitioned", "parts": 1},
        {"cost": [5] * 30, "budget": 90, "method": "stochastic"},
        {"k": 3, "initial_gains": [1.0]},
        {"k": 3, "initial_gains": [np.nan] * 30},
        {"k": 3, "method": "stochastic", "seed": -1},
        {"cost": [1.5] * 30, "budget": 9},
        {"k": 3, "objective": "sqrt", "existing": np.full((1, 30), np.inf)},
    ],
)
def test_contradictions_are_refused(random_s, arguments):
    with pytest.raises(InputError):
        select(random_s, **arguments)


@pytest.mark.parametrize("name", ["fl", *SUMS])
def test_what_is_not_finite_is_refused(random_s, name):
    for entry in (np.nan, np.inf):
        s = random_s.copy()
        s[3, 4] = entry
        if name == "noisyor" and entry == np.inf:  # above 1 it counts as 1
            assert np.isfinite(select(s, 30, objective=name).gains).all()
            continue
        with pytest.raises(InputError, match=r"NaN|must be finite"):
            select(s, 30, objective=name)


def test_a_ready_made_objective(random_s):
    objective = make_objective("fl", dense_kernel(random_s))
    assert select(objective, 4).indices.tolist() == select(random_s, 4).indices.tolist()
    assert select(objective, 0).indices.size == 0

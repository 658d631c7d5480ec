from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from delift_cli.budget import adaptive, plan
from delift_cli.budget.candidates import best_unscored, with_room
from delift_cli.budget.measured import (
    ADAPTIVE,
    HELD_OUT,
    NEIGHBOUR,
    RANDOM,
    SELF,
    Scored,
    coverage,
    expected_change,
    nothing_scored,
    settled,
    sparse_greedy,
)
from delift_cli.budget.proposals import propose, self_pairs
from delift_cli.errors import InputError


def world(n=80, seed=0):
    """Texts of records in 8 tasks and their utilities: high within a task, noisy low-rank besides."""
    rng = np.random.default_rng(seed)
    task = rng.integers(8, size=n)
    words = [f"word{w}" for w in rng.integers(1000, 9999, 200)]
    prompts = [f"Task {'abcdefgh'[t] * 9}: {' '.join(rng.choice(words, 6))}" for t in task]
    responses = [f"{'pqrstuvw'[t] * 5} {rng.choice(words)}" for t in task]
    U = 0.05 * rng.standard_normal((n, n)) + 0.3 * (task[:, None] == task) * rng.random((n, n))
    return U + 0.1 * rng.standard_normal((n, 2)) @ rng.standard_normal((2, n)), prompts, responses


def append(scored, r, U):
    J = np.repeat(np.arange(len(r.indptr) - 1, dtype=np.int32), np.diff(r.indptr))
    return Scored(
        np.r_[scored.example, J],
        np.r_[scored.target, r.targets],
        np.r_[scored.utility, U[J, r.targets].astype(np.float32)],
        np.r_[scored.source, r.source],
    )


def drive(U, proposals, budget, scored=None, rounds=plan.ROUNDS, seed=0):
    scored = nothing_scored() if scored is None else scored
    for left in range(rounds, 0, -1):
        scored = append(scored, plan.next_round(proposals, scored, budget, rounds_left=left, seed=seed), U)
    return scored


def square(budget, n=80):
    U, prompts, responses = world(n)
    return U, propose((prompts, responses), None, budget, np.arange(n), np.arange(n))


def test_near_embeddings_are_proposed_and_change_no_graph():
    """Records whose texts have nothing in common, in four directions that only embeddings know."""
    n = 80
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 40)) for _ in range(n)]
    direction = np.arange(n) % 4
    common = 5 * rng.standard_normal(16)  # what all have in common must not make them all alike
    embeddings = common + rng.standard_normal((4, 16))[direction] + 0.1 * rng.standard_normal((n, 16))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    key = np.arange(n)
    whole = propose((texts, texts), None, 800, key, key, (embeddings[None], embeddings[None]))
    assert (direction[whole.nearest[:, :10]] == direction[:, None]).mean() > 0.95
    plain = propose((texts, texts), None, 800, key, key)
    assert (direction[plain.nearest[:, :10]] == direction[:, None]).mean() < 0.5
    assert whole.example_graph.weights.tobytes() == plain.example_graph.weights.tobytes()
    examples, targets = (texts[:50], texts[:50]), (texts[50:], texts[50:])
    block = propose(examples, targets, 400, key[:50], key[50:], (embeddings[None, :50], embeddings[None, 50:]))
    assert block.nearest.shape[0] == 30
    assert (direction[block.nearest[:, :10]] == direction[50:, None]).mean() > 0.95


def test_lists_of_several_embeddings_take_turns():
    """One embedding knows four directions, the other five; the nearest are alike in the one or the other by turns."""
    n = 80
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 40)) for _ in range(n)]
    directions = np.arange(n) % 4, np.arange(n) % 5
    both = np.stack([rng.standard_normal((5, 16))[at] + 0.1 * rng.standard_normal((n, 16)) for at in directions])
    both = (both / np.linalg.norm(both, axis=2, keepdims=True)).astype(np.float32)
    nearest = propose((texts, texts), None, 800, np.arange(n), np.arange(n), (both, both)).nearest
    assert all(len({*row.tolist()}) == len(row) for row in nearest[:, :16])
    for turn, direction in enumerate(directions):
        assert (direction[nearest[:, turn:10:2]] == direction[:, None]).mean() > 0.85
        assert (direction[nearest[:, 1 - turn : 10 : 2]] == direction[:, None]).mean() < 0.6


def pairs(scored, m):
    return scored.example.astype(np.int64) * m + scored.target


def test_budget_is_spent_exactly_without_repeats():
    U, proposals = square(1000)
    scored = drive(U, proposals, 1000)
    assert len(scored) == 1000
    assert len(np.unique(pairs(scored, 80))) == 1000
    assert np.bincount(scored.source, minlength=5).tolist()[SELF] == 80
    assert (scored.example == scored.target).sum() == 80
    counts = np.bincount(plan.next_round(proposals, nothing_scored(), 1000).source, minlength=5)
    assert counts[NEIGHBOUR] == 617  # of 920: 11.5 pairs for each target
    assert counts[HELD_OUT] == 9
    assert counts[RANDOM] == 37
    assert set(scored.target.tolist()) == set(scored.example.tolist()) == set(range(80))


def test_rows_are_ascending_within_an_example():
    _, proposals = square(1000)
    r = plan.next_round(proposals, nothing_scored(), 1000)
    assert r.indptr[-1] == len(r) == len(r.source)
    for j in range(80):
        assert (np.diff(r.targets[r.indptr[j] : r.indptr[j + 1]]) > 0).all()


def test_random_pairs_reach_rows_and_columns_evenly():
    found = plan._random_pairs(np.arange(0, 4000, 80), 400, range(40), range(100), 100, np.random.default_rng(0))
    assert len(np.unique(found)) == 400
    assert not np.isin(found, np.arange(0, 4000, 80)).any()
    assert np.bincount(found // 100, minlength=40).min() >= 5
    assert np.bincount(found % 100, minlength=100).min() >= 2


def test_a_round_depends_on_what_is_scored_and_not_on_its_order():
    U, proposals = square(900)
    scored = append(nothing_scored(), plan.next_round(proposals, nothing_scored(), 900), U)
    order = np.random.default_rng(0).permutation(len(scored))
    shuffled = Scored(*(getattr(scored, f)[order] for f in ("example", "target", "utility", "source")))
    a, b = (plan.next_round(proposals, s, 900, rounds_left=3) for s in (scored, shuffled))
    assert np.array_equal(a.indptr, b.indptr)
    assert np.array_equal(a.targets, b.targets)
    other = plan.next_round(proposals, nothing_scored(), 900, seed=1)
    assert not np.array_equal(other.targets, plan.next_round(proposals, nothing_scored(), 900).targets)


def test_adaptive_pairs_beat_random_ones():
    U, proposals = square(1600)  # of fewer pairs nearly all are neighbours, which leave little to find
    scored = drive(U, proposals, 1600)
    found = scored.utility[scored.source == ADAPTIVE]
    assert found.mean() > 2 * max(U.mean(), 0.02)


NEAR = np.arange(10, dtype=np.int32)[None].repeat(3, axis=0)  # each of three targets' ten nearest examples


def said(proposals, near, modelled):
    """The neighbours' share where the ten nearest of each target have utilities `near`, ten others `modelled`."""
    utility = np.tile(np.r_[near, modelled], 3).astype(np.float32)
    example, target = np.tile(np.arange(20, dtype=np.int32), 3), np.repeat(np.arange(3, dtype=np.int32), 20)
    source = np.tile(np.repeat(np.array([NEIGHBOUR, ADAPTIVE], np.uint8), 10), 3)
    order = np.argsort(example, kind="stable")
    scored = Scored(*(column[order] for column in (example, target, utility, source)))
    return adaptive.neighbours_share(proposals, adaptive.by_target(proposals, scored, 4))


def test_neighbours_and_the_model_share_a_round_by_what_they_have_found():
    _, proposals = square(900)
    proposals = replace(proposals, nearest=NEAR, example_key=np.arange(20), target_key=np.arange(20, 23))
    high, low = np.linspace(0.5, 0.9, 10), np.linspace(0.01, 0.1, 10)
    assert said(proposals, high, low) == 0.9  # the farther ones are the better ones here
    assert said(proposals, low, high) == 0.1
    assert said(proposals, np.r_[high[5:], low[5:]], high) == 0.1  # the nearest alone: those that come are farther
    four = np.where(np.arange(10) < 2, 0.9, 0.0)
    assert said(proposals, four[::-1], four) == pytest.approx(0.8)  # 2 of the farther 5, 2 of 10: as 4 to 1
    assert said(proposals, -high, -high) == 0.5  # nobody has found anything
    first = plan.next_round(proposals := square(900)[1], nothing_scored(), 900)
    before = append(nothing_scored(), first, square(900)[0])
    assert adaptive.neighbours_share(proposals, adaptive.by_target(proposals, before, 2)) == 0.5  # no model yet


def test_no_example_takes_all_that_the_model_asks_for():
    U, proposals = square(1600)
    U[[3, 40]] += 1.0  # two examples that help with everything
    scored = drive(U, proposals, 1600)
    had = np.bincount(scored.example, minlength=80)
    assert np.all((had[[3, 40]] >= 40) & (had[[3, 40]] < 45))  # twice the average, and neighbours that came after


def test_pairs_with_room():
    example = np.array([2, 0, 2, 2, 1, 0], np.int32)
    assert with_room(example, np.array([1, 0, 2])).tolist() == [True, True, True, False, False, False]


def test_a_round_looks_at_a_part_of_a_large_pool(monkeypatch):
    monkeypatch.setattr(plan, "LOOKED_AT", 30)
    U, proposals = square(1600)
    U[::10] += 0.3  # what neighbours alone do not see: a task has hardly more records than each has neighbours here
    parts = [plan._part(80, left, 0) for left in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(80))
    before = nothing_scored()
    for left in (4, 3, 2):
        before = append(before, plan.next_round(proposals, before, 1600, rounds_left=left), U)
    last = plan.next_round(proposals, before, 1600, rounds_left=1)
    modelled = np.repeat(np.arange(80), np.diff(last.indptr))[last.source == ADAPTIVE]
    assert len(modelled)
    assert np.isin(modelled, parts[1]).all()
    scored = append(before, last, U)
    assert len(scored) == len(np.unique(pairs(scored, 80))) == 1600
    found = scored.utility[scored.source == ADAPTIVE]
    assert found.mean() > U.mean()
    assert plan.hint(30) is None
    assert "30 of the 31 records" in str(plan.hint(31))


def test_most_of_the_value_at_a_tenth_of_the_pairs():
    U, prompts, responses = world(150, 2)
    key = np.arange(150)
    budget = 2250
    proposals = propose((prompts, responses), None, budget, key, key)
    every = Scored(
        *(np.indices(U.shape).reshape(2, -1).astype(np.int32)), U.ravel().astype(np.float32), np.zeros(U.size, np.uint8)
    )
    full = coverage(proposals, every)
    ours = coverage(proposals, drive(U, proposals, budget))
    pick = np.random.default_rng(0).choice(U.size, budget, replace=False)
    random = coverage(proposals, Scored(*(x[pick] for x in (every.example, every.target, every.utility, every.source))))
    assert random < 0.7 * full
    assert ours > 0.8 * full


def test_few_pairs_are_neighbours_and_self_pairs_alone():
    U, proposals = square(400)
    scored = drive(U, proposals, 400)
    counts = np.bincount(scored.source, minlength=5)
    assert counts.tolist() == [80, 320, 0, 0, 0]
    near = plan._near_pairs(proposals, np.arange(80) * 81, 320, np.random.default_rng(0))
    assert len(np.intersect1d(near, pairs(scored, 80))) == 320
    more = drive(U, proposals, 1600, scored=scored)  # a later budget has its random pairs all the same
    assert np.bincount(more.source, minlength=5)[RANDOM] > 60


def test_budget_may_change_and_be_continued():
    U, proposals = square(2000)
    scored = drive(U, proposals, 700, rounds=3)
    more = drive(U, proposals, 1500, scored=scored)
    assert len(more) == 1500
    assert np.array_equal(pairs(more, 80)[:700], pairs(scored, 80))
    assert (more.source == HELD_OUT).sum() > (scored.source == HELD_OUT).sum()
    assert len(plan.next_round(proposals, more, 1200)) == 0


def test_all_pairs_in_one_round():
    _, proposals = square(80 * 80)
    r = plan.next_round(proposals, nothing_scored(), 10**9)
    assert len(r) == 6400


def test_too_small_a_budget_is_refused():
    _, proposals = square(1000)
    with pytest.raises(InputError, match="320"):
        plan.next_round(proposals, nothing_scored(), 200)


def test_rectangular_block_has_no_self_pairs():
    U, prompts, responses = world(80)
    left, right = np.arange(50), np.arange(50, 80)
    proposals = propose((prompts[:50], responses[:50]), (prompts[50:], responses[50:]), 400, left, right)
    scored = drive(U[:50, 50:], proposals, 400)
    assert len(np.unique(pairs(scored, 30))) == 400
    assert not (scored.source == SELF).any()


def before_targets(budget, for_examples, seed=0):
    """A pool of 120 before 20 targets, planned for the one side or the other."""
    U, prompts, responses = world(140, seed)
    sides = [(prompts[at], responses[at]) for at in (slice(120), slice(120, None))]
    key = np.arange(140)
    return U[:120, 120:], propose(*sides, budget, key[:120], key[120:], for_examples=for_examples)


def test_for_examples_finds_the_best_targets_of_each_example():
    found = {True: [], False: []}
    for seed in range(3):
        for for_examples, shares in found.items():
            U, proposals = before_targets(480, for_examples, seed)
            scored = drive(U, proposals, 480)
            assert len(np.unique(pairs(scored, 20))) == len(scored) == 480
            best = np.zeros(120)
            np.maximum.at(best, scored.example, scored.utility)
            shares.append(best.sum() / np.maximum(U.max(axis=1), 0).sum())
    assert np.mean(found[True]) > np.mean(found[False]) + 0.03


def test_turning_exchanges_the_roles():
    _, proposals = before_targets(480, True)
    assert proposals.nearest.shape[0] == 120
    assert proposals.nearest.max() < 20
    turned = proposals.turned()
    assert turned.shape == (20, 120)
    assert not turned.for_examples
    there = plan.next_round(turned, nothing_scored(), 480)
    back = there.turned(120)
    pair = [np.repeat(np.arange(len(r.indptr) - 1), np.diff(r.indptr)) for r in (there, back)]
    sources = {(j, i): s for i, j, s in zip(pair[0], there.targets, there.source, strict=True)}
    assert sources == {(j, i): s for j, i, s in zip(pair[1], back.targets, back.source, strict=True)}
    ours = plan.next_round(proposals, nothing_scored(), 480)
    assert (ours.indptr.tolist(), ours.targets.tolist()) == (back.indptr.tolist(), back.targets.tolist())


def test_selection_for_examples_goes_by_their_best_targets():
    U, proposals = before_targets(480, True)
    every = np.indices(U.shape).reshape(2, -1).astype(np.int32)
    scored = Scored(every[0], every[1], U.ravel().astype(np.float32), np.full(U.size, RANDOM, np.uint8))
    best = np.sort(np.maximum(U.max(axis=1), 0))[::-1]
    assert coverage(proposals, scored) == pytest.approx(best[:36].sum(), rel=1e-5)
    assert settled(proposals, scored, scored)
    below = U.max(axis=1).argmin()
    raised = scored.utility.copy()
    raised[below * 20] = 9.0
    assert not settled(proposals, scored, Scored(every[0], every[1], raised, scored.source))


def test_self_pairs_join_copies_by_rank():
    left, right = self_pairs(np.array([5, 7, 5, 9]), np.array([9, 5, 5, 8]))
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (2, 2), (3, 0)]


def test_copies_are_not_candidates_for_each_other():
    U, prompts, responses = world(60)
    key = np.arange(60)
    key[1::2] = key[::2]
    proposals = propose((prompts, responses), None, 700, key, key)
    scored = drive(U[:60, :60], proposals, 700)
    chosen = np.isin(scored.source, (NEIGHBOUR, ADAPTIVE))
    assert (key[scored.example[chosen]] != key[scored.target[chosen]]).all()


def test_settled_says_whether_more_pairs_changed_a_selection():
    U, proposals = square(1500, n=100)
    half, whole = drive(U, proposals, 700), drive(U, proposals, 1500)
    assert settled(proposals, whole, whole)
    small = square(1000)
    assert not settled(small[1], *[drive(*small, 1000)] * 2)
    assert not settled(proposals, half, whole)
    # the order of the pairs says nothing, nor do pairs that harm
    order = np.random.default_rng(0).permutation(len(whole))
    harm = np.full(1, -0.5, np.float32)
    more = Scored(
        np.r_[whole.example[order], np.int32(0)],
        np.r_[whole.target[order], np.int32(1)],
        np.r_[whole.utility[order], harm],
        np.r_[whole.source[order], np.uint8(ADAPTIVE)],
    )
    assert settled(proposals, whole, more)
    # one pair that covers a target far better than all others does
    more.utility[-1] = 9.0
    assert not settled(proposals, whole, more)


def test_sparse_greedy_is_greedy():
    rng = np.random.default_rng(0)
    S = np.where(rng.random((40, 50)) < 0.2, rng.random((40, 50)), 0).astype(np.float32)
    J, T = np.nonzero(S)
    indptr = np.searchsorted(J, np.arange(41)).astype(np.int64)
    chosen, value = sparse_greedy(indptr, T.astype(np.int32), S[J, T], 12, 50)
    covered, expected = np.zeros(50, np.float32), []
    for _ in range(12):
        gains = np.maximum(S - covered, 0).sum(1, dtype=np.float64)
        gains[expected] = -1
        expected.append(int(gains.argmax()))
        covered = np.maximum(covered, S[expected[-1]])
    assert chosen.tolist() == expected
    assert value == pytest.approx(covered.sum(), rel=1e-6)


def test_candidates_are_the_best_unscored():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 90, 3)).astype(np.float32), rng.standard_normal((2, 70, 3)).astype(np.float32)
    sd = rng.random(70).astype(np.float32)
    mask = rng.random((70, 90)) < 0.3
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))])
    key = np.arange(90)
    found = best_unscored(left, right, 0.1, sd, indptr, np.nonzero(mask)[1].astype(np.int32), key, key[:70], 5, 2.0)
    each = np.einsum("ejr,eir->eij", left, right)
    bound = each.mean(0) + 0.1 + 2 * np.sqrt(each.var(0) + sd[:, None] ** 2)
    bound[mask] = -np.inf
    bound[np.arange(70), np.arange(70)] = -np.inf
    best = np.sort(bound, 1)[:, -5:]
    assert np.sort(found[1] + 2 * found[2], 1) == pytest.approx(best, abs=1e-4)


def test_expected_change():
    assert expected_change([100, 200], [10.0, 11.0], 200) == pytest.approx(1 / 11, rel=1e-6)
    assert expected_change([100, 200], [10.0, 10.0], 200) == 0
    assert np.isnan(expected_change([100], [10.0], 200))


def test_features_are_lengths_and_losses_of_whoever_is_a_target():
    texts = (["a", "bb", "ccc"], ["x", "y", "zz"])
    base = np.array([[0.5, -1.0], [0.7, -2.0]], np.float32)
    keys = np.array([7, 8, 9]), np.array([9, 7])
    found = propose(texts, (["ccc", "a"], ["zz", "x"]), 6, *keys, base=base)
    assert found.example_features[:, :2] == pytest.approx(np.log1p([[1, 1], [2, 1], [3, 2]]))
    assert found.target_features[:, 2:] == pytest.approx(base)
    # a target's own; the mean for a record that is no target
    assert found.example_features[:, 2:] == pytest.approx(np.array([[0.7, -2.0], [0.6, -1.5], [0.5, -1.0]]))
    assert propose(texts, None, 6, *keys[:1] * 2).target_features.shape == (3, 2)

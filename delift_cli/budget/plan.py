"""Which pairs to score next: rounds of (example, target) pairs within a budget.

The first round holds every record's own pair, each target's nearest examples (nearly all of a few pairs for each
target, half of many: see `proposals.shares`), and a stratified random sample; a fifth of that sample is held out of
every fit. Each later round goes on with the nearest examples and, by the model of `estimate` fitted to what is scored,
beyond them, each with a share of its pairs that follows from what either has found so far (`adaptive`). What is for the
model goes to the pairs that greedy selections over an optimistic kernel rely on, then to those expected to improve a
target's best few (expected improvement over the fourth best, over the second where pairs are few), and gives no example
more than twice the average (30 at least). Planning is for the clip kernel without self-pairs, which serves the other
kernel too.

A pool before a target set (proposals `for_examples`) is planned with the roles exchanged: there each example is to find
its best targets, for that is what it counts for.

A round is a function of the seed, the budget and the set of scored pairs: nothing else is remembered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.large_pools import EXACT
from ..errors import InputError
from .adaptive import BOLD, BOLD_FROM, CAUTIOUS, Aim, by_target, improving_pairs, neighbours_share
from .candidates import contains
from .estimate import Estimate, fit
from .measured import ADAPTIVE, HELD_OUT, NEIGHBOUR, RANDOM, SELF, Scored
from .proposals import Proposals, self_pairs, shares

ROUNDS = 8  # each learns from those before; more were no better, and an example costs its prefix in each
ROUNDS_OF_LARGE = 5  # where planning a round takes minutes
HELD_OUT_SHARE = 0.2  # of the random pairs
LOOKED_AT = 50_000  # examples that a round looks for the best unscored pairs among, another part of a larger pool each


@dataclass(frozen=True)
class Round:
    """Pairs to score, by example: targets[indptr[j]:indptr[j+1]] (ascending) for example j, with their source."""

    indptr: NDArray[np.int64]
    targets: NDArray[np.int32]
    source: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.targets)

    def turned(self, n: int) -> Round:
        """The same pairs with the roles of examples and targets exchanged; `n`: how many examples there are then."""
        m = len(self.indptr) - 1
        target = np.repeat(np.arange(m, dtype=np.int64), np.diff(self.indptr))
        return _round(self.targets * np.int64(m) + target, self.source, n, m)


def hint(records: int) -> str | None:
    """What to say of planning with so many records; None where every round looks at all of them."""
    if records <= LOOKED_AT:
        return None
    return f"each round looks for the best pairs of {LOOKED_AT:,} of the {records:,} records at most, in turn"


def rounds_for(shape: tuple[int, int]) -> int:
    """In how many rounds a budget of a block of this shape is planned."""
    return ROUNDS if max(shape) <= EXACT else ROUNDS_OF_LARGE


def fit_scored(proposals: Proposals, scored: Scored, seed: int) -> Estimate:
    """The model fitted to all scored pairs except self-pairs and those held out."""
    own = proposals.example_key[scored.example] == proposals.target_key[scored.target]
    train = scored[~own & (scored.source != HELD_OUT)]
    return fit(
        train.example,
        train.target,
        train.utility,
        proposals.example_graph,
        proposals.target_graph,
        random=train.source == RANDOM,
        features=_features(proposals, scored, own),
        proxy=proposals.proxy,
        seed=seed,
    )


def _features(
    proposals: Proposals, scored: Scored, own: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of examples and targets, with the utility of each record before itself (the mean where unknown)."""
    of_key = dict(zip(proposals.example_key[scored.example[own]].tolist(), scored.utility[own].tolist(), strict=True))
    mean = float(np.mean([*of_key.values()])) if of_key else 0.0
    sides = (proposals.example_key, proposals.example_features), (proposals.target_key, proposals.target_features)
    return tuple(  # type: ignore[return-value]
        np.column_stack([features, np.array([of_key.get(k, mean) for k in key.tolist()], np.float32)])
        for key, features in sides
    )


def next_round(
    proposals: Proposals,
    scored: Scored,
    budget: int,
    *,
    rounds_left: int = ROUNDS,
    seed: int = 0,
    later: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Round:
    """The pairs to score now; empty when the budget is spent.

    Args:
        budget: pairs in all, those already scored included; it may change from call to call.
        rounds_left: how many rounds, this one included, the rest should be divided into.
        later: examples and targets that came after earlier rounds were planned; this round begins with them (None:
            there are none).

    Raises:
        InputError: a first budget does not even reach each record twice.
    """
    n, m = proposals.shape
    if proposals.for_examples:
        turned = next_round(
            proposals.turned(),
            scored.turned(),
            budget,
            rounds_left=rounds_left,
            seed=seed,
            later=later and later[::-1],
        )
        return turned.turned(n)
    keys = scored.example.astype(np.int64) * m + scored.target
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    scored = scored[order]
    budget = min(budget, n * m)
    left = budget - len(keys)
    if left <= 0:
        return _round(np.empty(0, np.int64), np.empty(0, np.uint8), n, m)
    if len(keys) == 0 and budget < min(2 * (n + m), n * m):
        raise InputError(
            f"a budget of {budget:,} pairs is too small for {n:,} examples and {m:,} targets: "
            f"give at least {2 * (n + m):,} pairs ({100 * 2 * (n + m) / (n * m):.2g} %)"
        )
    rng = np.random.default_rng([seed, len(keys), left])
    count = np.bincount(scored.source, minlength=5)
    own_left, own_right = self_pairs(proposals.example_key, proposals.target_key)
    own = own_left * m + own_right
    unscored_own = own[~contains(keys, own)][:left]
    grown = len(keys) > 0 and later is not None and any(map(len, later))
    if grown:  # what is left is divided as a first budget is
        count[:] = 0
    free = left - len(unscored_own) if grown else budget - len(own)
    near_share, random_share = shares(budget - len(own), m, n)
    want_near = round(near_share * free) - int(count[NEIGHBOUR])
    begins = want_near > 0.1 * budget or (random_share > 0 and not count[[RANDOM, HELD_OUT]].any())
    if len(keys) == 0 or grown or (begins and rounds_left > 1) or left == n * m - len(keys):
        own = unscored_own
        want_random = max(0, round(random_share * free) - int(count[RANDOM] + count[HELD_OUT]))
        everything = left == n * m - len(keys)
        near = _near_pairs(proposals, _merge(keys, own), max(0, min(want_near, left - len(own))), rng)
        taken = _merge(keys, own, near)
        rest = left - len(own) - len(near)
        missing = max(0, min(want_near, left - len(own)) - len(near))  # lists too short: at random
        wanted = rest if everything else min(rest, want_random + missing)
        if grown and later and not everything:
            random = _random_new_pairs(taken, wanted, later, n, m, rng)
        else:
            random = _random_pairs(taken, wanted, range(n), range(m), m, rng)
        held = np.zeros(len(random), bool)
        held[: int(HELD_OUT_SHARE * min(want_random, len(random)))] = True
        rng.shuffle(held)
        pairs = np.concatenate([own, near, random])
        source = np.repeat(np.array([SELF, NEIGHBOUR, RANDOM], np.uint8), [len(own), len(near), len(random)])
        source[len(own) + len(near) :][held] = HELD_OUT
        return _round(pairs, source, n, m)
    quota = left if rounds_left <= 1 else math.ceil(left / rounds_left)
    aim = BOLD if budget >= BOLD_FROM * m else CAUTIOUS
    return _later_round(proposals, scored, keys, quota, aim, rounds_left, seed, rng)


def _later_round(
    proposals: Proposals,
    scored: Scored,
    keys: NDArray[np.int64],
    quota: int,
    aim: Aim,
    rounds_left: int,
    seed: int,
    rng: np.random.Generator,
) -> Round:
    """`quota` pairs by what was found so far. `scored` is in the order of `keys`, example * m + target, ascending."""
    n, m = proposals.shape
    found = by_target(proposals, scored, aim.nth)
    near = _near_pairs(proposals, keys, round(neighbours_share(proposals, found) * quota), rng)
    model, among = fit_scored(proposals, scored, seed), _part(n, rounds_left, seed)
    best = improving_pairs(proposals, scored, found, model, near, quota - len(near), rng, among, aim.optimism)
    more = _random_pairs(_merge(keys, near, best), quota - len(near) - len(best), range(n), range(m), m, rng)
    source = np.repeat(np.array([NEIGHBOUR, ADAPTIVE, RANDOM], np.uint8), [len(near), len(best), len(more)])
    return _round(np.concatenate([near, best, more]), source, n, m)


def _round(pairs: NDArray[np.int64], source: NDArray[np.uint8], n: int, m: int) -> Round:
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    indptr = np.searchsorted(pairs, np.arange(n + 1, dtype=np.int64) * m)
    return Round(indptr.astype(np.int64), (pairs % m).astype(np.int32), source[order])


def _merge(*parts: NDArray[np.int64]) -> NDArray[np.int64]:
    merged = np.concatenate(parts)
    merged.sort(kind="stable")
    return merged


def _near_pairs(
    proposals: Proposals, taken: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The first `count` unscored neighbour pairs: all targets' nearest, then all targets' second nearest, ..."""
    _, m = proposals.shape
    target = rng.permutation(m)  # so that a last rank that is not taken whole falls on any of the targets
    found, total = [], 0
    for examples in proposals.nearest.T:
        if total >= count:
            break
        example = examples[target].astype(np.int64)
        pairs = example[example >= 0] * m + target[example >= 0]
        pairs = pairs[~contains(taken, pairs)][: count - total]
        found.append(pairs)
        total += len(pairs)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _random_pairs(
    taken: NDArray[np.int64], count: int, examples: range, targets: range, m: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` pairs of these examples and targets (of m) not yet taken, each record drawn equally often."""
    rows, columns = len(examples), len(targets)
    row, column = taken // m - examples.start, taken % m - targets.start
    here = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    occupied = int(here.sum())
    count = min(count, rows * columns - occupied)
    if count <= 0:
        return np.empty(0, np.int64)
    if 2 * (occupied + count) > rows * columns:
        mask = np.ones((rows, columns), bool)
        mask[row[here], column[here]] = False
        row, column = np.divmod(rng.choice(np.flatnonzero(mask), count, replace=False), columns)
        return (row + examples.start) * m + column + targets.start
    found = np.empty(0, np.int64)
    while len(found) < count:
        missing = count - len(found)
        row = np.concatenate([rng.permutation(rows) for _ in range(-(-missing // rows))])[:missing]
        column = np.concatenate([rng.permutation(columns) for _ in range(-(-missing // columns))])[:missing]
        pairs = np.concatenate([found, (row + examples.start) * m + column + targets.start])
        _, first = np.unique(pairs, return_index=True)
        pairs = pairs[np.sort(first)]
        found = pairs[~contains(taken, pairs)]
    return found


def _random_new_pairs(
    taken: NDArray[np.int64],
    count: int,
    later: tuple[NDArray[np.int64], NDArray[np.int64]],
    n: int,
    m: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """`count` pairs of new examples with any target and of known examples with new targets, as dense in both: together
    with what was drawn of the known ones they are a sample of all pairs."""
    by_age = [
        np.concatenate([np.setdiff1d(np.arange(size), new), new]) for size, new in zip((n, m), later, strict=True)
    ]
    rank = [np.argsort(order) for order in by_age]
    taken = np.sort(rank[0][taken // m] * m + rank[1][taken % m])
    known = n - len(later[0]), m - len(later[1])
    old, new = range(known[0]), range(known[0], n)
    share = len(new) * m / (n * m - known[0] * known[1])
    of_new = round(count * share)
    below = _random_pairs(taken, of_new, new, range(m), m, rng)
    right = _random_pairs(taken, count - of_new, old, range(known[1], m), m, rng)
    drawn = np.concatenate([below, right])
    return by_age[0][drawn // m] * m + by_age[1][drawn % m]


def _part(n: int, rounds_left: int, seed: int) -> NDArray[np.int64]:
    """The examples that a round looks at, ascending: all, or one of the parts of a large pool, in turn. Each of a
    target's best is in one of them, and the next best of a part are about as good."""
    parts = math.ceil(n / LOOKED_AT)
    order = np.arange(n) if parts == 1 else np.random.default_rng([seed, n]).permutation(n)
    return np.sort(order[rounds_left % parts :: parts])

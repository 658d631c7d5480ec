"""Which pairs to score next: rounds of (example, target) pairs within a budget.

The first round holds every record's own pair, each target's nearest examples, and a stratified random sample;
a fifth of that sample is held out of every fit. Each later round fits the model of `estimate` to what is scored and
spends its share half on the pairs expected to improve a target's best few (expected improvement over the fourth
best), half on the pairs that greedy selections over an optimistic kernel rely on. Planning is for the clip kernel
without self-pairs, which serves the other kernel too.

A round is a function of the seed, the budget and the set of scored pairs: nothing else is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .estimate import Estimate, Graph, best_unscored, fit, graph
from .lexical import grams, neighbours

# Why a pair was scored.
SELF, NEIGHBOUR, RANDOM, HELD_OUT, ADAPTIVE = range(5)

ROUNDS = 5
NEIGHBOUR_SHARE, RANDOM_SHARE, HELD_OUT_SHARE = 0.5, 0.07, 0.2  # of the budget without self-pairs; of the random
DEGREE = 10
EMBEDDED_WEIGHT = 0.5  # of the cosine of two embeddings beside that of two texts
OPTIMISM = 2.0  # standard deviations
NTH_BEST = 4
KEEP_SHARES = (0.1, 0.3)  # sizes of the selections that are planned for, as shares of the examples
GREEDY_SHARE = 0.5
DRAWS = 8
SETTLED_RECORDS = 10  # in the smallest selection, before its staying the same means something
MIN_RANDOM = 30


@dataclass(frozen=True)
class Proposals:
    """What is known of a block of n examples x m targets before anything is scored.

    `nearest` int32 [m, q]: examples by falling similarity to the target, -1 where there are none left.
    `example_key` int64 [n], `target_key` int64 [m]: equal keys mark a record and its copies (self-pairs).
    """

    nearest: NDArray[np.int32]
    example_graph: Graph
    target_graph: Graph
    example_key: NDArray[np.int64]
    target_key: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.example_key), len(self.target_key)


@dataclass(frozen=True)
class Scored:
    """Scored pairs, four arrays of one length in any order; `source` says why each was scored."""

    example: NDArray[np.int32]
    target: NDArray[np.int32]
    utility: NDArray[np.float32]
    source: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.example)


@dataclass(frozen=True)
class Round:
    """Pairs to score, by example: targets[indptr[j]:indptr[j+1]] (ascending) for example j, with their source."""

    indptr: NDArray[np.int64]
    targets: NDArray[np.int32]
    source: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.targets)


def nothing_scored() -> Scored:
    """The state before the first round."""
    return Scored(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.uint8))


def propose(
    examples: tuple[Sequence[str], Sequence[str]],
    targets: tuple[Sequence[str], Sequence[str]] | None,
    budget: int,
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    embeddings: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Proposals:
    """Neighbours by text and embedding. `examples`, `targets`: (prompts, responses); targets None: the same records.

    `budget` (pairs) decides how many neighbours of each target are looked up. The graphs, along which estimates are
    smoothed, are by text alone: with embeddings in them the estimates were worse.

    Args:
        embeddings: of examples and targets, float32 [n, d] and [m, d], rows of length 1; None: text alone.
    """
    n, m = len(example_key), len(target_key)
    points = None if embeddings is None else _points(*embeddings)
    width = min(n, math.ceil(1.5 * NEIGHBOUR_SHARE * budget / max(m, 1)) + DEGREE)
    if targets is None:
        vectors = grams(*examples)
        nearest, similarity = neighbours(
            vectors, vectors, width if points is None else DEGREE, example_key, example_key
        )
        both = graph(nearest, similarity, DEGREE)
        if points is not None:
            nearest, _ = neighbours(vectors, vectors, width, example_key, example_key, points=points)
        return Proposals(nearest, both, both, example_key, target_key)
    vectors = grams([*examples[0], *targets[0]], [*examples[1], *targets[1]])
    ours, theirs = vectors.rows(0, n), vectors.rows(n, n + m)
    nearest, _ = neighbours(theirs, ours, width, target_key, example_key, points=points)
    return Proposals(
        nearest,
        graph(*neighbours(ours, ours, DEGREE, example_key, example_key), DEGREE),
        graph(*neighbours(theirs, theirs, DEGREE, target_key, target_key), DEGREE),
        example_key,
        target_key,
    )


def _points(
    examples: NDArray[np.float32], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of targets and examples, vectors whose products are weighted cosines of what is not common to all records."""
    common = np.concatenate([examples, targets]).mean(axis=0, dtype=np.float64)

    def scaled(embeddings: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
        own = embeddings - common
        return np.asarray(own * (factor / np.linalg.norm(own, axis=1, keepdims=True).clip(1e-12)), np.float32)

    return scaled(targets, EMBEDDED_WEIGHT), scaled(examples, 1.0)


def self_pairs(
    example_key: NDArray[np.int64], target_key: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One pair for each record that is on both sides: the r-th example of a key with the r-th target of that key."""

    def occurrence(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        return order, np.arange(len(key)) - np.searchsorted(ordered, ordered)

    left, left_rank = occurrence(example_key)
    right, right_rank = occurrence(target_key)
    ranked = {
        (int(key), int(rank)): int(at) for key, rank, at in zip(target_key[right], right_rank, right, strict=True)
    }
    found = [
        (int(at), ranked[int(key), int(rank)])
        for key, rank, at in zip(example_key[left], left_rank, left, strict=True)
        if (int(key), int(rank)) in ranked
    ]
    pairs = np.array(sorted(found), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def fit_scored(proposals: Proposals, scored: Scored, seed: int) -> Estimate:
    """The model fitted to all scored pairs except self-pairs and those held out."""
    own = proposals.example_key[scored.example] == proposals.target_key[scored.target]
    train = ~own & (scored.source != HELD_OUT)
    random = train & (scored.source == RANDOM)
    mean = float(scored.utility[random].mean(dtype=np.float64)) if random.sum() >= MIN_RANDOM else None
    return fit(
        scored.example[train],
        scored.target[train],
        scored.utility[train],
        proposals.example_graph,
        proposals.target_graph,
        mean=mean,
        seed=seed,
    )


def next_round(
    proposals: Proposals,
    scored: Scored,
    budget: int,
    *,
    rounds_left: int = ROUNDS,
    seed: int = 0,
    planned_for: tuple[int, int] | None = None,
) -> Round:
    """The pairs to score now; empty when the budget is spent.

    `budget`: pairs in all, those already scored included; it may change from call to call. `rounds_left`: how many
    rounds, this one included, the rest should be divided into. `planned_for`: how many examples and targets there were
    when earlier rounds were planned; the others are new, and this round begins with them (None: none is). Raises
    InputError when a first budget does not even reach each record twice.
    """
    n, m = proposals.shape
    keys = scored.example.astype(np.int64) * m + scored.target
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    scored = Scored(scored.example[order], scored.target[order], scored.utility[order], scored.source[order])
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
    unscored_own = own[~_contains(keys, own)][:left]
    grown = len(keys) > 0 and planned_for not in (None, (n, m))
    if grown:  # what is left is divided as a first budget is
        count[:] = 0
    free = left - len(unscored_own) if grown else budget - len(own)
    want_near = int(NEIGHBOUR_SHARE * free) - int(count[NEIGHBOUR])
    if len(keys) == 0 or grown or (want_near > 0.1 * budget and rounds_left > 1) or left == n * m - len(keys):
        own = unscored_own
        want_random = max(0, int(RANDOM_SHARE * free) - int(count[RANDOM] + count[HELD_OUT]))
        everything = left == n * m - len(keys)
        near = _near_pairs(proposals, _merge(keys, own), max(0, min(want_near, left - len(own))), rng)
        taken = _merge(keys, own, near)
        rest = left - len(own) - len(near)
        missing = max(0, min(want_near, left - len(own)) - len(near))  # lists too short: at random
        wanted = rest if everything else min(rest, want_random + missing)
        if grown and planned_for and not everything:
            random = _random_new_pairs(taken, wanted, planned_for, n, m, rng)
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
    pairs = _adaptive_pairs(proposals, scored, keys, quota, rng, seed)
    source = np.full(len(pairs), ADAPTIVE, np.uint8)
    if len(pairs) < quota:
        more = _random_pairs(_merge(keys, pairs), quota - len(pairs), range(n), range(m), m, rng)
        pairs = np.concatenate([pairs, more])
        source = np.concatenate([source, np.full(len(more), RANDOM, np.uint8)])
    return _round(pairs, source, n, m)


def _round(pairs: NDArray[np.int64], source: NDArray[np.uint8], n: int, m: int) -> Round:
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    indptr = np.searchsorted(pairs, np.arange(n + 1, dtype=np.int64) * m)
    return Round(indptr.astype(np.int64), (pairs % m).astype(np.int32), source[order])


def _contains(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `wanted` are in the ascending `keys`."""
    if len(keys) == 0:
        return np.zeros(len(wanted), bool)
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.asarray(keys[at] == wanted)


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
        pairs = pairs[~_contains(taken, pairs)][: count - total]
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
        found = pairs[~_contains(taken, pairs)]
    return found


def _random_new_pairs(
    taken: NDArray[np.int64], count: int, known: tuple[int, int], n: int, m: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` pairs of new examples with any target and of known examples with new targets, as dense in both: together
    with what was drawn of the known ones they are a sample of all pairs."""
    old, new = range(known[0]), range(known[0], n)
    share = len(new) * m / (n * m - known[0] * known[1])
    of_new = round(count * share)
    below = _random_pairs(taken, of_new, new, range(m), m, rng)
    right = _random_pairs(taken, count - of_new, old, range(known[1], m), m, rng)
    return np.concatenate([below, right])


def _adaptive_pairs(
    proposals: Proposals,
    scored: Scored,
    keys: NDArray[np.int64],
    quota: int,
    rng: np.random.Generator,
    seed: int,
) -> NDArray[np.int64]:
    """`quota` unscored pairs (fewer when candidates run out), the greedy's first, then by expected improvement."""
    n, m = proposals.shape
    model = fit_scored(proposals, scored, seed)
    width = min(n, max(32, 3 * math.ceil(quota / m)))
    by_target = np.argsort(scored.target, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(scored.target, minlength=m))]).astype(np.int64)
    example, mean, sd = best_unscored(
        model.left, model.right, model.mean, model.target_sd, indptr, scored.example[by_target],
        proposals.example_key, proposals.target_key, width, OPTIMISM,
    )  # fmt: skip
    target = np.repeat(np.arange(m, dtype=np.int32), width)
    example, mean, sd = example.ravel(), mean.ravel(), sd.ravel()
    real = example >= 0
    example, target, mean, sd = example[real], target[real], mean[real], sd[real]
    best = _nth_best(
        indptr, scored.example[by_target], scored.utility[by_target], proposals.example_key,
        proposals.target_key, NTH_BEST,
    )  # fmt: skip
    wanted = _relied_on(proposals, scored, example, target, mean, sd, int(GREEDY_SHARE * quota), rng)
    improvement = _expected_improvement(mean, sd, best[target])
    improvement[wanted] = np.inf
    chosen = np.argsort(-improvement, kind="stable")[:quota]
    return example[chosen].astype(np.int64) * m + target[chosen]


@nb.njit(cache=True)
def _nth_best(
    indptr: NDArray[np.int64],
    examples: NDArray[np.int32],
    utility: NDArray[np.float32],
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    nth: int,
) -> NDArray[np.float32]:
    """Each target's nth best scored utility without self-pairs, at least 0."""
    out = np.zeros(len(target_key), np.float32)
    best = np.empty(nth, np.float32)
    for i in range(len(target_key)):
        best[:] = 0.0  # ascending
        for e in range(indptr[i], indptr[i + 1]):
            if utility[e] > best[0] and example_key[examples[e]] != target_key[i]:
                p = 0
                while p + 1 < nth and best[p + 1] < utility[e]:
                    best[p] = best[p + 1]
                    p += 1
                best[p] = utility[e]
        out[i] = best[0]
    return out


@nb.njit(cache=True)
def _expected_improvement(
    mean: NDArray[np.float32], sd: NDArray[np.float32], best: NDArray[np.float32]
) -> NDArray[np.float32]:
    """E[max(0, U - best)] of a normal U."""
    out = np.empty(len(mean), np.float32)
    for e in range(len(mean)):
        s = max(sd[e], 1e-12)
        z = (mean[e] - best[e]) / s
        density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        out[e] = (mean[e] - best[e]) * 0.5 * math.erfc(-z / math.sqrt(2.0)) + s * density
    return out


def _relied_on(
    proposals: Proposals,
    scored: Scored,
    example: NDArray[np.int32],
    target: NDArray[np.int32],
    mean: NDArray[np.float32],
    sd: NDArray[np.float32],
    quota: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Up to `quota` candidates (positions) that greedy selections use to cover a target.

    The kernel holds scored pairs at their utility and candidates at an optimistic one: first all at the upper bound,
    then at random heights above the estimate. A candidate once chosen stands at its estimate from then on.
    """
    n, m = proposals.shape
    use = (scored.utility > 0) & (proposals.example_key[scored.example] != proposals.target_key[scored.target])
    rows = np.concatenate([scored.example[use], example])
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
    columns = np.concatenate([scored.target[use], target])[order]
    known = int(use.sum())
    asked = np.zeros(len(example), bool)
    found: list[NDArray[np.int64]] = []
    total = 0
    for draw in range(DRAWS):
        height = np.ones(len(example), np.float32)
        if draw:
            height = np.abs(rng.standard_normal(len(example), np.float32))
        optimistic = np.where(asked, mean, mean + OPTIMISM * sd * height)
        values = np.concatenate([scored.utility[use], optimistic.astype(np.float32)])[order].clip(0)
        for share in KEEP_SHARES:
            chosen, _ = _sparse_greedy(indptr, columns, values, max(1, round(share * n)), m)
            cover = _coverers(indptr, columns, values, chosen, m)
            at = order[cover[cover >= 0]] - known
            at = at[at >= 0]
            at = at[~asked[at]]
            at = at[np.argsort(-optimistic[at], kind="stable")][: quota - total]
            asked[at] = True
            found.append(at)
            total += len(at)
            if total >= quota:
                return np.concatenate(found)
    return np.concatenate(found)


@nb.njit(cache=True)
def _place(heap: NDArray[np.int64], bound: NDArray[np.float64], size: int, j: int) -> int:
    """Put row j in place of the heap's root (highest bound, then lowest row, first); where it came to stand."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size:
            a, b = heap[child], heap[child + 1]
            if bound[b] > bound[a] or (bound[b] == bound[a] and b < a):
                child += 1
        c = heap[child]
        if bound[c] < bound[j] or (bound[c] == bound[j] and c > j):
            break
        heap[at] = c
        at = child
    heap[at] = j
    return at


@nb.njit(cache=True)
def _sparse_greedy(
    indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    k: int,
    m: int,
) -> tuple[NDArray[np.int64], float]:
    """Lazy greedy facility location on a sparse non-negative kernel (CSR by example): chosen rows, value."""
    n = len(indptr) - 1
    bound = np.zeros(n)
    for j in range(n):
        for e in range(indptr[j], indptr[j + 1]):
            bound[j] += values[e]
    heap = np.argsort(-bound, kind="mergesort")  # a sorted array is a heap
    covered = np.zeros(m, np.float32)
    chosen = np.empty(min(k, n), np.int64)
    taken = 0
    value = 0.0
    while taken < len(chosen):
        size = n - taken
        j = heap[0]
        bound[j] = 0.0
        for e in range(indptr[j], indptr[j + 1]):
            bound[j] += max(values[e] - covered[columns[e]], np.float32(0))
        if _place(heap, bound, size, j) > 0:
            continue
        if bound[j] <= 0.0:
            break
        chosen[taken] = j
        taken += 1
        value += bound[j]
        for e in range(indptr[j], indptr[j + 1]):
            covered[columns[e]] = max(covered[columns[e]], values[e])
        if size > 1:
            _place(heap, bound, size - 1, heap[size - 1])
    return chosen[:taken].copy(), value


@nb.njit(cache=True)
def _coverers(
    indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    chosen: NDArray[np.int64],
    m: int,
) -> NDArray[np.int64]:
    """The entry that covers each target best among the chosen rows; -1 where nothing positive does."""
    covered = np.zeros(m, np.float32)
    entry = np.full(m, -1, np.int64)
    for j in chosen:
        for e in range(indptr[j], indptr[j + 1]):
            if values[e] > covered[columns[e]]:
                covered[columns[e]] = values[e]
                entry[columns[e]] = e
    return entry


def coverage(proposals: Proposals, scored: Scored, share: float = 0.3) -> float:
    """Facility location (clip kernel, self-pairs excluded) that greedy reaches on scored pairs alone, with `share`
    of the examples: what a run can watch from round to round, and a lower bound of the true value."""
    return _greedy_on_scored(proposals, scored, share)[1]


def settled(proposals: Proposals, before: Scored, after: Scored) -> bool:
    """Did the pairs that `after` has more than `before` leave the selections that are planned for as they were?

    They are those of `coverage`, with each of KEEP_SHARES, in any order. Of a small pool they hold so few records that
    staying the same says nothing: then no.
    """
    if min(KEEP_SHARES) * len(proposals.example_key) < SETTLED_RECORDS:
        return False
    return all(
        {*_greedy_on_scored(proposals, before, share)[0].tolist()}
        == {*_greedy_on_scored(proposals, after, share)[0].tolist()}
        for share in KEEP_SHARES
    )


def _greedy_on_scored(proposals: Proposals, scored: Scored, share: float) -> tuple[NDArray[np.int64], float]:
    n, m = proposals.shape
    use = (scored.utility > 0) & (proposals.example_key[scored.example] != proposals.target_key[scored.target])
    order = np.lexsort((scored.target[use], scored.example[use]))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(scored.example[use], minlength=n))]).astype(np.int64)
    columns, values = scored.target[use][order], scored.utility[use][order]
    chosen, value = _sparse_greedy(indptr, columns, values, max(1, round(share * n)), m)
    return chosen, float(value)


def expected_change(pairs: Sequence[int], values: Sequence[float], more: int) -> float:
    """By which share `more` pairs would be expected to raise the coverage, from its course over the rounds.

    The last round's rise per doubling of the pairs is taken to continue; rises usually shrink, so this rather says
    too much.
    NaN for fewer than two rounds.
    """
    if len(pairs) < 2 or values[-1] <= 0 or pairs[-1] <= pairs[-2]:
        return float("nan")
    slope = (values[-1] - values[-2]) / math.log(pairs[-1] / pairs[-2])
    return max(0.0, slope * math.log1p(more / pairs[-1]) / values[-1])

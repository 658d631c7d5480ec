"""Estimates of the pairs that were not scored, from those that were.

The model is a matrix factorisation smoothed over lexical neighbours: utility[j, i] = mean + a_j + b_i + l_j · r_i,
where records with similar texts are drawn towards similar factors (they act alike as examples, and are helped alike
as targets), and one with no such neighbours towards none. It is the minimum over L, R of

    Σ_scored (u - mean - L_j·R_i)² + pseudo Σ_all (L_j·R_i)² + λ (|L|² + |R|²)
        + γ Σ_neighbours w (|L_j - L_j'|² + |R_i - R_i'|²)

found by alternating ridge regressions. The second term, some pseudo-observations of the mean per row, works against
the bias of a sample in which good pairs are over-represented; the mean is that of the random pairs. Several fits from
different random starts are averaged; their spread and the residuals of each target give a standard deviation.

What features of the records (lengths, losses without an example, the utility of a record before itself) say of the
effects a_j and b_i is found first, on the random pairs alone, and taken off the utilities u; it comes back at the end.

Where a proxy's utilities are known (`budget.proxy`), they are taken off in the same way, as much of them as the random
pairs show, and come back as further factors.

Each of these fits leaves other random pairs out. What it says of them shows how far the estimates go astray where pairs
were not chosen for being good: by the slope and level of a line through all of them they are drawn back to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ..compiled import jit, threads_for
from ..compressed import by_row

RANK = 12
MEMBERS = 4
SWEEPS = 10
RIDGE = 0.1  # λ, for utilities of unit standard deviation
SMOOTHING = 1.0  # γ, same unit
LEAST_DEGREE = 1.0  # of a record: with fewer neighbours its factors are drawn to 0 for what is missing
EFFECT_RIDGE, EFFECT_SMOOTHING = 0.5, 2.0  # the same for the additive effects
PSEUDO, PSEUDO_SHARE = 2.0, 0.1  # pseudo-observations of the mean per row: at least, and per scored pair
SHRINK_PAIRS = 3.0  # a target's residual variance counts as if seen on this many further average pairs
CAUTION = 1.0  # standard deviations taken off an estimate that a selection chooses from
SAMPLE = 2_000_000  # pairs that one member is trained on, at most
MIN_MEAN, MIN_RANDOM = 5, 30  # random pairs that say something of a mean; of a slope
TREND_RIDGE = 20.0  # for features and utilities of unit standard deviation
RATE = 0.5  # nanoseconds that one thread takes for a product
LEFT_OUT = 0.05  # of all pairs, random ones that a member leaves out, at most


Factors: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]  # [n, r], [m, r]: products stand for pairs


@dataclass(frozen=True)
class Graph:
    """Weighted neighbours of each record, symmetric, in CSR form."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32]


def graph(indices: NDArray[np.int32], similarities: NDArray[np.float32], degree: int = 10) -> Graph:
    """Symmetric graph of the first `degree` neighbours in lists as `ngrams.neighbours` returns (records x k)."""
    n = len(indices)
    indices, similarities = indices[:, :degree], similarities[:, :degree]
    row = np.repeat(np.arange(n, dtype=np.int64), indices.shape[1])
    column, weight = indices.ravel().astype(np.int64), similarities.ravel()
    keep = (column >= 0) & (weight > 0)
    row, column, weight = row[keep], column[keep], weight[keep]
    key, first = np.unique(
        np.concatenate([row * n + column, column * n + row]), return_index=True
    )  # an edge found from both ends counts once
    return Graph(
        np.searchsorted(key, np.arange(n + 1, dtype=np.int64) * n),
        (key % max(n, 1)).astype(np.int32),
        np.concatenate([weight, weight])[first].astype(np.float32),
    )


@dataclass(frozen=True)
class Estimate:
    """Fitted factors of the members, float32: left [members, n, r], right [members, m, r]; a pair's estimate is
    mean + the members' average of left · right. `target_sd` float32 [m]: what the fit leaves unexplained."""

    mean: float
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    target_sd: NDArray[np.float32]

    def predict(self, example: NDArray[np.integer], target: NDArray[np.integer]) -> NDArray[np.float32]:
        """Estimated utilities of the given pairs."""
        return self.predict_with_sd(example, target)[0]

    def predict_with_sd(
        self, example: NDArray[np.integer], target: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Estimated utilities of the given pairs and their standard deviations (members' spread and residual)."""
        each = np.stack([_dots(lf, rt, example, target) for lf, rt in zip(self.left, self.right, strict=True)])
        sd = np.sqrt(each.var(0) + self.target_sd[target] ** 2)
        return each.mean(0) + np.float32(self.mean), sd

    def factors(self, caution: float = CAUTION) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """left float32 [n, r'] and right float32 [m, r'] whose products estimate every pair.

        `caution` subtracts that many target standard deviations: a choice among many estimates falls on those that
        happen to be too high, so a selection does better with 1 or 2 than with 0 (the plain mean).
        """
        members, n, _ = self.left.shape
        ones = np.ones((n, 1), np.float32)
        shift = (self.mean - caution * self.target_sd)[:, None]
        left = np.concatenate([*self.left, ones], axis=1)
        right = np.concatenate([*(self.right / members), shift], axis=1)
        return np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32)


@jit(parallel=True)
def _dots(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    example: NDArray[np.integer],
    target: NDArray[np.integer],
) -> NDArray[np.float32]:
    out = np.empty(len(example), np.float32)
    for e in nb.prange(len(example)):
        total = np.float32(0)
        for p in range(left.shape[1]):
            total += left[example[e], p] * right[target[e], p]
        out[e] = total
    return out


@jit()
def _solve(A: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    """Solve A x = b for a positive definite A (lower triangle read) by Cholesky; x replaces b, A is destroyed."""
    r = len(b)
    for p in range(r):
        for q in range(p + 1):
            total = A[p, q]
            for t in range(q):
                total -= A[p, t] * A[q, t]
            A[p, q] = np.sqrt(total) if p == q else total / A[q, q]
    for p in range(r):
        for t in range(p):
            b[p] -= A[p, t] * b[t]
        b[p] /= A[p, p]
    for p in range(r - 1, -1, -1):
        for t in range(p + 1, r):
            b[p] -= A[t, p] * b[t]
        b[p] /= A[p, p]


@jit(parallel=True)
def _regress(
    indptr: NDArray[np.int64],
    other: NDArray[np.int32],
    y: NDArray[np.float32],
    graph_indptr: NDArray[np.int64],
    graph_indices: NDArray[np.int32],
    graph_weights: NDArray[np.float32],
    old: NDArray[np.float64],
    fixed: NDArray[np.float64],
    one: int,
    ridge: NDArray[np.float64],
    smoothing: NDArray[np.float64],
    gram: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Each record's factors given the other side's (`fixed`); its column `one` is the constant 1. `gram`: the
    pseudo-observations' weight times fixedᵀ fixed.

    Neighbours enter with their `old` factors, so that the result does not depend on the order of the rows.
    """
    n, r = old.shape
    new = np.empty_like(old)
    blocks = 64
    for block in nb.prange(blocks):
        A = np.empty((r, r))
        b = np.empty(r)
        for j in range(n * block // blocks, n * (block + 1) // blocks):
            degree = 0.0
            for p in range(r):
                b[p] = -gram[p, one]
                for q in range(p + 1):
                    A[p, q] = gram[p, q]
            for e in range(graph_indptr[j], graph_indptr[j + 1]):
                weight = graph_weights[e]
                degree += weight
                for p in range(r):
                    b[p] += smoothing[p] * weight * old[graph_indices[e], p]
            for p in range(r):
                least = LEAST_DEGREE if p > 1 else 0.0  # columns 0 and 1 are the additive effects, see _alternating
                A[p, p] += ridge[p] + smoothing[p] * max(degree, least)
            for e in range(indptr[j], indptr[j + 1]):
                i = other[e]
                rest = y[e] - fixed[i, one]
                for p in range(r):
                    value = fixed[i, p]
                    b[p] += value * rest
                    for q in range(p + 1):
                        A[p, q] += value * fixed[i, q]
            for p in range(r):
                A[one, p] = 0.0
                A[p, one] = 0.0
            A[one, one] = 1.0
            b[one] = 1.0
            _solve(A, b)
            for p in range(r):
                new[j, p] = b[p]
    return new


def _gram(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """factorsᵀ factors, summed in one order whatever the number of threads (einsum does not call a BLAS)."""
    return np.asarray(np.einsum("ip,iq->pq", factors, factors))


def fit(
    example: NDArray[np.int32],
    target: NDArray[np.int32],
    utility: NDArray[np.float32],
    example_graph: Graph,
    target_graph: Graph,
    *,
    random: NDArray[np.bool_] | None = None,
    features: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    proxy: Factors | None = None,
    seed: int = 0,
) -> Estimate:
    """Fit the model of this module to scored pairs (three arrays of one length; self-pairs do not belong here).

    `random`: which of them were drawn at random; of fewer than MIN_RANDOM (None: none) no line is made, and features
    are not used. `features`: of examples [n, f] and targets [m, g], on any scale. `proxy`: factors of another model's
    utilities, standardised; not used either.
    Deterministic for a seed, whatever the number of threads; seconds for a million pairs.
    """
    n, m = len(example_graph.indptr) - 1, len(target_graph.indptr) - 1
    if len(utility) == 0:
        return Estimate(0.0, np.zeros((1, n, 1), np.float32), np.zeros((1, m, 1), np.float32), np.ones(m, np.float32))
    drawn = np.empty(0, np.int64) if random is None else np.flatnonzero(random)
    mean = float((utility[drawn] if len(drawn) >= MIN_MEAN else utility).mean(dtype=np.float64))
    if len(drawn) < MIN_RANDOM:
        drawn = drawn[:0]
    left_out = np.random.default_rng(seed).permutation(drawn)[: int(MEMBERS * LEFT_OUT * len(utility))]
    scale = max(float(utility.std(dtype=np.float64)), 1e-9)
    y = ((utility - mean) / scale).astype(np.float32)
    known = [np.zeros((count, 0)) for count in (n, m)] if features is None else [_standardized(f) for f in features]
    hinted = None if proxy is None else _dots(*proxy, example, target)
    lefts, rights, said = [], [], []
    with threads_for(len(y) * RATE * (RANK + 2) ** 2 + (n + m) * (RANK + 2) ** 3):
        for member in range(MEMBERS):
            rng = np.random.default_rng([seed, member])
            unseen = left_out[member::MEMBERS]
            kept = np.ones(len(y), bool)
            kept[unseen] = False
            chosen = np.flatnonzero(kept)
            if len(chosen) > SAMPLE:
                chosen = np.sort(rng.choice(chosen, SAMPLE, replace=False))
            rows, columns = example[chosen], target[chosen]
            seen = drawn[kept[drawn]]
            trend_l, trend_r = _trend(known[0], known[1], example[seen], target[seen], y[seen])
            v = (y[chosen] - trend_l[rows] - trend_r[columns]).astype(np.float32)
            slope = 0.0
            if hinted is not None:
                rest = y[seen] - trend_l[example[seen]] - trend_r[target[seen]]
                slope = _regression(hinted[seen].astype(np.float64), rest.astype(np.float64))
                v -= np.float32(slope) * hinted[chosen]
            left, right = _alternating(rows, columns, v, example_graph, target_graph, rng)
            left[:, 1] += trend_l
            right[:, 0] += trend_r
            if proxy is not None:
                left, right = np.hstack([left, proxy[0]]), np.hstack([right, slope * proxy[1]])
            lefts.append(left.astype(np.float32))
            rights.append((scale * right).astype(np.float32))
            said.append(
                np.stack([_dots(lefts[-1], rights[-1], example[unseen], target[unseen]), utility[unseen] - mean])
            )
    slope, level = _line(*np.concatenate(said, axis=1).astype(np.float64))
    fitted = Estimate(mean + level, np.stack(lefts), np.float32(slope) * np.stack(rights), np.zeros(m, np.float32))
    residual = (utility - fitted.predict(example, target)).astype(np.float64)
    overall = float((residual**2).mean())
    squares = np.bincount(target, residual**2, m) + SHRINK_PAIRS * overall
    sd = np.sqrt(squares / (np.bincount(target, minlength=m) + SHRINK_PAIRS))
    return replace(fitted, target_sd=sd.astype(np.float32))


def _alternating(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    y: NDArray[np.float32],
    example_graph: Graph,
    target_graph: Graph,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors of examples and targets, float64 [n, RANK + 2] and [m, RANK + 2], from a random start: alternating ridge
    regressions of y, of unit standard deviation.

    Column 0 is 1 on the left and the target's effect on the right; column 1 the other way round.
    """
    n, m, r = len(example_graph.indptr) - 1, len(target_graph.indptr) - 1, RANK + 2
    order_l, ptr_l = by_row(rows, n)
    order_r, ptr_r = by_row(columns, m)
    side_l = ptr_l, columns[order_l], y[order_l], example_graph.indptr, example_graph.indices, example_graph.weights
    side_r = ptr_r, rows[order_r], y[order_r], target_graph.indptr, target_graph.indices, target_graph.weights
    left, right = 0.3 * rng.standard_normal((n, r)), 0.3 * rng.standard_normal((m, r))
    left[:, 0], left[:, 1], right[:, 0], right[:, 1] = 1.0, 0.0, 0.0, 1.0
    ridge_l, ridge_r = np.full((2, r), RIDGE)
    smooth_l, smooth_r = np.full((2, r), SMOOTHING)
    ridge_l[1] = ridge_r[0] = EFFECT_RIDGE
    smooth_l[1] = smooth_r[0] = EFFECT_SMOOTHING
    pseudo_l = max(PSEUDO, PSEUDO_SHARE * len(y) / n) / m
    pseudo_r = max(PSEUDO, PSEUDO_SHARE * len(y) / m) / n
    for _ in range(SWEEPS):
        left = _regress(*side_l, left, right, 0, ridge_l, smooth_l, pseudo_l * _gram(right))
        right = _regress(*side_r, right, left, 1, ridge_r, smooth_r, pseudo_r * _gram(left))
    return left, right


def _trend(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    example: NDArray[np.int32],
    target: NDArray[np.int32],
    y: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What features say of each example's and each target's effect: a ridge regression on pairs drawn at random.

    Pairs that were chosen for being good would mislead it: how much those gain depends on other things. The regression
    is drawn back to the mean by what it says of pairs that it has not seen. Sums do not call a BLAS, as in `_gram`.
    """
    columns = np.concatenate([np.ones((len(y), 1)), left[example], right[target]], axis=1)
    gram = np.einsum("ep,eq->pq", columns, columns) + np.diag(np.full(columns.shape[1], TREND_RIDGE))
    inverse = np.linalg.inv(gram)
    # two factors at a time: einsum goes through all indices of three at once
    weights = np.einsum("pq,q->p", inverse, np.einsum("eq,e->q", columns, y))
    leverage = np.einsum("eq,eq->e", np.einsum("ep,pq->eq", columns, inverse), columns)
    error = (y - np.einsum("ep,p->e", columns, weights)) / (1 - leverage)  # by the regression on all other pairs
    weights = weights[1:] * _line(y - error, y.astype(np.float64))[0]
    split = left.shape[1]
    return np.einsum("jp,p->j", left, weights[:split]), np.einsum("ip,p->i", right, weights[split:])


def _regression(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Slope of a ridge regression of y on x, drawn back by what it says of pairs that it has not seen; 0 of none."""
    squares = np.einsum("e,e->", x, x) + TREND_RIDGE
    slope = np.einsum("e,e->", x, y) / squares
    error = (y - slope * x) / (1 - x * x / squares)
    return float(slope * _line(y - error, y)[0])


def _standardized(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns of mean 0 and standard deviation 1 (0 where they do not vary), cut at three deviations."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    return np.asarray((centred / centred.std(axis=0).clip(1e-9)).clip(-3, 3))


def _line(said: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[float, float]:
    """Slope (0 to 1) and level of the line that takes what was said to what was found; 1 and 0 for too few pairs."""
    if len(said) < MIN_RANDOM:
        return 1.0, 0.0
    slope = min(max(slope_of(said, found), 0.0), 1.0)
    return slope, float(found.mean() - slope * said.mean())


def slope_of(said: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Slope of the least-squares line from what was said to what was found; 0 where all that was said is the same."""
    x, y = said - said.mean(), found - found.mean()
    along, squares = (float(np.einsum("e,e->", x, side)) for side in (y, x))  # no BLAS, as in `_gram`
    return along / max(squares, np.finfo(np.float64).tiny)

"""What a later round of a budget asks for: the nearest examples that come next, and those that estimates speak for."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiled import threads_for
from ..compressed import by_row, row_starts
from .candidates import best_unscored, contains, expected_improvement, hits, nth_best, with_room
from .estimate import Estimate
from .measured import KEEP_SHARES, Scored, coverers, sparse_greedy
from .proposals import Proposals

LEAST_OF_EITHER = 0.1  # of a later round, for the neighbours and for the model
MOST_PAIRS, MOST_AT_LEAST = 2.0, 30  # of an example: times the average, or so many where that is less
DRAWS = 8


class Aim(NamedTuple):
    """What a pair should improve on, its target's nth best, and how many standard deviations above its estimate it is
    hoped to be."""

    nth: int
    optimism: float


BOLD, CAUTIOUS = Aim(4, 2.0), Aim(2, 1.0)
BOLD_FROM = 14.0  # pairs for each target


class ByTarget(NamedTuple):
    """Scored pairs by target: `indptr`[i] to [i + 1] of each, by example; `best`: what is to be improved on."""

    indptr: NDArray[np.int64]
    example: NDArray[np.int32]
    utility: NDArray[np.float32]
    source: NDArray[np.uint8]
    best: NDArray[np.float32]


def by_target(proposals: Proposals, scored: Scored, nth: int) -> ByTarget:
    """`scored`, which is ordered by example, by target."""
    order, indptr = by_row(scored.target, proposals.shape[1])
    example, utility = scored.example[order], scored.utility[order]
    best = nth_best(indptr, example, utility, proposals.example_key, proposals.target_key, nth)
    return ByTarget(indptr, example, utility, scored.source[order], best)


def neighbours_share(proposals: Proposals, by_target: ByTarget) -> float:
    """The share of a later round that goes on with the nearest examples.

    A pair hits that is among its target's best few so far. Neighbours and the model's pairs share a round as the
    squares of how often they hit: the farther half of each target's neighbours, for those that come are farther still,
    and all of the model's pairs. Half and half until the model has had any.
    """
    (near, near_hits), (modelled, model_hits) = hits(*by_target, proposals.nearest).tolist()
    if not near or not modelled:
        return 0.5
    for_near, for_model = (near_hits / near) ** 2, (model_hits / modelled) ** 2
    if for_near + for_model == 0.0:
        return 0.5
    return float(np.clip(for_near / (for_near + for_model), LEAST_OF_EITHER, 1 - LEAST_OF_EITHER))


def improving_pairs(
    proposals: Proposals,
    scored: Scored,
    by_target: ByTarget,
    model: Estimate,
    taken: NDArray[np.int64],
    quota: int,
    rng: np.random.Generator,
    among: NDArray[np.int64],
    optimism: float,
) -> NDArray[np.int64]:
    """`quota` unscored pairs (fewer when candidates run out): those that greedy selections rely on, then those that are
    expected to improve most on a target's best few.

    None gives an example more than MOST_PAIRS times the pairs of an average one (or MOST_AT_LEAST): of two that help
    alike, the one of which more is known covers more on scored pairs, and a selection takes it for that.

    `taken`: pairs of this round that are not proposed again. `among`: the examples that are looked at, ascending.
    """
    n, m = proposals.shape
    width = min(len(among), max(32, 3 * math.ceil((quota + len(taken)) / m)))
    place = np.full(n, -1, np.int32)
    place[among] = np.arange(len(among))
    scored_place = place[by_target.example]
    looked_at = scored_place >= 0
    left = np.take(model.left, among, axis=1)
    with threads_for(0.2 * left.size * m):
        example, mean, sd = best_unscored(
            left, model.right, model.mean, model.target_sd,
            row_starts(looked_at)[by_target.indptr], scored_place[looked_at],
            proposals.example_key[among], proposals.target_key, width, optimism,
        )  # fmt: skip
    target = np.repeat(np.arange(m, dtype=np.int32), width)
    example, mean, sd = example.ravel(), mean.ravel(), sd.ravel()
    pairs = among[example].astype(np.int64) * m + target
    had = np.bincount(scored.example, minlength=n) + np.bincount(taken // m, minlength=n)
    most = max(math.ceil(MOST_PAIRS * (had.sum() + quota) / n), MOST_AT_LEAST)
    room = most - had
    free = (example >= 0) & ~contains(np.sort(taken), pairs) & (room[among[example]] > 0)
    pairs, mean, sd = pairs[free], mean[free], sd[free]
    example, target = (pairs // m).astype(np.int32), (pairs % m).astype(np.int32)
    wanted = _relied_on(proposals, scored, example, target, mean, optimism * sd, quota, rng)
    improvement = expected_improvement(mean, sd, by_target.best[target])
    relied_on = np.zeros(len(pairs), bool)
    relied_on[wanted] = True
    order = np.lexsort((-improvement, ~relied_on))
    return pairs[order[with_room(example[order], room)][:quota]]


def _relied_on(
    proposals: Proposals,
    scored: Scored,
    example: NDArray[np.int32],
    target: NDArray[np.int32],
    mean: NDArray[np.float32],
    room: NDArray[np.float32],
    quota: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Up to `quota` candidates (positions) that greedy selections use to cover a target.

    The kernel holds scored pairs at their utility and candidates above their `mean`: first all at the upper bound,
    then at random heights above the estimate. A candidate once chosen stands at its estimate from then on.
    """
    n, m = proposals.shape
    use = (scored.utility > 0) & (proposals.example_key[scored.example] != proposals.target_key[scored.target])
    rows = np.concatenate([scored.example[use], example])
    order, indptr = by_row(rows, n)
    columns = np.concatenate([scored.target[use], target])[order]
    known = int(use.sum())
    asked = np.zeros(len(example), bool)
    found: list[NDArray[np.int64]] = []
    total = 0
    for draw in range(DRAWS):
        height = np.ones(len(example), np.float32)
        if draw:
            height = np.abs(rng.standard_normal(len(example), np.float32))
        optimistic = np.where(asked, mean, mean + room * height)
        values = np.concatenate([scored.utility[use], optimistic.astype(np.float32)])[order].clip(0)
        for share in KEEP_SHARES:
            chosen, _ = sparse_greedy(indptr, columns, values, max(1, round(share * n)), m)
            cover = coverers(indptr, columns, values, chosen, m)
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

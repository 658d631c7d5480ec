"""Selection from a kernel larger than memory in two rounds: from parts of the pool, then from what they chose.

GreeDi (Mirzasoleiman et al., "Distributed submodular maximization", NIPS 2013) with random parts (Barbosa et al., "The
power of randomization", ICML 2015). One part's rows are in memory at a time, and the file is read once, from the
beginning to the end of each part.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .constraints import Constraints, make_rules
from .greedy import Run, greedy, initial_gains
from .kernel import Array, DenseKernel, Kernel, rows_of
from .objectives import Objective

STRIPE_BYTES = 1 << 20  # what is read at one place: a disk reads on behind what it is asked for
STRIPES = 64  # a part has at least so many stripes, so that parts are alike where the pool is sorted


def partitioned(
    goal: Objective,
    limits: Constraints,
    singletons: Array,
    sweep: bool,
    parts: int,
    *,
    seed: int,
    until: float,
    stop_at_zero: bool,
) -> Run:
    """The better of what the parts' choices come to together and, of the parts that chose k records, the best.

    A part contributes 2 k / parts records, k at most, so that the union's rows are no more than 2 k. With two parts
    (1 - 1/e) / 2 of the optimum is reached however they are drawn: one of them holds half of what it is worth.

    Args:
        limits: k, always and never.
        singletons: float64[n], the value of each record alone; filled here where `sweep`.
    """
    n = singletons.size
    if not 1 < parts <= n:
        raise InputError(f"parts {parts}: give at least 2, and at most as many as there are records ({n:,})")
    assert limits.k is not None
    each = min(limits.k, len(limits.always) + math.ceil(2 * limits.k / parts))
    union, complete = [np.asarray(limits.always, np.int64)], []
    for part in _parts(goal.kernel, parts, seed):
        here = _Part(goal, limits, part)
        if sweep:
            singletons[here.rows] = initial_gains(here.goal)
        run = here.choose(each, singletons)
        union.append(run.indices)
        if run.indices.size == limits.k and until == 0.0 and not stop_at_zero:
            complete.append(run)
    together = _Part(goal, limits, np.concatenate(union))
    last = together.choose(limits.k, singletons, until=until, stop_at_zero=stop_at_zero)
    return max([last, *complete], key=lambda run: float(run.gains.sum()))


class _Part:
    """Some rows of a kernel in memory, those that are always chosen among them, and the selection from them."""

    def __init__(self, goal: Objective, limits: Constraints, rows: Array) -> None:
        always = np.asarray(limits.always, np.int64)
        self.rows = np.union1d(rows, always)
        self._always = np.searchsorted(self.rows, always)
        self._never = np.flatnonzero(np.isin(self.rows, np.asarray(limits.never, np.int64)))
        self._bonus = goal.bonus
        self.goal = replace(goal, kernel=rows_of(goal.kernel, self.rows), bonus=goal.bonus[self.rows])

    def choose(self, k: int, singletons: Array, *, until: float = 0.0, stop_at_zero: bool = False) -> Run:
        always = self._always
        limits = Constraints(min(k, self.rows.size), always=always.tolist(), never=self._never.tolist())
        rules = make_rules(limits, self.rows.size)
        own = singletons[self.rows]
        run = greedy(self.goal, rules, own, always=always, until=until, stop_at_zero=stop_at_zero)
        return replace(run, indices=self.rows[run.indices], coverage=run.coverage._replace(bonus=self._bonus))


def _parts(kernel: Kernel, parts: int, seed: int) -> list[Array]:
    """Which records are in which part: stripes of records that lie together, drawn at random."""
    n, stripe = kernel.group.size, 1
    if isinstance(kernel, DenseKernel):
        row = max(1, kernel.matrix.shape[1] * kernel.matrix.itemsize)
        stripe = max(1, min(STRIPE_BYTES // row, n // (STRIPES * parts)))
    stripes = np.random.default_rng(seed).permutation(-(-n // stripe))
    rows = np.arange(stripes.size * stripe).reshape(-1, stripe)
    return [taken[taken < n] for taken in (rows[np.sort(some)].ravel() for some in np.array_split(stripes, parts))]

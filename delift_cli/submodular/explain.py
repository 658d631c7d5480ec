"""Why this record? Who covers which target, what a record adds to a subset, who made it redundant, whom it harms.

Pure functions of kernels, objectives and index arrays. What covers whom is said in the kernel's units, what a record
is worth in the objective's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..compiled import jit, threads_for
from ..errors import InputError
from .coverage import gain_and_cover
from .kernel import Array, Kernel, as_float
from .objectives import Objective, value
from .sweeps import load_row, new_scratch, segment, segment_count, similarities


@dataclass(frozen=True)
class Coverers:
    """For each target the best and the second best of a subset, -1 and 0.0 where there is none above zero."""

    best: Array  # int64[m], example
    best_value: Array  # float64[m]
    next: Array  # int64[m]
    next_value: Array  # float64[m]


@dataclass(frozen=True)
class Covered:
    """What a chosen record is there for. One entry per target that it covers best, largest margin first.

    value: its similarity to the target; otherwise: the record of the subset that would cover the target without
    it (-1: none), at otherwise_value. margin: what the subset would lose of its value without the record.
    """

    targets: Array
    value: Array
    otherwise: Array
    otherwise_value: Array
    margin: float


@dataclass(frozen=True)
class Redundant:
    """Why a record was left out. One entry per chosen record that covers targets it could have covered.

    by: chosen records, the largest share first; targets: how many of the record's targets each covers at least
    as well; share: the part of what the record covers (sum of positive similarities, each target by its weight) that
    each stands for. gain: what the record would still add to the subset's value; total: its own value alone.
    """

    by: Array
    targets: Array
    share: Array
    gain: float
    total: float


@dataclass(frozen=True)
class Harmed:
    """Targets whose answers become less likely with the record in context, worst first, and their utilities."""

    targets: Array
    utility: Array
    count: int  # all targets with a negative utility


@jit()
def _best_two(kernel: Kernel, rows: Array, best: Array, values: Array, scratch: Array) -> None:
    for position in range(rows.size):
        j = rows[position]
        raw = load_row(kernel, j, scratch[0, 0])
        for q in range(segment_count(kernel, j)):
            begin, end = segment(kernel, j, q)
            for i in range(begin, end):
                s = kernel.slope * as_float(raw[i]) + kernel.offset[i]
                if s > values[1, i]:
                    if s > values[0, i]:
                        values[1, i], best[1, i] = values[0, i], best[0, i]
                        values[0, i], best[0, i] = s, j
                    else:
                        values[1, i], best[1, i] = s, j


def coverers(kernel: Kernel, subset: ArrayLike) -> Coverers:
    """Best and second best of `subset` for every target; among equals the earlier in `subset`. One sweep."""
    rows = np.asarray(subset, dtype=np.int32).reshape(-1)
    m = kernel.offset.size
    best, values = np.full((2, m), -1, np.int64), np.zeros((2, m))
    _best_two(kernel, rows, best, values, new_scratch(kernel, 1))
    return Coverers(best[0], values[0], best[1], values[1])


def explain_chosen(objective: Objective, subset: ArrayLike, j: int, top: int | None = None) -> Covered:
    """What record j of the subset is there for (the `top` targets; default: all). Raises InputError if not in it."""
    chosen = np.asarray(subset, dtype=np.int64)
    if j not in chosen:
        raise InputError(f"record {j} is not in the subset")
    who = coverers(objective.kernel, chosen)
    mine = np.flatnonzero(who.best == j)
    margin = (who.best_value[mine] - who.next_value[mine]) * objective.weights[mine]
    first = mine[np.argsort(-margin, kind="stable")][:top]
    lost = value(objective, chosen) - value(objective, chosen[chosen != j])
    return Covered(first, who.best_value[first], who.next[first], who.next_value[first], max(0.0, lost))


def lost_without(objective: Objective, subset: ArrayLike) -> Array:
    """float64[k]: what the subset would lose of its value without each of its records.

    Whether others would cover as much is seen only with all of these and without that one. Halves are covered by turns:
    k log k rows are entered in place of k².
    """
    rows = np.asarray(subset, dtype=np.int32).reshape(-1)
    lost = np.zeros(rows.size)
    waiting = [(0, rows.size, objective.empty_coverage())] if rows.size else []
    with threads_for(0.0):  # a row at a time
        scratch = new_scratch(objective.kernel, 1)[0]
        while waiting:
            begin, end, others = waiting.pop()
            if end - begin == 1:
                gain_and_cover(objective.kernel, others, rows[begin:end], lost[begin:end], scratch)
                continue
            middle = (begin + end) // 2
            right = others._replace(state=others.state.copy())
            gain_and_cover(objective.kernel, right, rows[begin:middle], np.empty(middle - begin), scratch)
            gain_and_cover(objective.kernel, others, rows[middle:end], np.empty(end - middle), scratch)
            waiting += [(middle, end, right), (begin, middle, others)]
    return lost


def explain_left_out(objective: Objective, subset: ArrayLike, j: int, top: int | None = None) -> Redundant:
    """Which chosen records made record j redundant (the `top` of them). Raises InputError if j is in the subset."""
    chosen = np.asarray(subset, dtype=np.int64)
    if j in chosen:
        raise InputError(f"record {j} is in the subset")
    own = np.maximum(0.0, similarities(objective.kernel, [j])[0])
    who = coverers(objective.kernel, chosen)
    taken = np.flatnonzero((own > 0.0) & (who.best_value >= own))
    counts = own * objective.weights
    by, group = np.unique(who.best[taken], return_inverse=True)
    count = np.bincount(group, minlength=by.size)
    share = np.bincount(group, weights=counts[taken], minlength=by.size) / (counts.sum() or 1.0)
    first = np.argsort(-share, kind="stable")[:top]
    gain = value(objective, np.append(chosen, j)) - value(objective, chosen)
    return Redundant(by[first], count[first], share[first], max(0.0, gain), value(objective, [j]))


def harmed(utilities: Kernel, j: int, top: int | None = None) -> Harmed:
    """Whom record j harms. utilities: a kernel made with transform `raw`, so that its values are signed."""
    row = similarities(utilities, [j])[0]
    order = np.argsort(row, kind="stable")
    negative = order[: int((row < 0.0).sum())]
    return Harmed(negative[:top], row[negative[:top]], negative.size)

"""What a subset must keep to: a number of records, a token budget, quotas for groups, near-duplicates.

Every rule here is such that a record ruled out once stays out: the greedy selector then drops it for good. The
public `Constraints` is in the user's terms; `Rules` is the same in arrays, for compiled code, with a small
mutable account of what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..compiled import jit
from ..compressed import row_starts
from ..errors import InputError
from .kernel import Array

UNLIMITED = np.iinfo(np.int64).max

# Positions in Rules.left.
SLOTS, BUDGET, OWED = range(3)


@dataclass(frozen=True)
class Constraints:
    """Limits of a selection over n records.

    k: number of records; None: as many as the budget pays for.
    cost: int[n] > 0, tokens of each record; budget: tokens in all. Both or neither.
    always: indices chosen first, in this order, whatever the other rules say; never: indices left out; last: indices
        that are chosen only once no others are left, however many tokens those take, or none of them fits.
    group: n labels (of any hashable kind); at_least, at_most: label -> number of records, of this group.
        at_least needs a k and cannot be combined with a budget.
    near_duplicates: (indptr int[n + 1], indices int[...]) in compressed rows: choosing a record rules out its
        neighbours. Taken as symmetric.
    """

    k: int | None = None
    cost: ArrayLike | None = None
    budget: int | None = None
    always: Sequence[int] = ()
    never: Sequence[int] = ()
    last: Sequence[int] = ()
    group: Sequence[Any] | None = None
    at_least: Mapping[Any, int] = field(default_factory=dict)
    at_most: Mapping[Any, int] = field(default_factory=dict)
    near_duplicates: tuple[ArrayLike, ArrayLike] | None = None


class Rules(NamedTuple):
    """Constraints for compiled code."""

    out: Array  # bool[n]: ruled out, or chosen
    cost: Array  # int64[n], or int64[0] without a budget
    group: Array  # int32[n], or int32[0] without quotas
    at_least: Array  # int64[groups]
    at_most: Array  # int64[groups]
    counts: Array  # int64[groups]: chosen so far
    neighbour_start: Array  # int64[n + 1], or int64[0]
    neighbours: Array  # int32
    left: Array  # int64[3]: SLOTS, BUDGET left, and records OWED to groups below their least number


def make_rules(constraints: Constraints, n: int) -> Rules:
    """Checked constraints in arrays, for a fresh selection over n records. Raises InputError on contradictions."""
    c = constraints
    if c.k is None and c.budget is None:
        raise InputError("say how much to select: a number of records or a token budget")
    if c.k is not None and not 0 <= c.k <= n:
        raise InputError(f"cannot select {c.k} of {n} records")
    if (c.cost is None) != (c.budget is None):
        raise InputError("a token budget and the records' token counts come together")
    always, out = _indices(c.always, n, "always"), np.zeros(n, np.bool_)
    out[_indices(c.never, n, "never")] = True
    if out[always].any():
        raise InputError(f"record {always[out[always]][0]} is in both always and never")
    if c.k is not None and always.size > c.k:
        raise InputError(f"{always.size} records are always chosen, but only {c.k} are asked for")
    cost = np.empty(0, np.int64)
    if c.cost is not None and c.budget is not None:
        given = np.asarray(c.cost)
        cost = np.ascontiguousarray(given, dtype=np.int64)
        if cost.shape != (n,) or (cost <= 0).any() or (cost != given).any():
            raise InputError(f"token counts must be {n} positive whole numbers")
        if c.budget < 0 or cost[always].sum() > c.budget:
            raise InputError(
                f"the records that are always chosen cost {cost[always].sum()} tokens, the budget is {c.budget}"
            )
    group, at_least, at_most = _quotas(c, n, out, always)
    last = _indices(c.last, n, "last")
    if always.size and np.isin(last, always).any():
        raise InputError(f"record {last[np.isin(last, always)][0]} is in both always and last")
    out[last] = True
    start, neighbours = np.empty(0, np.int64), np.empty(0, np.int32)
    if c.near_duplicates is not None:
        start, neighbours = _symmetric(*c.near_duplicates, n)
    slots = n if c.k is None else c.k
    left = np.array([slots, UNLIMITED if c.budget is None else c.budget, at_least.sum()], np.int64)
    return Rules(out, cost, group, at_least, at_most, np.zeros_like(at_least), start, neighbours, left)


def _indices(indices: Sequence[int], n: int, what: str) -> Array:
    array = np.asarray(indices, dtype=np.int64).reshape(-1)
    if array.size and (array.min() < 0 or array.max() >= n):
        raise InputError(f"{what} names record {array.min() if array.min() < 0 else array.max()} of {n}")
    if np.unique(array).size != array.size:
        raise InputError(f"{what} names a record twice")
    return array


def _quotas(c: Constraints, n: int, out: Array, always: Array) -> tuple[Array, Array, Array]:
    if not c.at_least and not c.at_most:
        return np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)
    if c.group is None or len(c.group) != n:
        raise InputError("quotas need one group label for each record")
    number = {label: position for position, label in enumerate(dict.fromkeys(c.group))}
    group = np.fromiter((number[label] for label in c.group), np.int32, n)
    at_least, at_most = np.zeros(len(number), np.int64), np.full(len(number), n, np.int64)
    for quota, limits in ((c.at_least, at_least), (c.at_most, at_most)):
        for label, limit in quota.items():
            if label not in number:
                raise InputError(f"no record belongs to group {label!r}")
            if limit < 0:
                raise InputError(f"the quota of group {label!r} is negative")
            limits[number[label]] = limit
    available = np.bincount(group[~out], minlength=len(number))
    for label, position in number.items():
        if at_least[position] > available[position]:
            there = f"only {available[position]} of its records can be chosen"
            raise InputError(f"group {label!r} cannot have at least {at_least[position]}: {there}")
        if (least := at_least[position]) > (most := at_most[position]):
            raise InputError(f"group {label!r} cannot have at least {least} and at most {most}")
    if at_least.any() and c.budget is not None:
        raise InputError("a least number per group needs a number of records, not a token budget")
    owed = (at_least - np.bincount(group[always], minlength=len(number))).clip(0).sum()
    if c.k is not None and owed > c.k - always.size:
        beside = f" beside the {always.size} that are always chosen" if always.size else ""
        raise InputError(f"the groups' least numbers need {owed} records{beside}, more than fit into {c.k}")
    return group, at_least, at_most


def _symmetric(indptr: ArrayLike, indices: ArrayLike, n: int) -> tuple[Array, Array]:
    start, columns = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)
    if start.shape != (n + 1,) or start[-1] != columns.size or (columns.size and columns.max() >= n):
        raise InputError(f"near_duplicates is not a compressed list of neighbours of {n} records")
    rows = np.repeat(np.arange(n), np.diff(start))
    pairs = np.unique(np.concatenate([rows * n + columns, columns * n + rows]))
    pairs = pairs[pairs // n != pairs % n]
    return row_starts(np.bincount(pairs // n, minlength=n)), (pairs % n).astype(np.int32)


@jit()
def _admissible_but_for_tokens(rules: Rules, j: int) -> bool:
    if rules.out[j] or rules.left[SLOTS] <= 0:
        return False
    if rules.group.size > 0:
        g = rules.group[j]
        if rules.counts[g] >= rules.at_most[g]:
            return False
        # When every slot that is left is owed to some group, the others have to stand back, and this lasts.
        if rules.left[OWED] >= rules.left[SLOTS] and rules.counts[g] >= rules.at_least[g]:
            return False
    return True


@jit()
def admissible(rules: Rules, j: int) -> bool:
    """Whether record j may be chosen now. Once it may not, it never may again."""
    if rules.cost.size > 0 and rules.cost[j] > rules.left[BUDGET]:
        return False
    return _admissible_but_for_tokens(rules, j)


@jit()
def others_left(rules: Rules) -> bool:
    """Whether any record may be chosen now, or might be if tokens were no matter."""
    for j in range(rules.out.size):  # noqa: SIM110 (compiled code has no generators)
        if _admissible_but_for_tokens(rules, j):
            return True
    return False


@jit()
def take(rules: Rules, j: int) -> None:
    """Enter record j into the account."""
    rules.out[j] = True
    rules.left[SLOTS] -= 1
    if rules.cost.size > 0:
        rules.left[BUDGET] -= rules.cost[j]
    if rules.group.size > 0:
        g = rules.group[j]
        rules.counts[g] += 1
        if rules.counts[g] <= rules.at_least[g]:
            rules.left[OWED] -= 1
    if rules.neighbour_start.size > 0:
        for p in range(rules.neighbour_start[j], rules.neighbour_start[j + 1]):
            rules.out[rules.neighbours[p]] = True

"""Scored pairs, and what a selection makes of them alone: clip kernel, no self-pairs.

Examples are chosen by facility location, or, from a block that is for finding each example's best targets, by these.

What they cover is a lower bound of the true value, and something that a run can watch from round to round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..compiled import jit
from ..compressed import row_starts
from .proposals import Proposals

# Why a pair was scored.
SELF, NEIGHBOUR, RANDOM, HELD_OUT, ADAPTIVE = range(5)

KEEP_SHARES = (0.1, 0.3)  # sizes of the selections that are planned for, as shares of the examples
Rows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Compressed rows: indptr, targets, values."""

SETTLED_RECORDS = 10  # in the smallest selection, before its staying the same means something


@dataclass(frozen=True)
class Scored:
    """Scored pairs, four arrays of one length in any order; `source` says why each was scored."""

    example: NDArray[np.int32]
    target: NDArray[np.int32]
    utility: NDArray[np.float32]
    source: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, at: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Scored:
        """Some of them: by a mask, a slice, or their positions, in that order."""
        return Scored(self.example[at], self.target[at], self.utility[at], self.source[at])

    def turned(self) -> Scored:
        """The same with the roles of examples and targets exchanged."""
        return Scored(self.target, self.example, self.utility, self.source)


def nothing_scored() -> Scored:
    """The state before the first round."""
    return Scored(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.uint8))


def rows_of(scored: Scored, n: int) -> Rows:
    """The scored utilities by example, of n."""
    order = np.lexsort((scored.target, scored.example))
    return row_starts(np.bincount(scored.example, minlength=n)), scored.target[order], scored.utility[order]


@jit()
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


@jit()
def sparse_greedy(
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


@jit()
def coverers(
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
    """What a selection of `share` of the examples reaches on scored pairs alone (clip kernel, self-pairs excluded):
    what a run can watch from round to round, and a lower bound of the true value.

    It is Σ_i max_{j∈A} s_ji over the targets i; of proposals for examples Σ_{j∈A} max_i s_ji.
    """
    return _chosen_on_scored(proposals, scored, share)[1]


def settled(proposals: Proposals, before: Scored, after: Scored) -> bool:
    """Did the pairs that `after` has more than `before` leave the selections that are planned for as they were?

    They are those of `coverage`, with each of KEEP_SHARES, in any order. Of a small pool they hold so few records that
    staying the same says nothing: then no.
    """
    if min(KEEP_SHARES) * len(proposals.example_key) < SETTLED_RECORDS:
        return False
    return all(
        {*_chosen_on_scored(proposals, before, share)[0].tolist()}
        == {*_chosen_on_scored(proposals, after, share)[0].tolist()}
        for share in KEEP_SHARES
    )


def _chosen_on_scored(proposals: Proposals, scored: Scored, share: float) -> tuple[NDArray[np.int64], float]:
    n, m = proposals.shape
    k = max(1, round(share * n))
    used = scored[(scored.utility > 0) & (proposals.example_key[scored.example] != proposals.target_key[scored.target])]
    if proposals.for_examples:
        best = np.zeros(n, np.float32)
        np.maximum.at(best, used.example, used.utility)
        chosen = np.argsort(-best, kind="stable")[:k]
        return chosen, float(best[chosen].sum(dtype=np.float64))
    chosen, value = sparse_greedy(*rows_of(used, n), k, m)
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

"""Who helps whom, as far as pairs were measured: means, and the best and the worst of each record's pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..cache.utility import block_utilities, pair_utilities
from ..submodular.kernel import Utility

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
KEPT = 5  # pairs that are kept of each record and kind
CHUNK = 1 << 24  # utilities held at a time


@dataclass(frozen=True)
class Ends:
    """Of each record the first few of its pairs by utility: `other` int32 [records, KEPT], -1 where there are fewer,
    `utility` float32 of the same shape."""

    other: Ints
    utility: Floats


@dataclass(frozen=True)
class Reach:
    """What the measured pairs say of each record. A record paired with itself or a copy of itself does not count.

    Attributes:
        mean: float32 [examples], mean utility over measured targets; NaN where none is measured.
        harmful: float32 [examples], the share of them that it harms.
        pairs: int64 [examples], how many.
        received: float32 [targets], mean utility over measured examples.
        offered: int64 [targets], how many.
        helped, harmed: whom an example helps and harms most.
        helpers: who helps a target most.
    """

    mean: Floats
    harmful: Floats
    pairs: npt.NDArray[np.int64]
    received: Floats
    offered: npt.NDArray[np.int64]
    helped: Ends
    harmed: Ends
    helpers: Ends

    @property
    def mean_of_pairs(self) -> float:
        """The mean utility over all pairs; NaN where none is measured."""
        return float(np.nansum(self.mean * self.pairs) / self.pairs.sum()) if self.pairs.any() else float("nan")

    @property
    def harmful_share(self) -> float:
        """The share of the pairs that are harmful."""
        return float(np.nansum(self.harmful * self.pairs) / max(1, self.pairs.sum()))

    @property
    def covered(self) -> Floats:
        """float32 [targets]: the most that any example helps; NaN where nothing is measured."""
        return np.where(self.helpers.other[:, 0] >= 0, self.helpers.utility[:, 0], np.nan).astype(np.float32)


def reach(
    cache: Cache | SparseCache, example_key: npt.NDArray[np.int64], target_key: npt.NDArray[np.int64], utility: Utility
) -> Reach:
    """Sweep a cache once.

    Args:
        example_key, target_key: int64; equal for a record and its copies, whose pairs are left out.
    """
    if isinstance(cache, SparseCache):
        return _sparse(cache, example_key, target_key, utility)
    return _dense(cache, example_key, target_key, utility)


def _dense(
    cache: Cache, example_key: npt.NDArray[np.int64], target_key: npt.NDArray[np.int64], utility: Utility
) -> Reach:
    n, m = cache.shape
    kept_n, kept_m = min(KEPT, m), min(KEPT, n)
    sums, harms, counts = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
    helped, harmed = (Ends(np.full((n, KEPT), -1, np.int32), np.full((n, KEPT), np.nan, np.float32)) for _ in "ab")
    best, who = np.full((0, m), 0, np.float32), np.empty((0, m), np.int32)
    got, offered = np.zeros(m), np.zeros(m, np.int64)
    step = max(1, CHUNK // max(1, m))
    for start in range(0, n, step):
        stop = min(start + step, n)
        value = block_utilities(cache, utility, slice(start, stop))
        value[example_key[start:stop, None] == target_key[None]] = np.nan
        there = ~np.isnan(value)
        known = np.where(there, value, 0)
        sums[start:stop], counts[start:stop] = known.sum(1, dtype=np.float64), there.sum(1)
        harms[start:stop] = (known < 0).sum(1)
        got += known.sum(0, dtype=np.float64)
        offered += there.sum(0)
        low = np.where(there, value, -np.inf)
        for ends, signed in ((helped, -low), (harmed, np.where(there, value, np.inf))):
            first = _first(signed, kept_n, axis=1)
            utility_there = np.take_along_axis(value, first, 1)
            ends.other[start:stop, :kept_n] = np.where(np.isnan(utility_there), -1, first)
            ends.utility[start:stop, :kept_n] = utility_there
        rows = _first(-low, min(kept_m, stop - start), axis=0)
        best = np.concatenate([best, np.take_along_axis(low, rows, 0)])
        who = np.concatenate([who, (rows + start).astype(np.int32)])
        first = _first(-best, min(kept_m, len(best)), axis=0)
        best, who = np.take_along_axis(best, first, 0), np.take_along_axis(who, first, 0)
    helpers = Ends(np.full((m, KEPT), -1, np.int32), np.full((m, KEPT), np.nan, np.float32))
    some = np.isfinite(best).T
    helpers.other[:, :kept_m], helpers.utility[:, :kept_m] = np.where(some, who.T, -1), np.where(some, best.T, np.nan)
    return _reach(sums, harms, counts, got, offered, helped, harmed, helpers)


def _sparse(
    cache: SparseCache, example_key: npt.NDArray[np.int64], target_key: npt.NDArray[np.int64], utility: Utility
) -> Reach:
    n, m = cache.shape
    pairs = cache.pairs()
    keep = example_key[pairs.example] != target_key[pairs.target]
    example, target = pairs.example[keep], pairs.target[keep]
    value = pair_utilities(cache, utility, pairs)[keep]
    by_value = np.argsort(-value, kind="stable")
    return _reach(
        np.bincount(example, value, n).astype(np.float64),
        np.bincount(example, value < 0, n).astype(np.float64),
        np.bincount(example, minlength=n),
        np.bincount(target, value, m).astype(np.float64),
        np.bincount(target, minlength=m),
        _ends(example, target, value, by_value, n),
        _ends(example, target, value, by_value[::-1], n),
        _ends(target, example, value, by_value, m),
    )


def _ends(owner: Ints, other: Ints, value: Floats, order: npt.NDArray[np.int64], count: int) -> Ends:
    """The first pairs of each owner in this order."""
    order = order[np.argsort(owner[order], kind="stable")]
    starts = np.searchsorted(owner[order], np.arange(count))
    place = np.arange(len(order)) - starts[owner[order]]
    order, place = order[place < KEPT], place[place < KEPT]
    ends = Ends(np.full((count, KEPT), -1, np.int32), np.full((count, KEPT), np.nan, np.float32))
    ends.other[owner[order], place], ends.utility[owner[order], place] = other[order], value[order]
    return ends


def _reach(
    sums: npt.NDArray[np.float64],
    harms: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    got: npt.NDArray[np.float64],
    offered: npt.NDArray[np.int64],
    helped: Ends,
    harmed: Ends,
    helpers: Ends,
) -> Reach:
    mean, share, received = (
        np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0).astype(np.float32)
        for total, count in ((sums, counts), (harms, counts), (got, offered))
    )
    return Reach(mean, share, counts, received, offered, helped, harmed, helpers)


def _first(values: Floats, count: int, *, axis: int) -> npt.NDArray[np.int64]:
    """Places of the `count` smallest along an axis, in order, ties to the lower place."""
    if count < values.shape[axis]:
        near = np.argpartition(values, count - 1, axis=axis)
        near = np.sort(near[:, :count] if axis else near[:count], axis=axis)
    else:
        near = np.broadcast_to(np.expand_dims(np.arange(count), 1 - axis), values.shape)
    order = np.argsort(np.take_along_axis(values, near, axis), axis=axis, kind="stable")
    return np.take_along_axis(near, order, axis)

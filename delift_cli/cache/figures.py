"""What a cache holds, in figures: utilities read a row at a time, never as a matrix of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .dense import Cache
from .sparse import SparseCache


class Utilities(NamedTuple):
    """Over the scored pairs of a cache.

    Attributes:
        mean: the mean utility (euclidean).
        harmful: the share of pairs with a negative one.
        examples: float64 [example], each example's mean utility over its targets, itself left out where the pool
            is scored against itself; NaN where nothing is scored.
    """

    mean: float
    harmful: float
    examples: npt.NDArray[np.float64]


def utilities(cache: Cache | SparseCache) -> Utilities:
    """Mean utilities of everything that is scored, in one sweep."""
    total, harmful, pairs = 0.0, 0, 0
    means = np.full(cache.shape[0], np.nan)
    for example, targets, distance in cache.measured():
        utility = cache.base_distance[targets].astype(np.float64) - distance
        total += float(utility.sum())
        harmful += int((utility < 0).sum())
        pairs += len(utility)
        if cache.square:
            utility = utility[targets != example]
        if len(utility):
            means[example] = utility.mean()
    return Utilities(total / max(1, pairs), harmful / max(1, pairs), means)

"""What a cache holds, in figures: utilities read a row at a time, never as a matrix of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.record import copy_groups
from .dense import Cache
from .sparse import SparseCache


def utility_in_words(mean: float, harmful: float, pairs: str) -> str:
    """For people: the mean of these pairs ("measured pairs", say) and the share of them that are harmful."""
    if np.isnan(mean):
        return "no pair of two records is measured yet"
    return f"mean {mean:+.4f}, {harmful:.0%} of the {pairs} harmful"


class Utilities(NamedTuple):
    """Over the scored pairs of a cache. A record before itself or a copy of itself does not count.

    Attributes:
        mean: the mean utility (euclidean); NaN where nothing is scored.
        harmful: the share of pairs with a negative one; NaN likewise.
        examples: float64 [example], each example's mean utility over its targets; NaN where nothing is scored.
    """

    mean: float
    harmful: float
    examples: npt.NDArray[np.float64]


def utilities(cache: Cache | SparseCache) -> Utilities:
    """Mean utilities of everything that is scored, in one sweep."""
    total, harmful, pairs = 0.0, 0, 0
    own, theirs = _copies(cache)
    means = np.full(cache.shape[0], np.nan)
    for example, targets, distance in cache.measured():
        others = theirs[targets] != own[example]
        utility = (cache.base_distance[targets].astype(np.float64) - distance)[others]
        total += float(utility.sum())
        harmful += int((utility < 0).sum())
        pairs += len(utility)
        if len(utility):
            means[example] = utility.mean()
    return Utilities(total / pairs, harmful / pairs, means) if pairs else Utilities(np.nan, np.nan, means)


def _copies(cache: Cache | SparseCache) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Labels of examples and targets, equal where one is the other or a copy of it."""
    examples = cache.examples().records
    groups = copy_groups(examples if cache.square else [*examples, *cache.targets().records])
    return groups[: cache.shape[0]], groups[-cache.shape[1] :]

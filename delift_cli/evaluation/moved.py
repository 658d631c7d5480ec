"""Has a model moved on? The utilities of the same pairs under two of its states: how many changed, in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..cache.stored import Stored
from ..errors import InputError

CHANGED = 0.01  # |difference of utilities| that counts: what converted weights may differ by
SAME_ORDER = 0.95  # rank correlation from which the old utilities choose as the new ones do


@dataclass(frozen=True)
class Moved:
    """What became of the pairs that both caches measured.

    Attributes:
        pairs: how many those are.
        changed: share whose utility changed by more than `CHANGED`.
        mean_change: mean |difference of utilities|.
        rank_correlation: Spearman's, over all of those pairs; NaN where one state gives all pairs the same.
        distance_before, distance_now: mean distance of the targets without an example.
    """

    pairs: int
    changed: float
    mean_change: float
    rank_correlation: float
    distance_before: float
    distance_now: float

    @property
    def advice(self) -> str:
        """What to do now."""
        if self.rank_correlation >= SAME_ORDER:
            return "the order hardly changed: the old utilities choose nearly as the new ones do"
        return "the order changed: choose with the new utilities, and measure more of them with --continue"

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "advice": self.advice}

    def lines(self) -> list[tuple[str, str]]:
        """The same for people."""
        return [
            (
                "moved on",
                f"{self.changed:.0%} of {self.pairs:,} utilities changed by more than {CHANGED}, rank correlation "
                f"{self.rank_correlation:.2f}; distance without an example {self.distance_before:.3f}, now "
                f"{self.distance_now:.3f}",
            ),
            ("so", self.advice),
        ]


def moved(before: Stored, now: Stored) -> Moved:
    """Compare two caches of the same records, each with all or some of the pairs.

    Raises:
        InputError: their records differ, or they have no pair in common.
    """
    for role in ("examples", "targets"):
        if before.manifest[role]["sha256"] != now.manifest[role]["sha256"]:
            raise InputError(f"{before.path} and {now.path} do not have the same {role}; --previous needs them")
    first, second = _utilities(before), _utilities(now)
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        raise InputError(f"{before.path} and {now.path} have no measured pair in common")
    old, new = first[both], second[both]
    change = np.abs(new - old)
    return Moved(
        int(both.sum()),
        float((change > CHANGED).mean()),
        float(change.mean()),
        spearman(old, new),
        float(np.nanmean(before.base_distance)),
        float(np.nanmean(now.base_distance)),
    )


def _utilities(cache: Stored) -> npt.NDArray[np.float64]:
    """float64 [examples, targets], the utilities as distances; NaN where a pair is not measured."""
    base = np.asarray(cache.base_distance, np.float64)
    if isinstance(cache, Cache):
        return base - np.asarray(cache.distance, np.float64)
    assert isinstance(cache, SparseCache)
    found = np.full(cache.shape, np.nan)
    measured = cache.pairs()
    found[measured.example, measured.target] = base[measured.target] - measured.distance
    return found


def spearman(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Rank correlation, equal values sharing their mean rank."""
    ranks = _ranks(first), _ranks(second)
    if any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.asarray(np.cumsum(counts) - (counts - 1) / 2, np.float64)
    return np.asarray(means[inverse])

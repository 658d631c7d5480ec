"""Has a model moved on? The utilities of the same pairs under two of its states: how many changed, in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cache.dense import Cache
from ..cache.manifest import records_hash
from ..cache.sparse import SparseCache
from ..data.record import RecordSet
from ..errors import InputError
from ..ranks import rank_correlation

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


def check_comparable(before: Cache | SparseCache, examples: RecordSet, targets: RecordSet | None) -> None:
    """Before these records are scored: can what comes of it be compared with a cache?

    Raises:
        InputError: its records are others, or it is damaged.
    """
    for role, records in (("examples", examples), ("targets", targets or examples)):
        if before.manifest[role]["sha256"] != records_hash(records):
            raise InputError(f"{before.path} does not have the {role} that are to be scored; --previous needs them")
    before.check_rows()


def moved(before: Cache | SparseCache, now: Cache | SparseCache) -> Moved:
    """Compare two caches of the same records, each with all or some of the pairs.

    Raises:
        InputError: their records differ, or they have no pair in common.
    """
    for role in ("examples", "targets"):
        if before.manifest[role]["sha256"] != now.manifest[role]["sha256"]:
            raise InputError(f"{before.path} and {now.path} do not have the same {role}; --previous needs them")
    old, new = _utilities_in_common(before, now)
    if not len(old):
        raise InputError(f"{before.path} and {now.path} have no measured pair in common")
    change = np.abs(new - old)
    return Moved(
        len(old),
        float((change > CHANGED).mean()),
        float(change.mean()),
        rank_correlation(old, new),
        float(np.nanmean(before.base_distance)),
        float(np.nanmean(now.base_distance)),
    )


def _utilities_in_common(
    before: Cache | SparseCache, now: Cache | SparseCache
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of the pairs that both caches measured the utilities in either, read an example at a time."""
    old, new = [np.empty(0)], [np.empty(0)]
    for (_, ours, distance), (_, theirs, distance_now) in zip(before.measured(), now.measured(), strict=True):
        both, first, second = np.intersect1d(ours, theirs, return_indices=True)
        old.append(before.base_distance[both].astype(np.float64) - distance[first])
        new.append(now.base_distance[both].astype(np.float64) - distance_now[second])
    return np.concatenate(old), np.concatenate(new)

"""What to look at among the records: pure arrays in, places and scores out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .. import ranks
from .reach import Reach

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
LENGTHS = 5  # classes of length


def harmful(reach: Reach) -> Ints:
    """Examples whose mean utility is below zero, the worst first."""
    return _lowest(np.where(reach.mean < 0, reach.mean, np.nan))


def uncovered(reach: Reach) -> Ints:
    """Targets that no measured example helps, the least helped first."""
    covered = reach.covered
    return _lowest(np.where(covered <= 0, covered, np.nan))


def apart(reach: Reach) -> Floats:
    """float32 [records] of a pool against itself: how far a record stands from the others, 0 to 1.

    One less the mean of its two ranks (as shares): by the most that any record helps it, and by the most that it
    helps any. NaN where either is not measured.
    """
    given = np.where(reach.helped.other[:, 0] >= 0, reach.helped.utility[:, 0], np.nan)
    return (1 - (_rank(given) + _rank(reach.covered)) / 2).astype(np.float32)


def outliers(score: Floats, share: float = 0.95) -> Ints:
    """The records furthest apart: those at or above this score, the furthest first."""
    return _lowest(np.where(score >= share, -score, np.nan))


def length_classes(tokens: npt.NDArray[np.int32]) -> tuple[Ints, list[str]]:
    """Which of some equally large classes of length each record is in, and what they are called ("21 to 40 tokens")."""
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, LENGTHS + 1), method="nearest"))
    bounds = edges[1:] if len(edges) > 1 else edges
    which = np.searchsorted(bounds, tokens)
    lows = [int(edges[0]), *(int(edge) + 1 for edge in bounds[:-1])]
    names = [
        f"{low:,} tokens" if low == high else f"{low:,} to {high:,} tokens"
        for low, high in zip(lows, bounds.astype(int).tolist(), strict=True)
    ]
    return which, names


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's, over the entries that are known in both; NaN for fewer than three or where one is constant."""
    both = ~(np.isnan(a) | np.isnan(b))
    return ranks.rank_correlation(a[both], b[both]) if both.sum() >= 3 else float("nan")


def _rank(values: Floats) -> npt.NDArray[np.float64]:
    """Ranks as shares, 0 to 1, ties averaged; NaN stays."""
    known = ~np.isnan(values)
    found = np.full(len(values), np.nan)
    found[known] = (ranks.ranks(values[known]) - 1) / max(1, known.sum() - 1)
    return found


def _lowest(values: Floats) -> Ints:
    """Places of the known values, the lowest first, ties to the lower place."""
    known = np.flatnonzero(~np.isnan(values))
    return known[np.argsort(values[known], kind="stable")]

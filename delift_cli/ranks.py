"""Ranks of numbers, and how far two orders agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(values: npt.NDArray[np.floating]) -> Floats:
    """float64 [values], from 1 for the lowest; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = np.cumsum(counts) - (counts - 1) / 2
    return means[inverse]


def rank_correlation(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Spearman's, of numbers of which none is NaN; NaN where either has no two that differ."""
    both = ranks(first), ranks(second)
    if not len(first) or any(np.ptp(each) == 0 for each in both):
        return float("nan")
    return float(np.corrcoef(*both)[0, 1])

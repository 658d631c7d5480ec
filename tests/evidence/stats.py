"""Differences of held-out losses between ways to choose, with how far chance would move them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 4000


class Interval(NamedTuple):
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def per_token(losses: Floats, tokens: Floats) -> float:
    """Mean loss per response token: losses [runs, records] summed over each response, tokens [records]."""
    return float(losses.mean(axis=0).sum() / tokens.sum())


def difference(losses: Floats, others: Floats, tokens: Floats, *, seed: int = 0) -> Interval:
    """Loss per response token of some runs less that of others, on the same held-out records.

    Each resample draws records and, of either side, runs, with replacement: the interval says how the difference would
    vary with other records, choices by chance and training seeds. A side of one run adds no variation of its own.

    Args:
        losses, others: float64 [runs, records], summed over each response (nats).
        tokens: float64 [records].
    """
    rng = np.random.default_rng(seed)
    sizes = losses.shape[1], len(losses), len(others)
    draws = [[rng.integers(size, size=size) for size in sizes] for _ in range(RESAMPLES)]
    weight, mine, theirs = (_counts(of, size) for of, size in zip(zip(*draws, strict=True), sizes, strict=True))
    apart = mine @ losses / len(losses) - theirs @ others / len(others)
    drawn = (apart * weight).sum(axis=1) / (weight @ tokens)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(per_token(losses, tokens) - per_token(others, tokens), float(low), float(high))


def _counts(draws: Sequence[npt.NDArray[np.int64]], size: int) -> Floats:
    """float64 [draws, size]: how often each of `size` things is in each draw."""
    places = np.stack(draws) + size * np.arange(len(draws))[:, None]
    return np.bincount(places.ravel(), minlength=size * len(draws)).reshape(-1, size).astype(np.float64)


def best_of(count: int) -> float:
    """The expected largest of so many draws from a standard normal distribution."""
    x = np.linspace(-8.0, 8.0, 16_001)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    below = np.cumsum(density) * (x[1] - x[0])
    return float((x * count * density * below ** (count - 1)).sum() * (x[1] - x[0]))


def ranks(values: Sequence[float]) -> Floats:
    """float64 [n], from 1; equal values share the mean of their ranks."""
    array = np.asarray(values, np.float64)
    return (array[:, None] > array).sum(axis=1) + ((array[:, None] == array).sum(axis=1) + 1) / 2


def rank_correlation(values: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's, -1 to 1; NaN where one side is constant."""
    a, b = (side - side.mean() for side in (ranks(values), ranks(others)))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")

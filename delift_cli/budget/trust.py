"""How far estimates can be trusted: errors on pairs that no fit has seen, and what a subset is worth with those."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ranks import rank_correlation
from .estimate import Estimate, slope_of

ENOUGH_HELD_OUT = 20  # pairs that say whether estimates predict anything


@dataclass(frozen=True)
class Quality:
    """How well estimates predict held-out random pairs. r2 and spearman are NaN for fewer than 3 pairs."""

    pairs: int
    r2: float
    spearman: float
    bias: float
    rmse: float

    @property
    def trusted(self) -> bool:
        """Do they predict anything, on enough pairs to say so?"""
        return self.enough and self.r2 > 0

    @property
    def enough(self) -> bool:
        """Are so many pairs held out, and do they differ, that the figures say something?"""
        return self.pairs >= ENOUGH_HELD_OUT and not (math.isnan(self.r2) or math.isnan(self.spearman))

    @property
    def words(self) -> str:
        """The same for people."""
        if not self.pairs:
            return "no pair is held out at random, so how good they are cannot be said"
        if not self.enough:
            return f"too few pairs are held out at random ({self.pairs:,}) to say how good they are"
        figures = f"R² {self.r2:.2f}, rank correlation {self.spearman:.2f}"
        return f"{figures} on {self.pairs:,} pairs held out at random"


def quality(estimated: NDArray[np.float32], measured: NDArray[np.float32]) -> Quality:
    """Compare estimates with measured utilities of pairs that were drawn at random and never trained on."""
    if len(measured) < 3:
        return Quality(len(measured), float("nan"), float("nan"), float("nan"), float("nan"))
    error = estimated.astype(np.float64) - measured
    spread = float(((measured - measured.mean(dtype=np.float64)) ** 2).sum())
    return Quality(
        len(measured),
        1 - float((error**2).sum()) / spread if spread > 0 else float("nan"),
        rank_correlation(estimated, measured),
        float(error.mean()),
        float(np.sqrt((error**2).mean())),
    )


@dataclass(frozen=True)
class SubsetValue:
    """Coverage of a subset (the clip kernel's facility location): what the scored pairs prove, and an estimate.

    `measured`: from scored pairs alone, a lower bound. `estimated`: with the others as they are estimated, stretched
    where held-out pairs show that high ones are estimated too low. `low` to `high`: a 95 % interval, from what is
    proven to what 39 of 40 draws of the others stay below. In a draw all estimates of an example are off by one error,
    as large as one on held-out pairs is, in every second draw those of all examples by the same: such errors go
    together, how much cannot be told from few pairs. Each target gains by the largest of them, so that draws say how
    much it can be at most, and nothing of its mean or its least.
    """

    measured: float
    estimated: float
    low: float
    high: float


def subset_value(
    covered: NDArray[np.float32],
    chosen: NDArray[np.int64],
    scored: tuple[NDArray[np.int32], NDArray[np.int32]],
    estimate: Estimate,
    held_out: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    *,
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    most: NDArray[np.float32] | None = None,
    seed: int = 0,
    draws: int = 40,
    targets: int = 400,
) -> SubsetValue:
    """Value of the chosen examples with an interval.

    `covered` float32 [m]: each target's best scored utility among the chosen, at least 0. `scored`: examples and
    targets of all scored pairs (their order is free). `held_out`: examples, targets and utilities of random pairs never
    trained on; their residuals, relative to the model's standard deviations, are the errors that are drawn. Pairs with
    equal keys do not count. `most` float32 [m]: the largest utility that each target can have; None: any. At most
    `targets` targets are simulated, drawn at random; the interval includes that sampling.
    """
    m = len(covered)
    measured = float(covered.sum(dtype=np.float64))
    rng = np.random.default_rng([seed, m, len(chosen)])
    picked = np.sort(rng.choice(m, min(m, targets), replace=False))
    slot = np.full(m, -1, np.int64)
    slot[picked] = np.arange(len(picked))
    row = np.full(len(example_key), -1, np.int64)
    row[chosen] = np.arange(len(chosen))
    predicted, sd = estimate.predict_with_sd(held_out[0], held_out[1])
    level, slope = estimate.mean, 1.0
    if len(predicted) < ENOUGH_HELD_OUT:  # too few to draw from: assume that the model's deviations are right
        errors = rng.standard_normal(200).astype(np.float32)
    else:
        # a fit that is drawn to the mean makes high estimates too low and low ones too high
        slope = max(1.0, slope_of(predicted.astype(np.float64), held_out[2].astype(np.float64)))
        level = float(predicted.mean())
        errors = ((held_out[2] - level - slope * (predicted - level)) / sd).astype(np.float32)
    pairs = [np.repeat(chosen, len(picked)), np.tile(picked, len(chosen))]
    free = example_key[pairs[0]] != target_key[pairs[1]]
    known = (row[scored[0]] >= 0) & (slot[scored[1]] >= 0)
    free[row[scored[0][known]] * len(picked) + slot[scored[1][known]]] = False
    rows, columns = pairs[0][free], pairs[1][free]
    predicted, sd = estimate.predict_with_sd(rows, columns)
    predicted = np.float32(level) + np.float32(slope) * (predicted - np.float32(level))
    there = covered[picked]
    possible = np.inf if most is None else most[columns]

    def gained(utility: NDArray[np.float32]) -> NDArray[np.float32]:
        best = there.copy()
        np.maximum.at(best, slot[columns], np.minimum(utility, possible))
        return best - there

    gains = np.empty((draws, len(picked)))
    for draw in range(draws):
        off = errors[rng.integers(len(errors), size=1 if draw % 2 else len(chosen))]
        gains[draw] = gained(predicted + sd * np.broadcast_to(off, len(chosen))[row[rows]])
    totals = np.empty(1000)
    whole = len(picked) == m
    for b in range(len(totals)):
        sample = slice(None) if whole else rng.integers(len(picked), size=len(picked))
        totals[b] = gains[rng.integers(draws), sample].mean() * m
    estimated = measured + float(gained(predicted).mean(dtype=np.float64)) * m
    return SubsetValue(measured, estimated, measured, max(estimated, measured + float(np.quantile(totals, 0.975))))

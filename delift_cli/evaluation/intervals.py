"""What a subset is worth in context: which of its records to show, and how sure the difference to chance is.

DELIFT (arXiv 2411.04425, section 5) tests subsets by in-context learning too: the records of a subset that are most
like a held-out prompt are shown in front of it. Plain functions of arrays; `in_context` runs the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
EVERYTHING = -math.inf, math.inf
LOGPROB, DISTANCE = (-math.inf, 0.0), (0.0, 1.0)  # what these lie between
ROWS = 256  # of the matrix of cosines, computed at a time


def best_matches(
    targets: npt.NDArray[np.float32],
    examples: npt.NDArray[np.float32],
    shots: int,
    target_group: npt.NDArray[np.integer],
    example_group: npt.NDArray[np.integer],
) -> Ints:
    """For each target the `shots` examples nearest to it, int64 [targets, shots], the nearest last.

    Nearest by cosine, ties to the lower index; an example of the target's own group, which is a copy of it, is left
    out. -1 in front where fewer are left.

    Args:
        targets: float32 [targets, width], examples: float32 [examples, width], rows of length 1.
        target_group, example_group: int [targets], int [examples].
    """
    chosen = np.full((len(targets), shots), -1, np.int64)
    for start in range(0, len(targets), ROWS):
        rows = slice(start, start + ROWS)
        cosines = targets[rows] @ examples.T
        cosines[target_group[rows, None] == example_group[None, :]] = -np.inf
        for row, values in enumerate(cosines, start=start):
            nearest = np.argsort(-values, kind="stable")[:shots]
            nearest = nearest[np.isfinite(values[nearest])][::-1]
            chosen[row, shots - len(nearest) :] = nearest
    return chosen


class Interval(NamedTuple):
    """A mean and its bootstrap 95 % interval; NaN to NaN for one record, which says nothing of how far others lie."""

    mean: float
    low: float
    high: float

    @property
    def sees_a_difference(self) -> bool:
        """Does the interval leave out 0?"""
        return self.low > 0.0 or self.high < 0.0

    @property
    def margin(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


class Bootstrap:
    """Means of `RESAMPLES` resamples of records and of random draws (Efron 1979), the same for all that is compared.

    The mean of a few is less certain than a plain resample of them says. Each resample's distance from the mean is
    therefore stretched by √(number / χ²), χ² with number − 1 degrees of freedom: it then spreads as Student's t does.
    No mean goes beyond what its values can be: `possible` is the least and the most of that.

    Args:
        records: how many records were measured.
        draws: how many random subsets, at least 2, or 0 for none.
        seed: of the resampling.
    """

    def __init__(self, records: int, draws: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._records = _resamples(records, rng)
        if draws:
            self._draws = _resamples(draws, rng)

    def mean(self, values: Floats, possible: tuple[float, float] = EVERYTHING) -> Interval:
        """Of one value for each record, float64 [records]."""
        return _interval(values.mean(), self._means(values, possible))

    def mean_of_draws(self, values: Floats, possible: tuple[float, float] = EVERYTHING) -> Interval:
        """Of float64 [draws, records]: draws are resampled as well as records."""
        return _interval(values.mean(), self._means_of_draws(values, possible))

    def difference(self, values: Floats, draws: Floats, possible: tuple[float, float] = EVERYTHING) -> Interval:
        """Of float64 [records] over the mean of float64 [draws, records], record by record."""
        resampled = self._means(values, possible) - self._means_of_draws(draws, possible)
        return _interval(values.mean() - draws.mean(), resampled)

    def _means(self, values: Floats, possible: tuple[float, float]) -> Floats:
        return np.clip(self._records @ values, *possible)

    def _means_of_draws(self, values: Floats, possible: tuple[float, float]) -> Floats:
        return np.clip(((self._records @ values.T) * self._draws).sum(axis=1), *possible)


def _resamples(count: int, rng: np.random.Generator) -> Floats:
    """float64 [RESAMPLES, count]: what each counts for; NaN where there is one alone."""
    if count == 1:
        return np.full((RESAMPLES, 1), np.nan)
    plain = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    stretch = np.sqrt(count / rng.chisquare(count - 1, (RESAMPLES, 1)))
    return np.asarray(1 / count + (plain - 1 / count) * stretch)


def _interval(mean: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))


class Measured(NamedTuple):
    """What the model said of the held-out records behind one subset: float64 [held-out]; see `scoring.Measures`."""

    distance: Floats
    logprob: Floats


@dataclass(frozen=True)
class Outcome:
    """What one subset, or nothing, or random ones are worth in context.

    Attributes:
        shown: what the examples came from; records: how many it holds.
        logprob: nats per token, the mean over held-out records of each one's mean over its response.
        distance: likewise.
        better: by how much logprob is above that behind random subsets of the same size, where there are any.
    """

    shown: str
    records: int
    logprob: Interval
    distance: Interval
    better: Interval | None = None

    @property
    def perplexity(self) -> float:
        """exp(−logprob)."""
        return math.exp(-self.logprob.mean)

    @property
    def verdict(self) -> str | None:
        """The comparison with random subsets in words."""
        if self.better is None:
            return None
        if not self.better.sees_a_difference:
            return "no difference from random that this test can see"
        word = "better" if self.better.mean > 0 else "worse"
        return f"{word} than random by {abs(self.better.mean):.4f} ± {self.better.margin:.4f} nats per token"


def outcomes(
    nothing: Measured,
    subsets: Sequence[tuple[str, int, Measured]],
    draws: dict[int, list[Measured]],
    seed: int,
) -> list[Outcome]:
    """Nothing in context, random subsets of each size, then each subset.

    Args:
        subsets: name, number of records, measurements.
        draws: measurements behind random subsets, by their number of records; the same number of draws for each.
        seed: of the bootstrap.
    """
    bootstrap = Bootstrap(len(nothing.logprob), len(next(iter(draws.values()), [])), seed)
    rows = [Outcome("nothing", 0, *_means(bootstrap.mean, nothing))]
    joined = {size: Measured(*map(np.array, zip(*drawn, strict=True))) for size, drawn in draws.items()}
    for size, drawn in joined.items():
        rows.append(Outcome("random", size, *_means(bootstrap.mean_of_draws, drawn)))
    for name, size, own in subsets:
        better = bootstrap.difference(own.logprob, joined[size].logprob, LOGPROB) if size in joined else None
        rows.append(Outcome(name, size, *_means(bootstrap.mean, own), better))
    return rows


def _means(of: Callable[[Floats, tuple[float, float]], Interval], measured: Measured) -> tuple[Interval, Interval]:
    return of(measured.logprob, LOGPROB), of(measured.distance, DISTANCE)


def random_subsets(pool: Ints, size: int, draws: int, seed: int) -> list[Ints]:
    """`draws` subsets of `size` of the pool's records, int64 [size], each drawn without replacement.

    Raises:
        InputError: the pool is smaller than that.
    """
    if size > len(pool):
        raise InputError(f"random subsets of {size:,} records cannot be drawn from a pool of {len(pool):,}")
    return [np.random.default_rng((seed, size, draw)).choice(pool, size, replace=False) for draw in range(draws)]

"""A block of which some pairs are scored: estimates of the others, and how far these can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..amount import counted
from ..cache.proxies import kept_proxy
from ..cache.sparse import SparseCache
from ..cache.utility import pair_utilities
from ..compiled import threads_for
from ..compressed import row_starts
from ..data import large_pools
from ..data.record import Record, copy_groups
from ..submodular.kernel import Utility
from . import plan
from .candidates import best_unscored
from .estimate import Estimate, Factors
from .measured import HELD_OUT, RANDOM, Rows, Scored, coverage, expected_change, rows_of
from .proposals import NEAR_ALONE, Proposals, propose
from .trust import Quality, SubsetValue, quality, subset_value

ALL_ESTIMATES = large_pools.EXACT**2  # pairs of a block up to which a selection counts every estimate
BEST_ESTIMATES = 128  # of each target, in a larger one


def hint(shape: tuple[int, int]) -> str | None:
    """What to say of a selection from estimates in a block of this shape; None where all of them count."""
    if math.prod(shape) <= ALL_ESTIMATES:
        return None
    return f"of each target's estimates the best {BEST_ESTIMATES} count; all do up to {ALL_ESTIMATES:,} pairs"


def proposals(
    examples: Sequence[Record],
    targets: Sequence[Record] | None,
    budget: int = 0,
    embeddings: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None,
    base: npt.NDArray[np.float32] | None = None,
    *,
    for_examples: bool = False,
    proxy: Factors | None = None,
) -> Proposals:
    """What is known of a block before a pair is scored, for a budget of so many; `targets` None: a pool against itself.

    Copies, equal up to case and white space, count as one record on both sides. The rest: see `propose`;
    embeddings have a say in which pairs to score first, and none in the estimates.
    """
    label = copy_groups([*examples, *(targets or ())]).astype(np.int64)
    n = len(examples)
    return propose(
        texts_of(examples),
        None if targets is None else texts_of(targets),
        budget,
        label[:n],
        label if targets is None else label[n:],
        embeddings,
        base,
        for_examples=for_examples,
        proxy=proxy,
    )


def said_without(cache: SparseCache) -> npt.NDArray[np.float32]:
    """What the model said of the targets without an example, as `propose` takes it: distance, log-probability."""
    return np.column_stack([cache.base_distance, cache.base_logprob])


def scored(cache: SparseCache, utility: Utility = "euclidean") -> Scored:
    """The scored pairs of a cache with their utilities."""
    pairs = cache.pairs()
    return Scored(pairs.example, pairs.target, pair_utilities(cache, utility, pairs), pairs.source)


def rows_with_estimates(
    scored: Scored, estimate: Estimate, example_key: npt.NDArray[np.int64], target_key: npt.NDArray[np.int64]
) -> Rows:
    """The same with the `BEST_ESTIMATES` highest (cautious) estimates of each target's other pairs, where they are
    above 0, for blocks of which all estimates are too many. Pairs of equal keys are not estimated.

    Examples that are not among a target's best hardly ever cover it in a subset of a few percent or more (Lindgren,
    Wu and Dimakis, Leveraging Sparsity for Efficient Submodular Data Summarization, NeurIPS 2016).
    """
    n, m = len(example_key), len(target_key)
    by_target = np.lexsort((scored.example, scored.target))
    left, right = estimate.factors()
    with threads_for(0.2 * left.size * m):
        example, value, _ = best_unscored(
            left[None], right[None], 0.0, np.zeros(m, np.float32),
            np.searchsorted(scored.target[by_target], np.arange(m + 1)), scored.example[by_target],
            example_key, target_key, min(n, BEST_ESTIMATES), 0.0,
        )  # fmt: skip
    target, rank = np.nonzero((example >= 0) & (value > 0))
    rows = np.concatenate([scored.example, example[target, rank]])
    columns = np.concatenate([scored.target, target.astype(np.int32)])
    values = np.concatenate([scored.utility, value[target, rank]])
    order = np.argsort(rows.astype(np.int64) * m + columns)
    return row_starts(np.bincount(rows, minlength=n)), columns[order], values[order]


class Partial:
    """The scored pairs of one cache under one utility, and what follows from them.

    `examples`, `targets`: its records; targets None for a pool against itself.
    """

    def __init__(
        self,
        cache: SparseCache,
        examples: Sequence[Record],
        targets: Sequence[Record] | None,
        utility: Utility = "euclidean",
        seed: int = 0,
    ) -> None:
        self.cache = cache
        self.seed = seed
        self._records = examples, targets
        self.scored = scored(cache, utility)
        self._most = cache.base_distance if utility == "euclidean" else -cache.base_logprob  # of utilities, by target

    @cached_property
    def proposals(self) -> Proposals:
        for_examples = any(part.asked.for_examples for part in self.cache.rounds)
        proxy, base = kept_proxy(self.cache), said_without(self.cache)
        return proposals(*self._records, base=base, for_examples=for_examples, proxy=proxy)

    @cached_property
    def estimate(self) -> Estimate:
        return plan.fit_scored(self.proposals, self.scored, self.seed)

    @property
    def share(self) -> float:
        """Of all pairs, those scored."""
        n, m = self.cache.shape
        return len(self.scored) / (n * m)

    def rows(self) -> Rows:
        """The scored utilities by example."""
        return rows_of(self.scored, self.cache.shape[0])

    def rows_with_estimates(self) -> Rows:
        """The same with the best estimates: see there."""
        return rows_with_estimates(self.scored, self.estimate, self.proposals.example_key, self.proposals.target_key)

    @cached_property
    def quality(self) -> Quality:
        """How well the estimates predict the pairs that were held out of every fit."""
        held = self._held_out
        return quality(self.estimate.predict(*held[:2]), held[2])

    @cached_property
    def quality_without_proxy(self) -> Quality | None:
        """The same of estimates that know nothing of the proxy; None where there is none."""
        if self.proposals.proxy is None:
            return None
        held = self._held_out
        plain = plan.fit_scored(replace(self.proposals, proxy=None), self.scored, self.seed)
        return quality(plain.predict(*held[:2]), held[2])

    def course(self) -> Course:
        """What the scored pairs alone cover, after each round."""
        pairs, coverages = [], []
        for stop in np.cumsum([part.pairs_done for part in self.cache.rounds]).tolist():
            pairs.append(stop)
            coverages.append(coverage(self.proposals, self.scored[:stop]))
        return Course(pairs, coverages)

    def subset_value(
        self,
        chosen: npt.NDArray[np.int64],
        example_group: npt.NDArray[Any] | None = None,
        target_group: npt.NDArray[Any] | None = None,
    ) -> SubsetValue:
        """What chosen examples cover (facility location, clip), but for the targets that have their labels."""
        n, m = self.cache.shape
        keys = (
            np.arange(n) if example_group is None else example_group,
            n + np.arange(m) if target_group is None else target_group,
        )
        example, target, utility = self.scored.example, self.scored.target, self.scored.utility
        taken = np.zeros(n, bool)
        taken[chosen] = True
        counted = taken[example] & (keys[0][example] != keys[1][target])
        covered = np.zeros(m, np.float32)
        np.maximum.at(covered, target[counted], utility[counted])
        return subset_value(
            covered,
            chosen,
            (example, target),
            self.estimate,
            self._held_out,
            example_key=keys[0],
            target_key=keys[1],
            most=self._most,
            seed=self.seed,
        )

    @property
    def _held_out(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        held = self.scored[self.scored.source == HELD_OUT]
        return held.example, held.target, held.utility


@dataclass(frozen=True)
class Course:
    """Pairs scored after each round, and the facility location that greedy reaches on them alone."""

    pairs: list[int]
    coverages: list[float]

    def expected_change(self, more: int) -> float | None:
        """By which share so many more pairs would raise it; None where one round says nothing of that."""
        change = expected_change(self.pairs, self.coverages, more)
        return None if np.isnan(change) else change


def measured(partial: Partial) -> dict[str, Any]:
    """How much is measured, how well the estimates of the rest predict pairs held out, what more would change."""
    cache, course = partial.cache, partial.course()
    pairs, done = cache.shape[0] * cache.shape[1], cache.pairs_done
    more = min(done, pairs - done)
    return {
        "pairs_all": pairs,
        "pairs_planned": cache.planned,
        "pairs_measured": done,
        "share_measured": partial.share,
        "rounds": [
            {"budget": part.asked.budget, "pairs": len(part), "coverage": coverage}
            for part, coverage in zip(cache.rounds, course.coverages, strict=True)
        ],
        "held_out": asdict(partial.quality),
        "neighbours_alone": not any(np.isin(part.source, (RANDOM, HELD_OUT)).any() for part in cache.rounds),
        "proxy": None
        if partial.quality_without_proxy is None
        else {**cache.manifest["proxy"], "held_out_without": asdict(partial.quality_without_proxy)},
        "expected_change": {"more_pairs": more, "share": course.expected_change(more) if more else None},
    }


def measured_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    held_out, change = Quality(**found["held_out"]), found["expected_change"]
    left = found["pairs_planned"] - found["pairs_measured"]
    rows = [
        (
            "measured",
            f"{found['pairs_measured']:,} of {found['pairs_all']:,} pairs ({found['share_measured']:.2%}) in "
            + counted(len(found["rounds"]), "round")
            + (f"; {left:,} more were planned" if left else ""),
        ),
    ]
    if found["pairs_measured"] < found["pairs_all"]:
        rows.append(("estimates", held_out.words + (f": {NEAR_ALONE}" if found["neighbours_alone"] else "")))
    if (proxy := found["proxy"]) is not None:
        without = Quality(**proxy["held_out_without"])
        worse = "; it misleads here" if held_out.enough and without.r2 > held_out.r2 else ""
        rows.append(("proxy", f"{proxy['name']}; without it: {without.words}{worse}"))
    if change["share"] is not None:
        more = f"{change['more_pairs']:,} more pairs would be expected to cover at most {change['share']:.1%} more"
        rows.append(("more budget", more))
    return rows


def texts_of(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Prompts and responses, by which neighbours are found."""
    return [record.prompt_text for record in records], [record.response_text for record in records]

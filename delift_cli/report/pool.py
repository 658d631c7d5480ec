"""What a report on one pool rests on: everything that is computed once, before it is put into words and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..amount import parse_amount
from ..cache.dense import Cache
from ..cache.sidecar import EMBEDDINGS, kept_file, read_kept
from ..cache.utility import block_utilities
from ..data.groups import group_labels
from ..data.near_duplicates import joined, near_copies, near_duplicates
from ..data.ngrams import grams
from ..data.record import Record
from ..errors import InputError
from ..selection.blocks import AnyBlock, KernelOptions, PartialBlock, objective_over, of_itself
from ..selection.hygiene import ALIKE
from ..selection.limits import check_budget
from ..selection.methods import defaults_for, objective_for
from ..selection.set_aside import come_last
from ..selection.suspects import Suspects, suspects
from ..submodular.objectives import Objective, value
from . import choices, findings
from .choices import Choice, Valued
from .placement import principal_plane, text_points
from .reach import Reach, reach

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
MAPPED = 5_000  # records on the map; of more a sample is drawn
SEARCHED = 20_000  # records of which near-duplicates are looked for; the search grows with the square
MEAN = 1  # which of the embeddings that scoring keeps


@dataclass(frozen=True)
class Wanted:
    """What a report is asked for.

    Attributes:
        subset: files of subsets; none: what greedy takes, `k` of the pool.
        group: the field that records are grouped by; None: one is looked for.
        seed: of the random order that a curve is compared with, and of the sample that the map shows.
    """

    subset: Sequence[Path] = ()
    k: str = "30%"
    group: str | None = None
    options: KernelOptions = field(default_factory=KernelOptions)
    seed: int = 0


@dataclass(frozen=True)
class Map:
    """Records in the plane: their places, their points float32 [records, 2], and by what they were placed."""

    places: Ints
    points: Floats
    by: str


class Pool:
    """A block with what follows from it.

    Args:
        block: the pool against itself or its anchors, or examples by a target set.
        target: the pool's block by a target set, beside the pool's own.

    Raises:
        InputError: the blocks do not belong together, or a file is not a subset of the pool.
    """

    def __init__(self, block: AnyBlock, target: AnyBlock | None, wanted: Wanted) -> None:
        self.block, self.wanted = block, wanted
        self.square = block.cache.square
        own = of_itself(block.cache)
        if not own and target is not None:
            raise InputError(
                f"{block.cache.path} has targets of its own; give --target with a pool against itself or its anchors"
            )
        self.records = block.examples
        self.aims = target if target is not None else None if self.square else block
        fields = block.cache.manifest["fields"]
        self._given: list[tuple[str, npt.NDArray[np.int64], int]] = [
            (path.name, *choices.read_places(path, self.records, fields)) for path in wanted.subset
        ]
        k = str(len(self._given[0][1])) if self._given else wanted.k
        self._amount = parse_amount(k, len(self.records))
        check_budget(k, self._amount, block.cache.example_tokens)
        self.field, self.labels = group_labels(self.records, wanted.group)
        pool = block if own else None  # anchors stand for the pool
        aims = None if self.aims is pool else self.aims
        given = {"pool": pool, "target": aims}
        roles = {role: each.cache for role, each in given.items() if each is not None}
        name, alpha = objective_for(roles, k)
        unsaid = defaults_for(roles)
        self.count, self.options = unsaid.count, wanted.options.with_default(unsaid.self_utility)
        self._near = near_copies(self.records).near if unsaid.distinct == "copies" else None
        self._last = come_last(self.suspects).last if unsaid.suspects == "last" else ()
        self.goal: Objective = objective_over(pool, aims, None, name, self.options, count=self.count, alpha=alpha)[0]
        self.whole = value(self.goal)
        self.reach = _reach(block, self.options)
        self.aims_reach = (
            None if self.aims is None else self.reach if self.aims is block else _reach(self.aims, self.options)
        )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def targets_are(self) -> str:
        """What stands against the pool's records in its block: these "records", "anchors", or the "targets"."""
        return "records" if self.square else "targets" if self.aims is self.block else "anchors"

    @property
    def partial_block(self) -> PartialBlock | None:
        """The block of which only some pairs are measured: the pool's, else that of the target set."""
        for block in (self.block, self.aims):
            if isinstance(block, PartialBlock) and block.cache.pairs_done < math.prod(block.cache.shape):
                return block
        return None

    @cached_property
    def valued(self) -> Valued:
        """The objective, ready to be optimised."""
        return Valued(self.goal, self._near, self._last)

    @cached_property
    def subsets(self) -> list[Choice]:
        """What is reported on; the first one is the one that lists speak of."""
        if self._given:
            return [choices.given(*given, self.valued) for given in self._given]
        return [choices.chosen(self._amount, self.block.cache.example_tokens, self.valued)]

    @cached_property
    def random_curve(self) -> npt.NDArray[np.float64]:
        """The value of the prefixes of a random order, as long as the longest curve."""
        longest = max(len(subset.curve) for subset in self.subsets)
        return choices.at_random(longest, self.valued, self.wanted.seed)

    @cached_property
    def reach_of_all(self) -> Reach:
        """What all measured pairs say, but of a record and its copies: also those that share an answer."""
        if self.options.self_utility != "exclude-answers" or not self.block.shared_answers:
            return self.reach
        return _reach(self.block, replace(self.options, self_utility="exclude"))

    @cached_property
    def suspects(self) -> Suspects | None:
        """None where records are not scored against each other."""
        return suspects(self.block.cache, self.records) if self.square else None

    @cached_property
    def apart(self) -> Floats | None:
        """See `findings.apart`."""
        return findings.apart(self.reach) if self.square else None

    @cached_property
    def alike(self) -> Ints:
        """int64 [records]: the lowest record that each is a near-duplicate of, over any number of steps; of a large
        pool a copy of, up to case and white space."""
        if len(self) > SEARCHED:
            return self.block.copies[: len(self)].astype(np.int64)
        return joined(near_duplicates(self.records, ALIKE).near)

    @cached_property
    def map(self) -> Map:
        """Records by their utilities where all pairs are measured, else by embeddings or texts; a sample of many."""
        n = len(self)
        places = np.arange(n)
        if n > MAPPED:
            places = np.sort(np.random.default_rng(self.wanted.seed).choice(n, MAPPED, replace=False))
        points, by = _points(self.block, self.records, places, self.options)
        return Map(places, points, by)


def _reach(block: AnyBlock, options: KernelOptions) -> Reach:
    example_key, target_key = (labels.astype(np.int64) for labels in block.own(options))
    return reach(block.cache, example_key, target_key, options.utility)


def _points(block: AnyBlock, records: Sequence[Record], places: Ints, options: KernelOptions) -> tuple[Floats, str]:
    cache = block.cache
    n, m = cache.shape
    if isinstance(cache, Cache):

        def rows(start: int, stop: int) -> Floats:
            at = places[start:stop]
            utility = block_utilities(cache, options.utility, at)
            if cache.square:
                utility[np.arange(len(at)), at] = 0  # its own answer would place each record by itself
            return utility

        points, share = principal_plane(rows, (len(places), m))
        return points, f"by how much each helps with every target (principal components, {share:.0%} of the variance)"
    kept = read_kept(kept_file(cache, "examples", EMBEDDINGS), (2, n, -1), np.float32)
    if kept is not None:
        texts, what = kept[MEAN][places], "the model's mean hidden states"
    else:
        shown = [records[place] for place in places.tolist()]
        prompts = [" ".join(turn.content for turn in record.prompt) for record in shown]
        texts, what = text_points(grams(prompts, [record.response for record in shown])), "the n-grams of their texts"
    points, share = principal_plane(lambda start, stop: texts[start:stop], (len(places), texts.shape[1]))
    return points, f"by {what}, since not all pairs are measured (principal components, {share:.0%} of the variance)"

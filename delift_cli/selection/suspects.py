"""Answers that are probably wrong or spoiled, by what is measured already.

A record's kin are the records whose prompts are nearest to its own by text. Behind them the model has seen how such
prompts are answered; an answer that it still finds unlikely, more so than it finds the answers of the kin, is suspect.
What a record does to others says nothing here. `tests.bench.suspects` measures this and what was tried beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..data.ngrams import grams, neighbours
from ..data.record import Record, copy_groups
from ..errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KIN = 8  # that a record is seen behind
NEAREST = 32  # among which measured kin are looked for
FEWEST = 3  # kin behind which a record must be measured to be judged


@dataclass(frozen=True)
class Suspects:
    """One entry for each record; NaN where fewer than FEWEST pairs with kin are measured.

    Attributes:
        score: float64, the more suspect the higher: `behind` less `usual`, in the spread of the kin's own losses.
        behind: float64, mean loss of the response behind kin, nats per token.
        usual: float64, the median of that over the kin.
        kin: int64, behind how many.
    """

    score: Floats
    behind: Floats
    usual: Floats
    kin: Ints

    def worst(self, count: int) -> Ints:
        """The places of the `count` most suspect records, the worst first, ties to the lower place."""
        judged = np.flatnonzero(~np.isnan(self.score))
        return judged[np.argsort(-self.score[judged], kind="stable")][:count]


def suspects(cache: Cache | SparseCache, records: Sequence[Record]) -> Suspects:
    """Judge the records of a pool that is scored against itself.

    Raises:
        InputError: it is another kind of cache, or not every record is measured without an example.
    """
    if not cache.square:
        raise InputError(f"{cache.path} is not a pool scored against itself, which suspects are looked for in")
    key = copy_groups(records).astype(np.int64)
    near = nearest_prompts(records, key)
    loss = -measured_behind(cache, near).astype(np.float64)
    return judge(loss, near)


def nearest_prompts(records: Sequence[Record], key: Ints) -> npt.NDArray[np.int32]:
    """int32 [records, NEAREST], the records with the nearest prompts, -1 where there are fewer; copies left out."""
    prompts = ["\n".join(turn.content for turn in record.prompt) for record in records]
    vectors = grams(prompts, [""] * len(records))
    return neighbours(vectors, vectors, NEAREST, key, key)[0]


def measured_behind(cache: Cache | SparseCache, near: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """float32 like `near`: the mean log-probability of each record behind these examples, NaN where not measured."""
    n = cache.shape[0]
    target = np.broadcast_to(np.arange(n)[:, None], near.shape)
    if isinstance(cache, Cache):
        found = cache.logprob[np.maximum(near, 0), target]
        return np.where(near >= 0, found, np.float32(np.nan))
    pairs = cache.pairs()
    known = pairs.example.astype(np.int64) * n + pairs.target
    order = np.argsort(known, kind="stable")
    wanted = near.astype(np.int64) * n + target
    if not len(order):
        return np.full(near.shape, np.nan, np.float32)
    at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    return np.where((known[at] == wanted) & (near >= 0), pairs.logprob[at], np.float32(np.nan))


def judge(loss: Floats, near: npt.NDArray[np.int32]) -> Suspects:
    """The scores.

    Args:
        loss: float64 [records, NEAREST], loss behind each near record, NaN where not measured.
        near: int32 of the same shape, those records.
    """
    there = ~np.isnan(loss)
    used = there & (np.cumsum(there, axis=1) <= KIN)
    kin = used.sum(1)
    enough = kin >= FEWEST
    total = np.where(used, loss, 0).sum(1)
    behind = np.divide(total, kin, out=np.full(len(kin), np.nan), where=enough)
    others = np.where(near >= 0, behind[np.maximum(near, 0)], np.nan)
    others[:, KIN:] = np.nan
    judged = (~np.isnan(others)).sum(1) >= FEWEST
    usual, spread = np.full((2, len(kin)), np.nan)
    usual[judged] = np.nanmedian(others[judged], axis=1)
    spread[judged] = np.nanmedian(np.abs(others[judged] - usual[judged, None]), axis=1)
    floor = np.nanmedian(spread) if judged.any() else np.nan
    score = (behind - usual) / np.maximum(1.4826 * (spread + floor) / 2, 1e-3)
    return Suspects(score, behind, usual, kin)

"""Answers that are probably wrong or spoiled, by what the model says of them.

A prompt makes its own answer likelier, and so do examples of how such prompts are answered. Of an answer that belongs
to another prompt, breaks off or says the same to everything that cannot be said: what it costs the model hardly falls
when these come into the context. So

    suspicion = mean(loss behind the prompt, loss behind an example and the prompt) / (loss without either) ^ 0.8

The power, a little below the plain share of the loss that is left, keeps answers in front that cost much whatever is
in the context, as those do that break off. The examples are the record's kin, the records whose prompts are nearest to
its own by text, as far as these pairs are measured (in a large pool: the neighbours that it was scored behind). With
the prompt alone and no power this is the difficulty of Li et al. (see `baselines`), which they take for a merit
up to 1. Where nobody asked the model what a response costs without its prompt, loss behind the kin stands in for the
whole. `tests.bench.suspects` measures both, and what was tried beside them.

A long answer that is given word for word to unlike prompts, and that they make hardly likelier, is boilerplate. The
examples that have it too teach it to the model, so that it would seem sound; its suspicion is 1 more.

Of a response that costs 3 nats a token without a prompt, 1.2 says that 96 % of them are left behind one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..budget.measured import NEIGHBOUR
from ..cache.dense import Cache
from ..cache.sidecar import WITHOUT_PROMPT, kept_file, read_kept
from ..cache.sparse import SparseCache
from ..data.ngrams import grams, neighbours
from ..data.record import Record, copy_groups
from ..data.shared_answers import shared_answers
from ..errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KIN = 8  # that a record is seen behind
SUSPECT = 1.2  # from which on an answer is doubtful; of the sound ones of seven pools 0 to 5 % are
SPREAD = 4  # of a record's kin that may be doubtful before it
SEARCHED = 5_000  # records of a cache of some pairs that nearest prompts are looked for of; it grows with the square
POWER = 0.8  # of the loss without the prompt
NEAREST = 32  # among which measured kin are looked for
UNMOVED = 0.8  # share of its loss without the prompt that is left of boilerplate behind one, at least


@dataclass(frozen=True)
class Suspects:
    """One entry for each record, losses in nats per token.

    Attributes:
        score: float64, the more suspect the higher; NaN where nothing is known that it could be said from.
        loss: float64, behind the prompt alone.
        behind: float64, mean behind kin and the prompt; NaN where no such pair is measured.
        alone: float64, without either, or None where it was not measured.
        kin: int64, behind how many.
        prompts: int64, unlike prompts that have this very answer; 0 for a short one.
        boilerplate: bool, a long answer to unlike prompts that they make hardly likelier.
        near: int32 [records, some], whose prompts are nearest, -1 where there are fewer.
    """

    score: Floats
    loss: Floats
    behind: Floats
    alone: Floats | None
    kin: Ints
    prompts: Ints
    boilerplate: npt.NDArray[np.bool_]
    near: npt.NDArray[np.int32]

    def worst(self, count: int) -> Ints:
        """The places of the `count` most suspect records, the worst first, ties to the lower place."""
        judged = np.flatnonzero(~np.isnan(self.score))
        return judged[np.argsort(-self.score[judged], kind="stable")][:count]

    @property
    def telling(self) -> bool:
        """Are most answers likelier behind their prompts? To a model to which they are not, all of them are suspect."""
        return self.alone is not None and 2 * int((self.score > SUSPECT).sum()) <= int((~np.isnan(self.score)).sum())

    @cached_property
    def doubtful(self) -> Ints:
        """The places of the records with a suspicion above `SUSPECT`, the worst first; of kin no more than `SPREAD`.
        None of them where suspicion is not `telling`.

        Where prompts of one kind tell little of their answers, as those that leave open what to write about, all of
        these are suspect; the kind should not be lost for it.
        """
        there = np.zeros(len(self.score), np.bool_)
        worst = self.worst(int((self.score > SUSPECT).sum()) if self.telling else 0)
        for place in worst.tolist():
            kin = self.near[place, :KIN]
            there[place] = there[kin[kin >= 0]].sum() < SPREAD
        return worst[there[worst]]

    def row(self, record: Record, place: int) -> dict[str, Any]:
        """What is said of the record at this place, as data; None for what is not known."""
        behind = float(self.behind[place])
        return {
            "id": record.id,
            "line": record.line,
            "suspicion": float(self.score[place]),
            "loss": float(self.loss[place]),
            "loss_behind_kin": None if np.isnan(behind) else behind,
            "loss_without_prompt": None if self.alone is None else float(self.alone[place]),
            "kin": int(self.kin[place]),
            "prompts_with_this_answer": int(self.prompts[place]),
            "boilerplate": bool(self.boilerplate[place]),
            "prompt": record.asked,
            "response": record.response,
        }


def suspects(
    cache: Cache | SparseCache, records: Sequence[Record], alone: npt.NDArray[np.float32] | None = None
) -> Suspects:
    """Judge the records of a pool that is scored against itself.

    Args:
        alone: float32 [records], mean log-probability of each response without its prompt (see
            `scoring.without_prompt`); default: what is kept beside the cache, if it is.

    Raises:
        InputError: it is another kind of cache, or not every record is measured without an example.
    """
    if not cache.square:
        raise InputError(f"{cache.path} is not a pool scored against itself, which suspects are looked for in")
    if not cache.base_complete:
        raise InputError(
            f"{cache.path} does not hold every record's loss yet; run the same delift score command again, "
            "it goes on from there"
        )
    if alone is None:
        alone = read_kept(kept_file(cache, "examples", WITHOUT_PROMPT), (cache.shape[0],), np.float32)
    if isinstance(cache, SparseCache) and len(records) > SEARCHED:
        near, logprob = shown_neighbours(cache, copy_groups(records))
    else:
        near = nearest_prompts(records)
        logprob = measured_behind(cache, near)
    loss, behind = -cache.base_logprob.astype(np.float64), -logprob.astype(np.float64)
    without = None if alone is None else -alone.astype(np.float64)
    return judge(loss, behind, without, shared_answers(records), near)


def nearest_prompts(records: Sequence[Record]) -> npt.NDArray[np.int32]:
    """int32 [records, NEAREST], the records with the nearest prompts, -1 where there are fewer; copies left out."""
    prompts = ["\n".join(turn.content for turn in record.prompt) for record in records]
    vectors = grams(prompts, [""] * len(records))
    key = copy_groups(records).astype(np.int64)
    return neighbours(vectors, vectors, NEAREST, key, key)[0]


def measured_behind(cache: Cache | SparseCache, near: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """float32 like `near`: the mean log-probability of each record behind these examples, NaN where not measured."""
    n = cache.shape[0]
    target = np.broadcast_to(np.arange(n)[:, None], near.shape)
    if isinstance(cache, Cache):
        return np.where(near >= 0, cache.logprob[np.maximum(near, 0), target], np.float32(np.nan))
    pairs = cache.pairs()
    if not len(pairs.example):
        return np.full(near.shape, np.nan, np.float32)
    known = pairs.example.astype(np.int64) * n + pairs.target
    order = np.argsort(known, kind="stable")
    wanted = near.astype(np.int64) * n + target
    at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    return np.where((known[at] == wanted) & (near >= 0), pairs.logprob[at], np.float32(np.nan))


def shown_neighbours(
    cache: SparseCache, group: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """int32 [records, KIN], the examples that were shown to each record as its neighbours, by text or embedding, when
    the pairs were chosen, and float32, its mean log-probability behind each; -1 and NaN where there are fewer.

    `group` labels copies, which are left out.
    """
    pairs = cache.pairs()
    own = np.flatnonzero((pairs.source == NEIGHBOUR) & (group[pairs.example] != group[pairs.target]))
    own = own[np.argsort(pairs.target[own], kind="stable")]
    target = pairs.target[own]
    place = np.arange(len(own)) - np.searchsorted(target, np.arange(cache.shape[0]))[target]
    near = np.full((cache.shape[0], KIN), -1, np.int32)
    found = np.full((cache.shape[0], KIN), np.nan, np.float32)
    first = place < KIN
    near[target[first], place[first]] = pairs.example[own[first]]
    found[target[first], place[first]] = pairs.logprob[own[first]]
    return near, found


def judge(
    loss: Floats,
    behind: Floats,
    alone: Floats | None,
    prompts: Ints | None = None,
    near: npt.NDArray[np.int32] | None = None,
) -> Suspects:
    """The scores.

    Args:
        loss: float64 [records], behind the prompt. alone: the same without it, or None.
        behind: float64 [records, examples], behind each of some kin, the nearest first; NaN where not measured, and
            the first KIN that are measured count. prompts: see `shared_answers`; None where nothing is known of it.
        near: see `Suspects`; None likewise.
    """
    near = np.full((len(loss), 0), -1, np.int32) if near is None else near
    prompts = np.zeros(len(loss), np.int64) if prompts is None else prompts
    there = ~np.isnan(behind)
    used = there & (np.cumsum(there, axis=1) <= KIN)
    kin = used.sum(1)
    mean = np.divide(np.where(used, behind, 0).sum(1), kin, out=np.full(len(loss), np.nan), where=kin > 0)
    if alone is None:
        return Suspects(mean, loss, mean, None, kin, prompts, np.zeros(len(loss), np.bool_), near)
    left = np.where(kin > 0, (loss + mean) / 2, loss)
    score = np.divide(left, np.maximum(alone, 0) ** POWER, out=np.full(len(loss), np.nan), where=alone > 0)
    boilerplate = (prompts > 1) & (loss >= UNMOVED * alone)
    return Suspects(score + boilerplate, loss, mean, alone, kin, prompts, boilerplate, near)

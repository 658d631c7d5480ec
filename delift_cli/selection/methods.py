"""What a method chooses by: caches opened, as blocks of utilities or of cosines, or one score for each record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..amount import parse_amount
from ..cache.anchors import weights_of
from ..cache.dense import Cache
from ..cache.sparse import SparseCache, open_cache
from ..cache.stored import Stored
from ..errors import InputError
from ..progress import Progress, counting
from ..submodular.objectives import Objective
from . import baselines, blocks
from .blocks import AnyBlock, Records

if TYPE_CHECKING:  # llama.cpp takes a while to load, and only two methods need it
    from ..prompt.template import ChatTemplate
    from ..scoring.job import Engine

Method = Literal["random", "length", "loss", "ifd", "embedding", "delift"]
AnyCache: TypeAlias = str | Path | Cache | SparseCache
COVERING = ("embedding", "delift")  # methods in which records cover one another
MODELS_OWN = ("ifd", "embedding")  # methods that ask the model more than scoring did
WHAT = {
    "random": "a random number for each record",
    "length": "tokens of the response, the longest first",
    "loss": "loss of the response without an example, nats per token, the highest first",
    "ifd": "loss of the response with its prompt over that without, the highest first, above 1 last",
    "embedding": "cosines of the model's mean hidden states",
    "delift": "utilities of examples in context",
}


@dataclass(frozen=True)
class Defaults:
    """What a choice goes by where nothing else is said.

    A pool alone is covered for a loss by record and one by token: with 30 % of three pools neither was worse after
    training than with random subsets, and on two both were better. Shared answers are left out: where four of ten
    answers were spoiled, a third of them boilerplate, fewer spoiled ones are chosen. Of near-copies one is taken:
    where each record has two, as many of them as help were worse than random subsets. Doubtful answers come last: that
    was better where answers were spoiled, and no worse where none were (all in samples/EVIDENCE.md).

    An objective that is named is what it is defined as, cosines are covered as others do it, and with a target set or
    existing data it was measured like that: each record alike, all records but itself and its copies.

    Attributes:
        count: what of a target counts alike, see `blocks.objective_over`.
        self_utility: what a record covers of itself, see `blocks.kernels`.
        distinct: which near-duplicates are ruled out, see `hygiene.hygiene`.
        suspects: do doubtful answers come last, see `set_aside`.
    """

    count: blocks.Count
    self_utility: blocks.SelfUtility
    distinct: Literal["copies", "off"]
    suspects: Literal["last", "off"]


POOL_ALONE = Defaults("both", "exclude-answers", distinct="copies", suspects="last")
AS_DEFINED = Defaults("records", "exclude", distinct="off", suspects="off")


def opened_cache(cache: AnyCache) -> Cache | SparseCache:
    """A cache by its path, or as it is."""
    return open_cache(Path(cache)) if isinstance(cache, str | Path) else cache


def objective_for(
    caches: Mapping[str, Cache | SparseCache], k: str, objective: str | None = None, method: Method = "delift"
) -> tuple[str, float]:
    """What is chosen by, and its alpha, for caches by role ("pool", "target", "existing") and an amount as in
    `select -k`: the objective that was asked for by name, else the default, in which each target gets as large a share
    of what helps it as is chosen of the pool.

    `method`: cosines of embeddings are always covered by the best alone, as others do it.
    """
    pool, anchors, share, records = caches.get("pool"), False, 0.0, 0
    if pool is not None and method == "delift":
        anchors = weights_of(pool) is not None
        amount = parse_amount(k, pool.shape[0])
        share = round(amount.share(pool.shape[0], int(pool.example_tokens.sum())), 2)  # 20 % of 1,002 records are 200
        records = round(share * pool.shape[0]) if amount.records is None else amount.records
    if objective is not None:  # only now: an amount that is none is said before the work, whatever is chosen by
        return objective, blocks.ALPHA
    given = ("pool" in caches, "target" in caches, "existing" in caches)
    name = blocks.default_objective(*given, anchors=anchors, share=share, records=records)
    return name, share if name == "saturated" else blocks.ALPHA


def defaults_for(
    caches: Mapping[str, Cache | SparseCache], objective: str | None = None, method: Method = "delift"
) -> Defaults:
    """What goes unsaid, for caches by role and the objective that was asked for by name, if any."""
    alone = "target" not in caches and "existing" not in caches
    return POOL_ALONE if alone and objective is None and method == "delift" else AS_DEFINED


@dataclass(frozen=True)
class OpenModel:
    """How the user wants the model run, where a method runs it at all."""

    model: str | None
    gpu_layers: int | None
    threads: int | None

    def __call__(self, cache: Stored) -> tuple[Engine, ChatTemplate]:
        from ..model.llama import Settings
        from ..scoring.job import engine_as_measured

        return engine_as_measured(cache, self.model, Settings(self.gpu_layers, self.threads))


def scored_blocks(caches: dict[str, Cache | SparseCache]) -> dict[str, AnyBlock]:
    """The blocks of utilities that caches hold, by role."""
    return {role: blocks.as_block(cache) for role, cache in caches.items()}


def cosine_blocks(
    caches: dict[str, Cache | SparseCache], open_model: OpenModel, progress: Progress
) -> dict[str, AnyBlock]:
    """The same records by their embeddings, which the model makes where none are kept."""
    from .embedded import embedded_blocks

    if not caches:
        return {}
    report = counting(progress, "embeddings", next(iter(caches.values())).shape[0])
    return dict(zip(caches, embedded_blocks(list(caches.values()), open_model, report), strict=True))


def per_record(
    method: baselines.PerRecord,
    cache: Cache | SparseCache | None,
    seed: int,
    open_model: OpenModel,
    progress: Progress,
) -> tuple[Objective, Records]:
    """An objective in which each record counts alone; InputError without a pool to choose from."""
    if cache is None:
        raise InputError(f"give a cache to select from: delift select train.delift --method {method} -k 30%")
    baselines.check_pool(cache, method)
    alone = None
    if method == "ifd":
        from ..scoring.without_prompt import logprob_without_prompt

        report = counting(progress, "responses without prompts", cache.shape[0])
        alone = logprob_without_prompt(cache, open_model, report)
    return baselines.modular(baselines.scores(cache, method, seed, alone)), Records(cache)

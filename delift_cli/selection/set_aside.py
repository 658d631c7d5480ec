"""Suspects that a choice sets aside: for good where that was asked for, otherwise until no other record is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..amount import counted, parse_share
from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..data.record import Record
from ..display import Lines
from ..errors import InputError
from ..progress import Progress, counting
from .methods import OpenModel
from .suspects import Suspects, suspects

OFF = "off"  # of --drop-suspects


@dataclass(frozen=True)
class SetAside:
    """The most suspect records of a pool.

    Attributes:
        places: the most suspect first.
        for_good: they are left out, however many are asked for; otherwise they come last.
        unknown: some were to come last, but the cache does not say what responses cost without their prompts.
    """

    places: Sequence[int] = ()
    for_good: bool = False
    unknown: bool = False

    @property
    def never(self) -> Sequence[int]:
        """Those that are left out."""
        return self.places if self.for_good else ()

    @property
    def last(self) -> Sequence[int]:
        """Those that come last."""
        return () if self.for_good else self.places

    def as_dict(self, chosen: Sequence[int]) -> dict[str, Any]:
        """How many, and how many of them were chosen after all, as data."""
        return {
            "dropped_suspects": len(self.never),
            "suspects_last": None if self.unknown else len(self.last),
            "suspects_taken": len({*self.last} & {*chosen}),
        }

    def lines(self, cache: Path, chosen: Sequence[int]) -> Lines:
        """The same for people; `cache` is the pool's."""
        if self.unknown:
            return [
                (
                    "suspects",
                    f"not looked for: {cache} does not hold what responses cost without their prompts; the same delift "
                    "score command again adds it",
                )
            ]
        if not self.places:
            return []
        which = f"delift inspect {cache} --suspects {len(self.places)} lists them"
        if self.for_good:
            return [("left out", f"{counted(len(self.places), 'record')} whose answers are the most suspect; {which}")]
        taken = len({*self.last} & {*chosen})
        how = f"{taken:,} of them taken, for no others were left" if taken else "none of them taken"
        many = f"the {counted(len(self.places), 'most suspect answer')} come{'s' * (len(self.places) == 1)} last"
        return [("suspects", f"{many}, {how}; {which} (--drop-suspects off: as any other)")]


def set_aside(
    cache: Cache | SparseCache | None,
    records: Sequence[Record],
    asked: str | None,
    unsaid: float,
    always: Sequence[int],
    open_model: OpenModel,
    progress: Progress,
) -> SetAside:
    """The suspects of a pool that a choice from it sets aside.

    Args:
        cache, records: the pool's; no cache where a target set's is all there is.
        asked: the share to leave out for good; `off`: none; None: not said.
        unsaid: the share that comes last where nothing is said and scoring kept what it takes to judge.
        always: places that are chosen whatever is said of them.

    Raises:
        InputError: some are to be left out of what is no pool scored against itself, or see `suspects`.
    """
    if asked not in (None, OFF):
        share = parse_share(str(asked), "--drop-suspects")
        return _worst(look_for_suspects(cache, records, open_model, progress), share, always, for_good=True)
    if asked == OFF or not unsaid or cache is None or not cache.square:
        return SetAside()
    judged = suspects(cache, records) if cache.base_complete else None
    return come_last(judged, unsaid, always)


def come_last(judged: Suspects | None, share: float, always: Sequence[int] = ()) -> SetAside:
    """This share of the records, the most suspect ones, put last."""
    if judged is None or judged.alone is None:
        return SetAside(unknown=True)
    return _worst(judged, share, always, for_good=False)


def _worst(judged: Suspects, share: float, always: Sequence[int], *, for_good: bool) -> SetAside:
    worst = judged.worst(round(share * len(judged.score))).tolist()
    return SetAside([place for place in worst if place not in {*always}], for_good)


def look_for_suspects(
    cache: Cache | SparseCache | None, records: Sequence[Record], open_model: OpenModel, progress: Progress
) -> Suspects:
    """The suspects of a pool; the model is run once for what the responses cost without their prompts."""
    if cache is None or not cache.square:
        name = "the target set's cache alone" if cache is None else str(cache.path)
        raise InputError(f"{name} is not a pool scored against itself, which suspects are looked for in")
    from ..scoring.without_prompt import logprob_without_prompt

    report = counting(progress, "responses without prompts", cache.shape[0])
    return suspects(cache, records, logprob_without_prompt(cache, open_model, report))

"""Suspects that a choice sets aside: for good where that was asked for, otherwise until no other record is left.

What comes last is what is doubtful by itself, as many as that is, see `Suspects.doubtful`: little where every answer is
sound. Whoever asks for a share has reason to think that so many are wrong: these are the most suspect of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..amount import counted, parse_share
from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..data.record import Record
from ..display import Lines
from ..errors import InputError
from ..progress import Progress, counting
from ..visible import in_a_shell
from .methods import OpenModel
from .suspects import Suspects, suspects

LAST, OFF = "last", "off"  # of --drop-suspects, beside a share


@dataclass(frozen=True)
class SetAside:
    """The most suspect records of a pool.

    Attributes:
        places: the most suspect first.
        for_good: they are left out, however many are asked for; otherwise they come last.
        listed: so many of the most suspect of all have these among them.
        unknown: some were to come last, but the cache does not say what responses cost without their prompts.
        untold: some were to come last, but suspicion is not telling, see `Suspects.telling`.
    """

    places: Sequence[int] = ()
    for_good: bool = False
    listed: int = 0
    unknown: bool = False
    untold: bool = False

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
            "suspects_last": None if self.unknown or self.untold else len(self.last),
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
        if self.untold:
            few = "to this model most answers are hardly likelier behind their prompts, which says nothing of any one"
            return [("suspects", f"none come last: {few}")]
        if not self.places:
            return []
        others = f", and {self.listed - len(self.places):,} more" if self.listed > len(self.places) else ""
        which = f"delift inspect {in_a_shell(cache)} --suspects {self.listed} lists them{others}"
        if self.for_good:
            return [("left out", f"{counted(len(self.places), 'record')} whose answers are the most suspect; {which}")]
        taken = len({*self.last} & {*chosen})
        how = f"{taken:,} of them taken for want of others" if taken else "none of them taken"
        many = f"{counted(len(self.places), 'doubtful answer')} come{'s' * (len(self.places) == 1)} last"
        return [("suspects", f"{many}, {how}; {which} (--drop-suspects off: as any other)")]


def set_aside(
    cache: Cache | SparseCache | None,
    records: Sequence[Record],
    asked: str | None,
    unsaid: Literal["last", "off"],
    always: Sequence[int],
    open_model: OpenModel,
    progress: Progress,
) -> SetAside:
    """The suspects of a pool that a choice from it sets aside.

    Args:
        cache, records: the pool's; no cache where a target set's is all there is.
        asked: the share to leave out for good; `last`: the doubtful ones come last; `off`: none; None: as `unsaid`
            says, as far as scoring kept what it takes.
        always: places that are chosen whatever is said of them.

    Raises:
        InputError: some are to be left out of what is no pool scored against itself, or see `suspects`.
    """
    if asked is None and unsaid == LAST and cache is not None and cache.square:
        return come_last(suspects(cache, records) if cache.base_complete else None, always)
    if asked in (None, OFF):
        return SetAside()
    share = 0.0 if asked == LAST else parse_share(str(asked), "--drop-suspects", LAST, OFF)
    judged = look_for_suspects(cache, records, open_model, progress)
    if asked == LAST:
        return come_last(judged, always)
    worst = judged.worst(round(share * len(records))).tolist()
    return SetAside(_without(worst, always), for_good=True, listed=len(worst))


def check_set_aside(cache: Cache | SparseCache | None, asked: str | None) -> None:
    """InputError where `set_aside` cannot be asked for this; before anything is computed."""
    if asked not in (None, OFF):
        if asked != LAST:
            parse_share(str(asked), "--drop-suspects", LAST, OFF)
        _check_pool(cache)


def come_last(judged: Suspects | None, always: Sequence[int] = ()) -> SetAside:
    """The doubtful records put last."""
    if judged is None or judged.alone is None:
        return SetAside(unknown=True)
    if not judged.telling:
        return SetAside(untold=True)
    doubtful = judged.doubtful.tolist()
    listed = judged.worst(len(judged.score)).tolist().index(doubtful[-1]) + 1 if doubtful else 0
    return SetAside(_without(doubtful, always), listed=listed)


def _without(places: Sequence[int], others: Sequence[int]) -> list[int]:
    gone = {*others}
    return [place for place in places if place not in gone]


def _check_pool(cache: Cache | SparseCache | None) -> Cache | SparseCache:
    if cache is None or not cache.square:
        name = "the target set's cache alone" if cache is None else str(cache.path)
        raise InputError(f"{name} is not a pool scored against itself, which suspects are looked for in")
    return cache


def look_for_suspects(
    cache: Cache | SparseCache | None, records: Sequence[Record], open_model: OpenModel, progress: Progress
) -> Suspects:
    """The suspects of a pool; the model is run once for what the responses cost without their prompts.

    Raises:
        InputError: it is no pool scored against itself, or is damaged.
    """
    cache = _check_pool(cache)
    from ..scoring.without_prompt import logprob_without_prompt

    cache.check_rows()  # methods that need no pairs have not
    report = counting(progress, "responses without prompts", cache.shape[0])
    return suspects(cache, records, logprob_without_prompt(cache, open_model, report))

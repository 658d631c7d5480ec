"""What is asked of a subset besides coverage: no records of a benchmark, no near-duplicates, good scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..amount import Amount, counted, parse_share
from ..data.near_duplicates import Near, groups_of, near_copies, near_duplicates
from ..data.overlap import overlaps, parse_not_like
from ..data.quality import Quality, bonus, read_quality
from ..data.reading import read_records
from ..data.record import Record
from ..data.shared_answers import shared_answers
from ..display import Lines
from ..submodular.objectives import Objective, value
from ..visible import in_a_shell

ALIKE = 0.9  # cosine of n-grams from which on one record is said to be nearly the same as another
ONCE, ANY = "copies", "off"  # of --distinct, beside a similarity
LOOKED_AT = 5_000  # chosen records that are compared with each other at most
SHOWN = 5  # pairs and groups in the summary for people


class Like(NamedTuple):
    """A record that was left out, and the record of a benchmark that it overlaps, by their ids."""

    id: str
    source: str
    like: str
    share: float
    part: str
    exact: bool


@dataclass(frozen=True)
class Hygiene:
    """What was found and done.

    Attributes:
        left_out: places of the records that overlap a benchmark; `like`: with what, None where none was asked about.
        near: the near-duplicates, None where they were not looked for; cut: how many records have more of them.
        lenient: they are near-copies, and ruled out as long as others are left.
        groups: ids of records that are near-duplicates of each other.
        quality: the scores that the data carry, where they are weighed.
    """

    left_out: list[int] = field(default_factory=list)
    like: list[Like] | None = None
    near: Near | None = None
    cut: int = 0
    lenient: bool = False
    groups: list[list[str]] = field(default_factory=list)
    quality: Quality | None = None

    def with_quality(self, goal: Objective, records: int, amount: Amount, mean_cost: float) -> Objective:
        """The objective with the scores as a modular term, see `quality.bonus`; the same one where there are none."""
        if self.quality is None:
            return goal
        k = amount.records if amount.records is not None else int((amount.tokens or 0) / max(mean_cost, 1.0))
        term = bonus(self.quality, value(goal), min(k, records))
        weight = {f"quality of {self.quality.field}": self.quality.weight}
        return replace(goal, bonus=goal.bonus + term, parameters={**goal.parameters, **weight})

    @property
    def _near_told(self) -> bool:
        return bool(self.groups) if self.lenient else self.near is not None

    def near_to(self, place: int) -> list[int]:
        """The records that one rules out, or is ruled out by."""
        if self.near is None:
            return []
        start, near = self.near
        before = np.searchsorted(start, np.flatnonzero(near == place), side="right") - 1
        return sorted({*before.tolist(), *near[start[place] : start[place + 1]].tolist()})

    def as_dict(self) -> dict[str, Any]:
        """The same as data; nothing of what was not asked for."""
        found: dict[str, Any] = {}
        if self.like is not None:
            found["not_like"] = [like._asdict() for like in self.like]
        if self._near_told:
            found["near_copy_groups" if self.lenient else "near_duplicate_groups"] = self.groups
        if self.quality is not None:
            quality = self.quality._asdict()
            del quality["scores"]
            found["quality"] = quality
        return found

    def lines(self) -> Lines:
        """The same for people."""
        rows: Lines = []
        if self.like is not None:
            which = counted(len(self.like), "record")
            rows.append(("not like", f"{which} left out, for text shared with a benchmark"))
            for like in self.like[:SHOWN]:
                how = "the same prompt" if like.exact else f"{like.share:.0%} of its {like.part}"
                rows.append(("", f"{like.id}: {how} as {like.like} of {like.source}"))
            if len(self.like) > SHOWN:
                rows.append(("", f"and {len(self.like) - SHOWN:,} more; --json lists them"))
        if self._near_told:
            which, how = "near-duplicates", "never two of a pair"
            if self.lenient:
                which, how = "near-copies", "a second of a group once no others are left (--distinct off: at any time)"
            count = sum(map(len, self.groups))
            rows.append(("near", f"{counted(len(self.groups), 'group')} of {which}, {count:,} records; {how}"))
            if self.cut:
                have = "has" if self.cut == 1 else "have"
                crowd = (
                    f"{counted(self.cut, 'record')} {have} so many {which} that only the nearest of them are held apart"
                )
                rows.append(("", f"{crowd}; leave out copies beforehand"))
            rows += [
                ("", ", ".join([*group[:SHOWN], *(["…"] if len(group) > SHOWN else [])]))
                for group in self.groups[:SHOWN]
            ]
        if self.quality is not None:
            q = self.quality
            scale = f"{q.low:g} counts as 0 and {q.high:g} as 1, times {q.weight:g}"
            meaning = "at weight 1 the best scores add as much as the whole pool covers"
            counts = f"count{'s' * (q.missing == 1)} as 0"
            missing = f"; {counted(q.missing, 'record')} without one {counts}" if q.missing else ""
            rows.append(("quality", f"{q.field}: {scale} ({meaning}){missing}"))
        return rows


@dataclass(frozen=True)
class Repeats:
    """What chosen records have in common that nobody asked to look at; None where it was not looked at.

    Attributes:
        alike: records that are nearly the same as an earlier one.
        one_answer: records with a long answer that at least two unlike prompts among them get too.
    """

    alike: int | None = None
    one_answer: int | None = None

    def as_dict(self) -> dict[str, int | None]:
        """The same as data."""
        return {"nearly_the_same": self.alike, "one_answer": self.one_answer}

    def lines(self, pool: Path) -> Lines:
        """The same for people, with what to do."""
        rows: Lines = []
        if self.alike:
            are = "is" if self.alike == 1 else "are"
            which = f"{self.alike:,} of the selected {are} nearly the same as another one of them"
            rows.append(("near", f"{which}; --distinct {ALIKE} takes one of each"))
        if self.one_answer:
            which = f"{self.one_answer:,} of the selected give unlike prompts one long answer, as boilerplate does"
            rows.append(("answers", f"{which}; delift inspect {in_a_shell(pool)} --suspects 20 looks closer"))
        return rows


def repeats(chosen: Sequence[Record], *, distinct: bool) -> Repeats:
    """Look at up to `LOOKED_AT` chosen records; `distinct`: near-duplicates are left out already."""
    if len(chosen) > LOOKED_AT:
        return Repeats()
    alike = None if distinct else sum(len(group) - 1 for group in groups_of(near_duplicates(chosen, ALIKE).near))
    return Repeats(alike, int((shared_answers(chosen) > 2).sum()))


def benchmarks(not_like: Sequence[str]) -> list[str]:
    """The sources that `not_like` names."""
    return [parse_not_like(text)[0] for text in not_like]


def hygiene(
    records: Sequence[Record],
    *,
    not_like: Sequence[str] = (),
    distinct: str | None = None,
    quality: str | None = None,
) -> Hygiene:
    """Look at a pool's records for what was asked.

    Args:
        not_like: sources of benchmarks, each with the least containment (`test.jsonl:0.8`). distinct: from which
            similarity on two records are near-duplicates; `copies`: near-copies, once as long as others are left; `off`
            or None: neither. quality: `FIELD[:weight]`.

    Raises:
        InputError: an option, a benchmark or a score cannot be read.
    """
    share = None if distinct in (None, ONCE, ANY) else parse_share(str(distinct), "--distinct", ONCE, ANY)
    scores = None if quality is None else read_quality(quality, records)
    like: list[Like] = []
    places: dict[int, None] = {}
    for text in not_like:
        source, least = parse_not_like(text)
        benchmark = read_records(source).records
        for found in overlaps(records, benchmark, least):
            if found.place not in places:
                places[found.place] = None
                other = benchmark[found.other].id
                like.append(Like(records[found.place].id, source, other, found.share, found.part, found.exact))
    near, cut = None, 0
    if distinct == ONCE:
        near, cut = near_copies(records)
    elif share is not None:
        near, cut = near_duplicates(records, share)
    groups = [] if near is None else [[records[place].id for place in group] for group in groups_of(near)]
    return Hygiene(list(places), like if not_like else None, near, cut, distinct == ONCE, groups, scores)

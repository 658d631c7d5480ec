"""One record of a cache as it is looked at: what it says, its figures, whom it helps and who helps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..data.ids import find_record
from ..data.record import Record
from ..display import Facts, Lines
from ..errors import InputError
from ..visible import one_line, visible
from .blocks import KernelOptions, Records
from .methods import AnyCache, opened_cache

Entries = list[tuple[Record, float]]  # records and the utility of the pair


@dataclass(frozen=True, repr=False)
class Shown(Facts):
    """A record with its pairs.

    role: "example", "target", or "record" where the pool is scored against itself. figures: what is known of it, by
    name. helped_by, helps, harms: the pairs with the largest and the smallest utilities, measured ones alone.
    """

    record: Record
    role: str
    figures: dict[str, float | int]
    helped_by: Entries
    helps: Entries
    harms: Entries

    def as_dict(self) -> dict[str, Any]:
        """The record and its pairs."""
        pairs = {"helped_by": self.helped_by, "helps": self.helps, "harms": self.harms}
        return {
            "id": self.record.id,
            "line": self.record.line,
            "role": self.role,
            "turns": [{"role": turn.role, "content": turn.content} for turn in self.record.turns],
            **self.figures,
            **{name: [{"id": other.id, "utility": u} for other, u in found] for name, found in pairs.items()},
        }

    def lines(self) -> Lines:
        """The same for people; what would act on a terminal is spelt out."""
        rows = [(self.role, f"{visible(self.record.id)} (line {self.record.line:,})")]
        for turn in self.record.turns:
            first, *others = visible(turn.content, lines=True).expandtabs(4).split("\n")
            rows += [(turn.role, first), *(("", line) for line in others)]
        rows += [(name.replace("_", " "), _figure(value)) for name, value in self.figures.items()]
        every = (*self.helped_by, *self.helps, *self.harms)
        width = max((len(visible(other.id)) for other, _ in every), default=0)
        for name, found in (("helped by", self.helped_by), ("helps", self.helps), ("harms", self.harms)):
            for place, (other, utility) in enumerate(found):
                text = f"{utility:+.4f}  {visible(other.id):<{width}}  {one_line(other.asked, 60)}"
                rows.append((name if place == 0 else "", text))
        return rows


def show_record(cache: AnyCache, id: str | int, top: int = 5) -> Shown:
    """The record with this id or by another name (see `ids.Names`), an example or else a target, with `top` pairs of
    each kind.

    Raises:
        InputError: none is called so, or several are; or the cache is damaged.
    """
    return show_records(cache, [id], top)[0]


def show_records(cache: AnyCache, ids: Sequence[str | int], top: int = 5) -> list[Shown]:
    """Several of them; see `show_record`."""
    block = Records(opened_cache(cache))
    block.cache.check_rows()
    return [_shown(block, str(id), top) for id in ids]


def _shown(block: Records, name: str, top: int) -> Shown:
    cache, examples, targets = block.cache, block.examples, block.targets
    j, i = _places(cache, examples, targets, name)
    example_group, target_group = block.own(KernelOptions())
    figures: dict[str, float | int] = {}
    helps: Entries = []
    harms: Entries = []
    helped_by: Entries = []
    if j is not None:
        which, utility = as_example(cache, j)
        which, utility = _without_copies(which, utility, target_group, int(example_group[j]))
        figures |= {"tokens": int(cache.example_tokens[j]), "targets_measured": len(which)}
        if len(which):
            figures |= {"mean_utility": float(utility.mean()), "harms_share": float((utility < 0).mean())}
        order = np.argsort(-utility, kind="stable")
        helps = [(targets[which[at]], float(utility[at])) for at in order[:top].tolist() if utility[at] > 0]
        harms = [(targets[which[at]], float(utility[at])) for at in order[::-1][:top].tolist() if utility[at] < 0]
    if i is not None:
        which, utility = _as_target(cache, i)
        which, utility = _without_copies(which, utility, example_group, int(target_group[i]))
        figures |= {"loss": -float(cache.base_logprob[i]), "examples_measured": len(which)}
        order = np.argsort(-utility, kind="stable")[:top]
        helped_by = [(examples[which[at]], float(utility[at])) for at in order.tolist() if utility[at] > 0]
    role = "record" if cache.square else "example" if j is not None else "target"
    return Shown(examples[j] if j is not None else targets[i or 0], role, figures, helped_by, helps, harms)


def _places(
    cache: Cache | SparseCache, examples: Sequence[Record], targets: Sequence[Record], name: str
) -> tuple[int | None, int | None]:
    """Where the record stands among the examples, else among the targets; in both where these are the same."""
    try:
        place = find_record(examples, name)
    except InputError as error:
        if not cache.square and name.strip() in {record.id for record in targets}:
            return None, find_record(targets, name)
        raise InputError(f"{cache.path}: {error}") from None
    return place, place if cache.square else None


Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def as_example(cache: Cache | SparseCache, j: int) -> tuple[Places, Floats]:
    """The measured targets of an example, and its utilities for them."""
    if isinstance(cache, SparseCache):
        pairs = cache.pairs()
        own = pairs.example == j
        which, distance = pairs.target[own].astype(np.int64), pairs.distance[own]
    else:
        which = np.flatnonzero(~np.isnan(cache.distance[j]))
        distance = cache.distance[j, which]
    return which, (cache.base_distance[which] - distance).astype(np.float64)


def _as_target(cache: Cache | SparseCache, i: int) -> tuple[Places, Floats]:
    if isinstance(cache, SparseCache):
        pairs = cache.pairs()
        own = pairs.target == i
        which, distance = pairs.example[own].astype(np.int64), pairs.distance[own]
    else:
        which = np.flatnonzero(~np.isnan(cache.distance[:, i]))
        distance = cache.distance[which, i]
    return which, (cache.base_distance[i] - distance).astype(np.float64)


def _without_copies(which: Places, utility: Floats, group: npt.NDArray[np.int32], own: int) -> tuple[Places, Floats]:
    other = (group[which] != own) & ~np.isnan(utility)
    return which[other], utility[other]


def _figure(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:+.4f}" if value < 0 else f"{value:.4f}"

"""Subsets of a pool as they are reported: where their records stand, what each prefix is worth, why each was taken."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..amount import Amount
from ..data.folders import kind_of
from ..data.limits import listed_indices
from ..data.near_duplicates import Near
from ..data.options import Reading
from ..data.reading import read_records
from ..data.record import Message, Record
from ..errors import InputError
from ..submodular.explain import coverers, lost_without
from ..submodular.greedy import initial_gains
from ..submodular.objectives import Objective
from ..submodular.select import Selection, select

CHANGE = 0.1  # by which share more and fewer records are looked at


@dataclass(frozen=True)
class Choice:
    """An ordered subset of the pool under one objective.

    Attributes:
        places: int64 [k], the pool's records in the subset's order.
        curve: float64, value of the first 1, 2, … records; beyond k what greedy would take next.
        best_of: int64 [k], how many targets each record covers best; without: float64 [k], what the subset would lose
            of its value without it.
        first_of: int64 [k], the target that it covers by the widest margin, -1 where it covers none best.
        missing: records of the file that the pool does not have.
    """

    name: str
    places: npt.NDArray[np.int64]
    curve: npt.NDArray[np.float64]
    best_of: npt.NDArray[np.int64]
    without: npt.NDArray[np.float64]
    first_of: npt.NDArray[np.int64]
    missing: int = 0

    def __len__(self) -> int:
        return len(self.places)

    @property
    def gains(self) -> npt.NDArray[np.float64]:
        """float64 [k]: what each record adds to the value of those before it."""
        return np.diff(self.curve[: len(self)], prepend=0.0)

    def value_at(self, count: int) -> float | None:
        """What the first `count` records are worth, None where that was not looked at."""
        return float(self.curve[count - 1]) if 0 < count <= len(self.curve) else None

    @property
    def fewer(self) -> int:
        """A tenth fewer records."""
        return len(self) - round(CHANGE * len(self))

    @property
    def more(self) -> int:
        """A tenth more records."""
        return len(self) + round(CHANGE * len(self))


class Valued:
    """An objective with what each record is worth alone, which is computed once: float64 [records].

    near: near-copies, which are ruled out as long as others are left, last: places that come last, see `select`.
    """

    def __init__(self, goal: Objective, near: Near | None = None, last: Sequence[int] = ()) -> None:
        self.goal, self.near, self.last = goal, near, last
        self.singles = initial_gains(goal)

    def greedy(self, k: int | None, **limits: Any) -> Selection:
        """What greedy takes; see `submodular.select`."""
        always = {*limits.get("always", ())}
        return select(
            self.goal,
            k,
            initial_gains=self.singles,
            bound=False,
            near_duplicates=self.near,
            lenient=True,
            last=[place for place in self.last if place not in always],
            **limits,
        )

    def in_order(self, places: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
        """The value of the first 1, 2, … of these records and, up to `count`, of those that greedy takes then."""
        return self.greedy(max(count, len(places)), always=places.tolist()).curve


def given(name: str, places: npt.NDArray[np.int64], missing: int, valued: Valued) -> Choice:
    """The subset in a file, by what `read_places` says of it."""
    curve = valued.in_order(places, _looked_at(len(places), len(valued.singles)))
    return _choice(name, places, curve, valued, missing)


def chosen(amount: Amount, tokens: npt.NDArray[np.int32], valued: Valued) -> Choice:
    """What greedy takes of the pool; `tokens` int32 [records], what each costs under a token budget."""
    if amount.records is not None:  # a longer run begins with the shorter one
        run = valued.greedy(_looked_at(amount.records, len(tokens)))
        places, curve = run.indices[: amount.records], run.curve
    else:
        places = valued.greedy(None, cost=tokens, budget=amount.tokens).indices
        curve = valued.in_order(places, _looked_at(len(places), len(tokens)))
    return _choice(f"the best {len(places):,} by {valued.goal.name}", places, curve, valued, 0)


def at_random(count: int, valued: Valued, seed: int = 0) -> npt.NDArray[np.float64]:
    """The value of the prefixes of one random order, to compare a curve with."""
    order = np.random.default_rng(seed).permutation(len(valued.singles))[:count]
    return valued.in_order(order, count)


def _looked_at(k: int, n: int) -> int:
    """Of how many records the value is wanted where k are chosen."""
    return min(n, math.ceil((1 + CHANGE) * k) + 1)


def read_places(
    path: Path, records: Sequence[Record], fields: Mapping[str, str | None]
) -> tuple[npt.NDArray[np.int64], int]:
    """Where the records of a file stand in the pool, in the file's order, and how many of them the pool lacks.

    A file that begins with a record's name is a list of names, one a line, see `ids.Names`; of others see
    `found_again`.

    Args:
        fields: how the pool was read, as its manifest says it.

    Raises:
        InputError: the file cannot be read, or not twice, or none of its records is in the pool.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a pipe or a device, and a subset is read twice: put it into a file first")
    if (listed := listed_indices(path, records)) is not None:
        return np.array(listed, np.int64), 0
    try:
        read = read_records(path, Reading.from_fields(fields))
    except InputError as error:
        neither = "" if kind_of(path.name) else "; nor is its first line the name of a record of the pool"
        raise InputError(f"{error}{neither}") from None
    found = found_again(read.records, records)
    places = found[found >= 0]
    if not len(places):
        raise InputError(f"{path}: none of its records is in the pool; is it a subset of this cache?")
    return places, len(found) - len(places)


def found_again(records: Sequence[Record], pool: Sequence[Record]) -> npt.NDArray[np.int64]:
    """int64 [records]: where each stands in a pool, -1 where it has none, or none that is left.

    A record is found by its turns, for a container may have changed how its tools are written. Among those with the
    same turns one with the same tools goes first, then the one with its id, then the first that is left.
    """
    free: dict[tuple[Message, ...], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, record in enumerate(pool):
        free[record.turns][record.tools].append(place)
    found = np.full(len(records), -1, np.int64)
    for number, record in enumerate(records):
        same = free.get(record.turns, {})
        if left := same.get(record.tools) or next(filter(None, same.values()), None):
            own = next((place for place in left if pool[place].id == record.id), left[0])
            left.remove(own)
            found[number] = own
    return found


def _choice(
    name: str, places: npt.NDArray[np.int64], curve: npt.NDArray[np.float64], valued: Valued, missing: int
) -> Choice:
    who = coverers(valued.goal.kernel, places)
    order = np.argsort(places, kind="stable")
    owned = who.best >= 0
    owner = order[np.searchsorted(places[order], who.best[owned])]
    margin = ((who.best_value - who.next_value) * valued.goal.weights)[owned]
    first_of = np.full(len(places), -1, np.int64)
    widest_last = np.argsort(-margin, kind="stable")[::-1]  # of equal ones the first, as `explain_chosen` has them
    first_of[owner[widest_last]] = np.flatnonzero(owned)[widest_last]
    return Choice(
        name,
        places,
        curve,
        np.bincount(owner, minlength=len(places)),
        lost_without(valued.goal, places),
        first_of,
        missing,
    )

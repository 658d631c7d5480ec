"""A score that the data carry for each record, scaled to be weighed against what else makes a record useful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .fields import record_field
from .record import Record


class Quality(NamedTuple):
    """A field of scores: each record's from 0 (the lowest in the pool) to 1 (the highest), float64 [n], those two
    scores, and how many records have none and count as 0."""

    field: str
    weight: float
    scores: npt.NDArray[np.float64]
    low: float
    high: float
    missing: int


def parse_quality(text: str) -> tuple[str, float]:
    """`score` or `score:0.5`: a field, and its weight (default 1)."""
    field, colon, weight = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not field or not 0 < value <= 1e6:
        raise InputError(f"--quality {text}: give a field and a weight above 0, such as score:0.5")
    return field, value


def read_quality(text: str, records: Sequence[Record]) -> Quality:
    """The scores that `--quality FIELD[:weight]` names.

    Raises:
        InputError: a record's field is no number, or no record has one.
    """
    field, weight = parse_quality(text)
    values = np.full(len(records), np.nan)
    for place, record in enumerate(records):
        given = record_field(record, field)
        if given is None:
            continue
        try:
            values[place] = {"true": 1.0, "false": 0.0}.get(given) if given in ("true", "false") else float(given)
        except ValueError:
            values[place] = np.inf
        if not np.isfinite(values[place]):
            raise InputError(f"record {record.id} (line {record.line}): its {field!r} is no number: {given[:40]}")
    missing = int(np.isnan(values).sum())
    if missing == len(records):
        raise InputError(f"--quality {text}: no record has a number in the field {field!r}")
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low == high:
        raise InputError(f"--quality {text}: every record has the same {field!r}, {low:g}: it tells nothing apart")
    return Quality(field, weight, np.nan_to_num((values - low) / (high - low)), low, high, missing)


def bonus(quality: Quality, whole: float, k: int) -> npt.NDArray[np.float64]:
    """What each record's score adds to the value of a subset, float64 [n].

    At weight 1 the k best scores add together what the whole pool is worth without them, so that scores and coverage
    can count the same.
    """
    best = np.sort(quality.scores)[::-1][: max(1, k)].sum()
    return quality.scores * (quality.weight * (whole if whole > 0 else 1.0) / best)

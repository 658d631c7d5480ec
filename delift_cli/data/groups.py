"""The field that groups a pool's records: named, or found among those with a usual name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import InputError
from .fields import record_field
from .record import Record

FEWEST, MOST = 2, 60  # values that a field may have for records to be grouped by it unasked
LIKELY = ("task", "category", "source", "type", "dataset", "domain", "subset", "topic")
NONE = "(none)"


def group_labels(records: Sequence[Record], wanted: str | None) -> tuple[str | None, list[str]]:
    """The field that groups records, and its value in each, NONE where it is absent.

    Without a wish it is the first of LIKELY that most records have and that has few values; else none, and "".

    Raises:
        InputError: no record has the field that is wanted.
    """
    for name in LIKELY if wanted is None else (wanted,):
        found = [record_field(record, name) for record in records]
        values = {label for label in found if label is not None}
        few = FEWEST <= len(values) <= min(MOST, len(records) // 2) and 2 * found.count(None) <= len(records)
        if few or (wanted is not None and values):
            return name, [NONE if label is None else label for label in found]
    if wanted is not None:
        raise InputError(f"no record has a field {wanted!r} to group by")
    return None, [""] * len(records)


def group_sizes(labels: Sequence[str]) -> list[tuple[str, int]]:
    """Groups with how many records they have, the largest first."""
    return sorted(Counter(labels).items(), key=lambda entry: (-entry[1], entry[0]))

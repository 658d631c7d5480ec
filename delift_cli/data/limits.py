"""Limits as the user writes them, in the places of a pool's records: files of ids, fields to group by, quotas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..amount import Amount, parse_counts, parse_quota, quota_records
from ..errors import InputError
from .fields import record_field
from .ids import Names
from .record import Record


def read_quotas(
    per: str | None,
    group: str | None,
    at_least: list[str],
    at_most: list[str],
    records: Sequence[Record],
    amount: Amount,
) -> tuple[str | None, dict[str, int], dict[str, int]]:
    """The field that groups the records, and the least and the most for each of its values.

    Args:
        per: `FIELD:SHARE`, the most for every value of a field.
        group: the field that at_least and at_most (`VALUE=COUNT`) are about; default that of `per`, else "task".

    Raises:
        InputError: a quota cannot be read, two fields are named, or a record lacks the field.
    """
    if per is None and not at_least and not at_most:
        return None, {}, {}
    quota = None if per is None else parse_quota(per)
    field = group or (quota.field if quota else "task")
    if quota is not None and quota.field != field:
        raise InputError(f"--per {per} and --group {group} name two fields; quotas use one")
    most = {}
    if quota is not None:
        limit = quota_records(quota, amount.records)
        most = dict.fromkeys(labels(records, field), limit)
    return field, parse_counts(at_least, "--at-least"), {**most, **parse_counts(at_most, "--at-most")}


def labels(records: Sequence[Record], field: str) -> list[str]:
    """Each record's value of a field, as text; InputError for a record without it."""
    found = [record_field(record, field) for record in records]
    for record, label in zip(records, found, strict=True):
        if label is None:
            raise InputError(f"record {record.id} (line {record.line}) has no field {field!r} to group by")
    return [str(label) for label in found]


def named_indices(path: Path | None, records: Sequence[Record]) -> list[int]:
    """The places of the records that a file names, one a line; how, see `ids.Names`.

    Raises:
        InputError: the file cannot be read, or a name means no record or several.
    """
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the ids in {path}: {error}") from None
    names = Names(records)
    found: dict[int, None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found[names.find(line)] = None
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}") from None
    return list(found)

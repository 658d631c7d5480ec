"""Limits as the user writes them, in the places of a pool's records: files of ids, fields to group by, quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..amount import Amount, parse_counts, parse_quota, parse_share, quota_records
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
    *,
    keep: bool = False,
    shares: Sequence[str] = (),
) -> tuple[str | None, dict[str, int], dict[str, int]]:
    """The field that groups the records, and the least and the most for each of its values.

    Args:
        per: `FIELD:SHARE`, the most for every value of a field.
        group: the field that at_least and at_most (`VALUE=COUNT`) are about; default that of `per`, else "task".

        keep: every value of the field keeps the share that it has in the pool.
        shares: `FIELD:VALUE=SHARE`, what a value is to make of the selection.

    Raises:
        InputError: a quota cannot be read, two fields are named, or a record lacks the field; shares of a token budget,
            that make more than all, or that the pool cannot fill.
    """
    if keep or shares:
        if per is not None or at_least or at_most:
            raise InputError("shares and limits are two ways to say the same: give --shares and --share, or the others")
        return _shares(group, records, amount.records, keep=keep, given=shares)
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


def _shares(
    group: str | None, records: Sequence[Record], k: int | None, *, keep: bool, given: Sequence[str]
) -> tuple[str, dict[str, int], dict[str, int]]:
    """The field, and how many records of its values there are to be, as the least and as the most."""
    if k is None:
        raise InputError("shares need a number of records with -k, not a token budget")
    parsed = [parse_target(text) for text in given]
    fields = {field for field, _, _ in parsed} | ({group} if group else set())
    if len(fields) > 1:
        raise InputError(f"--share and --group name several fields ({', '.join(sorted(fields))}); shares are of one")
    field = fields.pop() if fields else "task"
    there = Counter(labels(records, field))
    wanted = {value: share for _, value, share in parsed}
    if len(wanted) < len(parsed):
        raise InputError("--share: a value has two shares; give one for each value")
    if (total := sum(wanted.values())) > 1 + 1e-9:
        raise InputError(f"the shares make {total:.0%} together")
    if keep:
        others = sum(count for value, count in there.items() if value not in wanted)
        left = 1 - total
        wanted |= {value: left * count / others for value, count in there.items() if value not in wanted}
    counts = _apportioned(wanted, k)
    for value, count in counts.items():
        if count > there.get(value, 0):
            raise InputError(
                f"{count:,} records with {field} {value!r} are its share of {k:,}; there are {there.get(value, 0):,}"
            )
    return field, counts, dict(counts)


def _apportioned(shares: dict[str, float], k: int) -> dict[str, int]:
    """Shares of k as whole numbers whose sum is rounded as well, the largest remainders up first."""
    exact = {value: share * k for value, share in shares.items()}
    counts = {value: int(number + 1e-9) for value, number in exact.items()}
    missing = round(sum(exact.values())) - sum(counts.values())
    for value in sorted(exact, key=lambda value: counts[value] - exact[value])[: max(missing, 0)]:
        counts[value] += 1
    return counts


def parse_target(text: str) -> tuple[str, str, float]:
    """`source:code=30%` as field, value and share."""
    field, colon, rest = text.partition(":")
    value, equals, share = rest.rpartition("=")
    if not (field and colon and value and equals):
        raise InputError(f"--share {text}: give a field, a value and its share, such as source:code=30%")
    return field, value, parse_share(share, "--share")


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
    return [] if path is None else _named_indices(path, Names(records))


def listed_indices(path: Path, records: Sequence[Record]) -> list[int] | None:
    """As `named_indices`, of a file that begins with a record's name; None where it begins with something else.

    Raises:
        InputError: as `named_indices`, behind the first name.
    """
    names = Names(records)
    try:
        with path.open("rb") as lines:
            begun = (line.decode("utf-8-sig", "replace").strip() for line in lines)
            first = next(filter(None, begun), "")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return _named_indices(path, names) if names.meant(first) else None


def _named_indices(path: Path, names: Names) -> list[int]:
    found: dict[int, None] = {}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        found[names.find(line)] = None
                    except InputError as error:
                        raise InputError(f"{path}:{number}: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"cannot read the ids in {path}: it is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read the ids in {path}: {error.strerror or error}") from None
    return list(found)

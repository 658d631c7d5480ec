"""The limits of a choice, read and checked against its pool before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..amount import Amount, counted, parse_amount, parse_until
from ..data.limits import labels, named_indices, read_quotas
from ..data.record import Record
from ..errors import InputError
from ..submodular.constraints import Constraints, make_rules


@dataclass(frozen=True)
class Limits:
    """In places of a pool's records.

    Attributes:
        amount: how much is to be chosen. until: the share of the first gain at which a choice ends.
        always, never: places that are chosen first, and that are left out.
        group: the field that quotas go by; group_of: each record's value of it; at_least, at_most: records by value.
    """

    amount: Amount
    until: float
    always: Sequence[int]
    never: Sequence[int]
    group: str | None
    group_of: Sequence[str] | None
    at_least: Mapping[str, int] = field(default_factory=dict)
    at_most: Mapping[str, int] = field(default_factory=dict)


def check_budget(k: str, amount: Amount, tokens: npt.NDArray[np.int32]) -> None:
    """InputError where a budget, `k` as the user wrote it, is not enough for one record of those with these tokens."""
    if amount.tokens is not None and amount.tokens < (least := int(tokens.min())):
        raise InputError(f"-k {k} selects nothing: no record is admissible; the smallest has {counted(least, 'token')}")


def read_limits(
    records: Sequence[Record],
    tokens: npt.NDArray[np.int32],
    k: str,
    *,
    until: str | None,
    always: str | Path | None,
    never: str | Path | None,
    per: str | None,
    group: str | None,
    at_least: Sequence[str],
    at_most: Sequence[str],
    keep_shares: bool,
    shares: Sequence[str],
) -> Limits:
    """Limits as the user writes them, see `select_records`; `tokens` int32 [records].

    Raises:
        InputError: one cannot be read, or nothing satisfies them together.
    """
    amount = parse_amount(k, len(records))
    quotas = (list(at_least), list(at_most), records, amount)
    group_field, least, most = read_quotas(per, group, *quotas, keep=keep_shares, shares=shares)
    first, left_out = (named_indices(None if file is None else Path(file), records) for file in (always, never))
    if both := {*first} & {*left_out}:
        raise InputError(f"record {records[min(both)].id} is in both {always} and {never}")
    share = 0.0 if until is None else parse_until(until)
    group_of = None if group_field is None else labels(records, group_field)
    cost = None if amount.tokens is None else tokens
    make_rules(
        Constraints(amount.records, cost, amount.tokens, first, left_out, (), group_of, least, most), len(records)
    )
    check_budget(k, amount, tokens)
    return Limits(amount, share, first, left_out, group_field, group_of, least, most)

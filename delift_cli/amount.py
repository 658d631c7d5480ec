"""How much to select, as people write it: 500, 30%, 200ktok."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import InputError

_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class Amount(NamedTuple):
    """A number of records or a number of tokens; the other one is None."""

    records: int | None
    tokens: int | None


def parse_amount(text: str, n: int) -> Amount:
    """`500` records, `30%` of the n records (at least one), or a token budget: `200000tok`, `200ktok`, `1.5Mtok`.

    Raises:
        InputError: none of these, or more records than there are.
    """
    compact = re.sub(r"(?<=\d)[_,](?=\d{3}(?!\d))", "", text).strip().lower()  # 200,000 or 200_000
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", compact)
    if percent:
        share = float(percent.group(1))
        if not 0 < share <= 100:
            raise InputError(f"-k {text}: a percentage lies between 0 and 100")
        return Amount(max(1, round(n * share / 100)), None)
    tokens = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)\s*(?:tok|tokens)", compact)
    if tokens:
        budget = round(float(tokens.group(1)) * _FACTORS[tokens.group(2)])
        if budget == 0:
            raise InputError(f"-k {text}: a budget of no tokens selects nothing")
        return Amount(None, budget)
    if re.fullmatch(r"\d+", compact):
        records = int(compact)
        if not 0 < records <= n:
            raise InputError(f"-k {text}: there are {n:,} records to choose from")
        return Amount(records, None)
    raise InputError(f"-k {text}: give a number of records (500), a percentage (30%) or tokens (200ktok)")

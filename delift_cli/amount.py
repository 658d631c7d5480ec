"""How much, as people write it and read it: 500, 30%, 200ktok, 8h; 3 min 20 s, 2 rounds."""

from __future__ import annotations

import re
from numbers import Integral, Real
from typing import NamedTuple

from .errors import InputError

_DIGITS = 15  # of the longest number that is read: more is a slip, and beyond what arrays count with
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class Amount(NamedTuple):
    """A number of records or a number of tokens; the other one is None."""

    records: int | None
    tokens: int | None

    def share(self, records: int, tokens: int) -> float:
        """Of a pool of so many records with so many tokens."""
        if self.records is not None:
            return self.records / records
        return (self.tokens or 0) / max(tokens, 1)


def parse_amount(text: str, n: int) -> Amount:
    """`500` records, `30%` of the n records (at least one), or a token budget: `200000tok`, `200ktok`, `1.5Mtok`.

    Raises:
        InputError: none of these, or more records than there are.
    """
    compact = _without_separators(text).strip().lower()
    _check_digits(compact, f"-k {text}")
    percent = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", compact)
    if percent:
        share = float(percent.group(1))
        if not 0 < share <= 100:
            raise InputError(f"-k {text}: a percentage lies between 0 and 100")
        return Amount(max(1, round(n * share / 100)), None)
    tokens = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)\s*(?:tok|tokens)", compact)
    if tokens:
        budget = round(float(tokens.group(1)) * _FACTORS[tokens.group(2)])
        if budget == 0:
            raise InputError(f"-k {text}: a budget of no tokens selects nothing")
        return Amount(None, budget)
    if re.fullmatch(r"[0-9]+", compact):
        records = int(compact)
        if records == 0:
            raise InputError(f"-k {text}: give at least one record")
        if records > n:
            raise InputError(f"-k {text}: there are {n:,} records to choose from")
        return Amount(records, None)
    raise InputError(f"-k {text}: give a number of records (500), a percentage (30%) or tokens (200ktok)")


def _without_separators(text: str) -> str:
    """200,000 and 200_000 as 200000."""
    return re.sub(r"(?<=[0-9])[_,](?=[0-9]{3}(?![0-9]))", "", text)


def _check_digits(text: str, named: str) -> None:
    if re.search(rf"[0-9]{{{_DIGITS + 1},}}", text):
        short = named if len(named) <= 40 else f"{named[:40]}…"
        raise InputError(f"{short}: a number of more than {_DIGITS} digits")


class Quota(NamedTuple):
    """A limit for each value of a field: a number of records, or a share of those selected."""

    field: str
    limit: str


def parse_share(text: str, option: str, *words: str) -> float:
    """`1%` or `0.01` as a number from 0 to 1; `words`: what else the option takes, for the message."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        others = f", or {' or '.join(words)}" if words else ""
        raise InputError(f"{option} {text}: give a share, such as 1% or 0.01{others}")
    return value


def parse_until(text: str) -> float:
    """`1%` or `0.01` of the first gain as a number from 0 to below 1, for the second gain may fall under all of it."""
    value = parse_share(text, "--until")
    if value == 1:
        raise InputError(f"--until {text}: give a share below 100% of the first gain, such as 1% or 0.01")
    return value


def parse_quota(text: str) -> Quota:
    """`task:10%`, `task:0.1` or `task:50`: a field, and how much of the selection one of its values may take."""
    field, colon, limit = text.rpartition(":")
    _check_digits(limit, f"--per {text}")
    if not (field and colon and re.fullmatch(r"[0-9]+(\.[0-9]+)?%?", limit)):
        raise InputError(f"--per {text}: give a field and a limit, such as task:10% or task:50")
    return Quota(field, limit)


def quota_records(quota: Quota, k: int | None) -> int:
    """The limit as a number of records when k are selected; a share of them is rounded down, to one at least."""
    if quota.limit.isdecimal():
        return int(quota.limit)
    if k is None:
        raise InputError(f"--per {quota.field}:{quota.limit}: a share needs a number of records, not a token budget")
    return max(1, int(k * parse_share(quota.limit, "--per") + 1e-9))  # 0.29 * 100 is 28.999…


def parse_counts(texts: list[str], option: str) -> dict[str, int]:
    """`code=200` entries as a mapping from a field's value to a number of records.

    Raises:
        InputError: one of them is not that, or two are about one value.
    """
    counts = {}
    for text in texts:
        value, equals, count = text.rpartition("=")
        _check_digits(count, f"{option} {text}")
        if not (value and equals and re.fullmatch(r"[0-9]+", count)):
            raise InputError(f"{option} {text}: give a value and a number, such as code=200")
        if value in counts:
            raise InputError(f"{option} {text}: {value!r} has a number already; give one for each value")
        counts[value] = int(count)
    return counts


_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Budget(NamedTuple):
    """How many pairs to score: a share of all, a number, or the seconds that it may take; the other two are None.

    `more`: on top of what is scored. `text`: as it was written.
    """

    text: str
    share: float | None
    pairs: int | None
    seconds: float | None
    more: bool

    @property
    def all(self) -> bool:
        """Every pair?"""
        return self.share == 1.0

    def goal(self, block: int, scored: int) -> int:
        """Pairs in all, those already scored included, of a block of so many; not for a time."""
        wanted = round(self.share * block) if self.share is not None else self.pairs or 0
        return min(block, wanted + scored * self.more)


def as_written(amount: str | float, option: str) -> str:
    """An amount from Python as it is written: a whole number as it is, a fraction (0.05) as a share (5%).

    Raises:
        InputError: it is neither of these nor text.
    """
    if isinstance(amount, str):
        return amount
    if isinstance(amount, Integral) and not isinstance(amount, bool):
        return str(amount)
    if isinstance(amount, Real) and not isinstance(amount, Integral) and 0 < amount <= 1:
        return f"{100 * float(amount):.10f}".rstrip("0").rstrip(".") + "%"
    raise InputError(f"{option} {amount}: give text (5%), a whole number, or a fraction from 0 to 1 for a share")


def parse_budget(text: str) -> Budget:
    """`5%` of the pairs, `20000`, `500k` or `2M` pairs, or a time: `90s`, `45min`, `8h`, `1.5d`; `+5%`: so much more.

    Raises:
        InputError: none of these.
    """
    compact = _without_separators(text).replace(" ", "")
    _check_digits(compact, f"--budget {text}")
    found = re.fullmatch(r"(\+?)([0-9]+(?:\.[0-9]+)?)(%|s|min|h|d|k|M|G|)", compact)
    number, unit = (float(found.group(2)), found.group(3)) if found else (0.0, "")
    if not found or number == 0 or (unit == "%" and number > 100):
        raise InputError(
            f"--budget {text}: give a share of the pairs (5%), a number of them (2M) or a time (45min, 8h)"
        )
    share = number / 100 if unit == "%" else None
    seconds = number * _SECONDS[unit] if unit in _SECONDS else None
    pairs = round(number * _FACTORS[unit.lower()]) if share is None and seconds is None else None
    return Budget(compact, share, pairs, seconds, found.group(1) == "+")


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    size, name, smaller, smaller_name = next(unit for unit in units if whole >= unit[0])
    return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"


def counted(number: int, thing: str) -> str:
    """1 round, 2 rounds."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"

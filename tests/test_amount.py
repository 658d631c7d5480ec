"""-k as people write it."""

from __future__ import annotations

import pytest

from delift_cli.amount import Amount, parse_amount, parse_budget, parse_counts, parse_quota, parse_share, quota_records
from delift_cli.errors import InputError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", Amount(1, None)),
        ("500", Amount(500, None)),
        ("1000", Amount(1000, None)),
        ("1,000", Amount(1000, None)),
        ("1_000", Amount(1000, None)),
        (" 7 ", Amount(7, None)),
        ("30%", Amount(300, None)),
        ("30 %", Amount(300, None)),
        ("12.5%", Amount(125, None)),
        ("100%", Amount(1000, None)),
        ("0.1%", Amount(1, None)),
        ("0.0001%", Amount(1, None)),
        ("200tok", Amount(None, 200)),
        ("200 tokens", Amount(None, 200)),
        ("200ktok", Amount(None, 200_000)),
        ("200Ktok", Amount(None, 200_000)),
        ("200 k tokens", Amount(None, 200_000)),
        ("1.5Mtok", Amount(None, 1_500_000)),
        ("2Gtok", Amount(None, 2_000_000_000)),
        ("200,000tok", Amount(None, 200_000)),
        ("1,200,000tok", Amount(None, 1_200_000)),
    ],
)
def test_understood(text: str, amount: Amount) -> None:
    assert parse_amount(text, 1000) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-5",
        "+5",
        "1001",
        "2.5",
        "1e3",
        "0%",
        "-3%",
        "101%",
        "1000%",
        "%",
        "tok",
        "0tok",
        "0.0001tok",
        "-5tok",
        "200k",
        "200kb",
        "ten",
        "nan%",
        "inf",
        # a decimal comma must not turn into a factor of ten
        "1,5%",
        "12,5%",
        "1,5Mtok",
        "1,00",
        "1__000",
    ],
)
def test_refused_with_what_was_written(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_amount(text, 1000)
    assert str(refused.value).startswith(f"-k {text}: ")
    assert "\n" not in str(refused.value)


def test_too_many_says_how_many_there_are() -> None:
    with pytest.raises(InputError, match=r"^-k 1500: there are 1,200 records to choose from$"):
        parse_amount("1500", 1200)


HUGE = "9" * 320


@pytest.mark.parametrize("text", [HUGE, f"{HUGE}%", f"{HUGE}tok", f"0.{HUGE}%", "²", "٣", "5²%", "1e3", "nan", "inf%"])
def test_numbers_that_are_none_or_too_long_are_refused(text: str) -> None:
    for parse in (
        lambda: parse_amount(text, 100),
        lambda: parse_budget(text),
        lambda: parse_counts([f"x={text}"], "-x"),
    ):
        with pytest.raises(InputError):
            parse()
    with pytest.raises(InputError):
        parse_quota(f"task:{text}")


@pytest.mark.parametrize("text", [HUGE, "²", "٣", "nan", "inf", "-1", "1e400"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="give a share"):
        parse_share(text, "--until")


@pytest.mark.parametrize(
    ("text", "k", "most"),
    [("29%", 100, 29), ("0.29", 100, 29), ("0.1", 50, 5), ("10%", 7, 1), ("1%", 7, 1), ("50", 7, 50), ("0", 7, 0)],
)
def test_quotas_are_numbers_or_shares_rounded_down(text: str, k: int, most: int) -> None:
    assert quota_records(parse_quota(f"task:{text}"), k) == most


def test_a_quota_of_more_than_everything() -> None:
    with pytest.raises(InputError, match="give a share"):
        quota_records(parse_quota("task:1.5"), 100)

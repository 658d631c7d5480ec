"""Options that nothing has a use for are refused; what an objective has a use for is taken, named or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import delift, jsonl, make_cache, pair, pairs

from delift_cli.selection.run import select_records


@pytest.fixture(scope="module", autouse=True)
def _there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A pool of 12 records of two tasks and one of 500, a target set and existing data, made up."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("unused"))
    records = jsonl([{**pair(number), "task": "odd" if number % 2 else "even"} for number in range(12)])
    make_cache(Path("pool"), records)
    make_cache(Path("dev"), records, pairs(20, 21))
    make_cache(Path("old"), pairs(30, 31), records)
    make_cache(Path("large"), pairs(*range(500)))
    yield
    os.chdir(before)


def told(*arguments: object) -> Any:
    result = delift("select", *arguments, "-o", "/dev/null", "--json")
    assert result.code == 0, result.err
    return result.json


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depth", "2", "-k", "1"), "--depth is of no use to objective fl, only to topm"),
        (("--depth", "2", "--paper"), "--depth is of no use to objective fl, only to topm"),
        (("--depth", "2", "--target", "dev"), "--depth is of no use to objective flmi, only to topm"),
        (("--alpha", "0.2"), "--alpha is of no use to objective topm, only to saturated"),
        (("--p", "2", "--objective", "sqrt"), "--p is of no use to objective sqrt, only to lp"),
        (("--beta", "2"), "--beta is of no use to objective topm, only to noisyor"),
        (("--objective", "fl", "--eta", "9"), "--eta is of no use to objective fl, only to flmi, "),
        (("--existing", "old", "--eta", "9"), "--eta is of no use to objective flcg"),
        (("--nu", "2"), "--nu is of no use without --existing"),
        (("--target", "dev", "--nu", "2"), "--nu is of no use to objective flmi"),
        (("--epsilon", "0.1"), "--epsilon is of no use without --greedy stochastic"),
        (("--parts", "3", "--greedy", "stochastic"), "--parts is of no use without --greedy partitioned"),
        (("--group", "task"), "--group is of no use without --per, --at-least, --at-most or --shares"),
        (("--ids-only", "--with-scores"), "--with-scores is of no use beside --ids-only"),
        (("--ids-only", "--push", "hf:a/b"), "--ids-only is of no use to --push alone"),
        (("-m", "tiny.gguf"), "--model is of no use without --method ifd or embedding, or --drop-suspects"),
        (("--threads", "2", "--drop-suspects", "off"), "--threads is of no use without"),
        (("--gpu-layers", "2"), "--gpu-layers is of no use without"),
        (("--share", "task:odd=30%", "--share", "task:odd=10%"), "--share: a value has two shares"),
        (("--at-most", "odd=1", "--at-most", "odd=2"), "--at-most odd=2: 'odd' has a number already"),
        (("--at-least", "odd=2", "--at-least", "odd=2"), "--at-least odd=2: 'odd' has a number already"),
        (("--curve", "curve.png"), "--curve curve.png: a curve is written as .csv or .json"),
        (("--ids-only", "-o", "ids.parquet"), "ids.parquet: ids are lines of text"),
    ],
)
def test_what_select_has_no_use_for(arguments: tuple[str, ...], message: str) -> None:
    assert message in delift("select", "pool", *arguments).refusal()
    assert not {"curve.png", "ids.parquet"} & {*os.listdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "a.jsonl", "b.jsonl", "--random", "9"), "--random is of no use without --pool"),
        (("inspect", "pool", "-m", "tiny.gguf"), "--model is of no use without --suspects"),
        (("verify", "pool", "--threads", "2"), "--threads is of no use without --repair"),
        (("report", "pool", "-k", "3", "--subset", "s.jsonl"), "-k is of no use beside --subset"),
        (("preview", "p.jsonl", "--record", "r1", "--first", "2"), "--first is of no use beside --record"),
        (("preview", "p.jsonl", "--role", "ai=user", "--role", "AI=assistant"), "ai is said to be user already"),
    ],
)
def test_what_other_verbs_have_no_use_for(arguments: tuple[str, ...], message: str) -> None:
    assert message in delift(*arguments).refusal()


def test_parameters_of_the_default_objective_are_taken() -> None:
    assert told("pool", "-k", 4)["parameters"] == {"depth": 3}
    assert told("pool", "-k", 4, "--depth", 2)["parameters"] == {"depth": 2}
    assert told("large", "-k", 160)["parameters"] == {"alpha": 0.32}
    assert told("large", "-k", 160, "--alpha", 0.5)["parameters"] == {"alpha": 0.5}
    assert "only to saturated" in delift("select", "large", "-k", 140, "--alpha", 0.5).refusal()
    assert told("pool", "--existing", "old", "--nu", 2)["parameters"] == {"nu": 2}
    assert told("pool", "--objective", "sqrt", "--eta", 2)["parameters"]["eta"] == 2


@pytest.mark.parametrize("greedy", ["stochastic", "partitioned"])
def test_what_other_ways_of_greedy_let_go_is_said(greedy: str) -> None:
    line = f"{greedy}: takes near-copies and doubtful answers as any others; exact greedy puts them last"
    assert line in delift("select", "pool", "--greedy", greedy).err
    assert told("pool", "--greedy", greedy)["defaults_let_go"] == ["distinct", "drop_suspects"]
    said_off = ("--greedy", greedy, "--distinct", "off", "--drop-suspects", "off")
    for arguments in (("--greedy", "exact"), said_off, ("--greedy", greedy, "--objective", "fl")):
        assert told("pool", *arguments)["defaults_let_go"] == []
        assert "exact greedy" not in delift("select", "pool", *arguments).err
    assert dict(select_records("pool", 3, greedy=greedy).lines())["greedy"] == line  # type: ignore[arg-type]

"""Scores per record, and `delift select --method` as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from one_by_one import Alone
from tiny_runs import arrays, delift, fill, jsonl, make_cache, model, open_cache, pair, pairs, score

from delift_cli.model.gguf import ModelFile
from delift_cli.selection.baselines import difficulty, modular
from delift_cli.submodular.objectives import value
from delift_cli.submodular.select import select

IDS = [f"r{number}" for number in range(12)]
METHODS = ("random", "length", "loss", "ifd", "embedding", "delift")
PER_RECORD = ("random", "length", "loss", "ifd")


@pytest.fixture(scope="module", autouse=True)
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("baselines")
    records = [{**pair(number), "task": "odd" if number % 2 else "even"} for number in range(12)]
    (folder / "pool.jsonl").write_bytes(jsonl(records))
    (folder / "dev.jsonl").write_bytes(pairs(20, 21))
    before = os.getcwd()
    os.chdir(folder)
    assert score("pool.jsonl", "-o", "pool", "-q").code == 0
    assert score("pool.jsonl", "--budget", "50%", "-o", "part", "-q").code == 0
    assert score("pool.jsonl", "--targets", "dev.jsonl", "-o", "dev", "-q").code == 0
    yield
    os.chdir(before)


def needs(*arguments: object) -> tuple[object, ...]:
    """The model, where a method asks it."""
    return ("-m", model(), "--threads", "1") if {"ifd", "embedding"} & {*arguments} else ()


def run(*arguments: object) -> list[dict[str, Any]]:
    """id, rank, gain and coverage of each record that a selection takes."""
    result = delift("select", *arguments, "--with-scores", *needs(*arguments))
    assert result.code == 0, result.err
    return [json.loads(line)["delift"] for line in result.out.splitlines()]


def ids(*arguments: object) -> list[str]:
    return [line["id"] for line in run(*arguments)]


def by_score(scores: npt.NDArray[Any]) -> list[str]:
    return [IDS[at] for at in np.argsort(-np.asarray(scores, float), kind="stable")]


def without_prompts() -> npt.NDArray[np.float64]:
    """Each response's mean log-probability behind an empty user's turn, one sequence at a time."""
    vocabulary = ModelFile(model()).vocabulary
    alone = Alone(model(), threads=1)
    context = np.array(
        vocabulary.tokenize("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", special=True), np.int32
    )
    found = []
    for number in range(12):
        response = vocabulary.tokenize(pair(number)["response"] + "<|im_end|>", special=True)
        found.append(alone.measure(context, np.array(response, np.int32))[1])
    alone.close()
    return np.array(found)


# ---- scores


def test_difficulty() -> None:
    given = difficulty(np.array([1.0, 2.0, 3.0, 0.0, 1.0]), np.array([2.0, 2.0, 2.0, 1.0, 0.0]))
    assert given.tolist() == [0.5, 1.0, 0.0, 0.0, 0.0]


def test_modular_objective_is_the_sum_of_scores() -> None:
    scores = np.array([3.0, 1.0, 3.0, 0.0, 2.0])
    goal = modular(scores)
    assert value(goal) == 9.0
    assert value(goal, [0, 4]) == 5.0
    assert select(goal, 5).indices.tolist() == [0, 2, 4, 1, 3]
    assert select(goal, 5, stop_at_zero=True).indices.tolist() == [0, 2, 4, 1]
    chosen = select(goal, None, cost=[5, 1, 3, 1, 3], budget=9, per_token=False)
    assert chosen.indices.tolist() == [0, 2, 1]  # 4 does not fit, the next one does
    assert chosen.gains.tolist() == [3.0, 3.0, 1.0]
    assert (chosen.rule, chosen.value_other_rule, chosen.guarantee) == ("gain", None, 0.0)


def test_length_and_loss_are_in_the_order_of_the_cache() -> None:
    on_disk = arrays(Path("pool"))
    for method, scores in (("length", on_disk["response_tokens"]), ("loss", -on_disk["base_logprob"])):
        for cache in ("pool", "part"):
            lines = run(cache, "--method", method, "-k", "12")
            assert [line["id"] for line in lines] == by_score(scores)
            np.testing.assert_allclose([line["gain"] for line in lines], np.sort(scores)[::-1], rtol=1e-6)
            assert lines[-1]["coverage"] == pytest.approx(1.0)


def test_ifd_is_the_loss_with_over_the_loss_without_the_prompt() -> None:
    ratio = arrays(Path("pool"))["base_logprob"] / without_prompts()
    assert (ratio > 1).any()
    assert (ratio < 1).any()
    scores = np.where(ratio > 1, 0.0, ratio)
    lines = run("pool", "--method", "ifd", "-k", "12")
    assert [line["id"] for line in lines] == by_score(scores)
    np.testing.assert_allclose([line["gain"] for line in lines], np.sort(scores)[::-1], atol=2e-3)
    assert len(ids("pool", "--method", "ifd", "-k", "12", "--stop-at-zero")) == (ratio <= 1).sum()
    told = delift("select", "pool", "--method", "ifd", "-k", "12", "-m", model()).err
    above = int((ratio > 1).sum())  # by how this processor rounds
    assert ("the other one has" if above == 1 else f"the other {above} have") + " a ratio above 1" in told
    assert ids("part", "--method", "ifd", "-k", "12") == by_score(scores)


def test_random_is_by_its_seed() -> None:
    first, again, other = (ids("pool", "--method", "random", "-k", "12", "--seed", seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(IDS)
    assert ids("pool", "--method", "random", "-k", "3", "--seed", 1) == first[:3]
    # every record is as likely as any other one to come first
    counts = np.zeros(12)
    for seed in range(40):
        counts[IDS.index(ids("pool", "--method", "random", "-k", "1", "--seed", seed)[0])] += 1
    assert counts.max() < 12


# ---- limits hold for all of them


@pytest.mark.parametrize("method", METHODS)
def test_limits(method: str, tmp_path: Path) -> None:
    (tmp_path / "always").write_text("r7\n")
    (tmp_path / "never").write_text("r1\nr2\n")
    lists = ("--always", tmp_path / "always", "--never", tmp_path / "never")
    chosen = ids("pool", "--method", method, "-k", "8", *lists)
    assert chosen[0] == "r7"
    assert not {"r1", "r2"} & {*chosen}
    assert len(chosen) == 8
    chosen = ids("pool", "--method", method, "-k", "6", "--per", "task:4", "--at-least", "odd=4")
    assert sum(int(id_[1:]) % 2 for id_ in chosen) == 4
    tokens = arrays(Path("pool"))["example_tokens"]
    chosen = ids("pool", "--method", method, "-k", "150tok")
    spent = tokens[[IDS.index(id_) for id_ in chosen]].sum()
    assert spent <= 150
    assert spent + min(tokens[at] for at in range(12) if IDS[at] not in chosen) > 150
    assert len(ids("pool", "--method", method, "-k", "12", "--distinct", "0.1")) < 12


@pytest.mark.parametrize("method", PER_RECORD)
def test_token_budgets_are_spent_in_order_of_score(method: str) -> None:
    tokens = dict(zip(IDS, arrays(Path("pool"))["example_tokens"].tolist(), strict=True))
    left, expected = 150, []
    for id_ in ids("pool", "--method", method, "-k", "12"):
        if tokens[id_] <= left:
            expected.append(id_)
            left -= tokens[id_]
    assert ids("pool", "--method", method, "-k", "150tok") == expected


@pytest.mark.parametrize("method", METHODS)
def test_what_is_said(method: str, tmp_path: Path) -> None:
    arguments = ("select", "pool", "--method", method, "-k", "5", *needs(method))
    for cache in ("pool", "part"):
        result = delift("select", cache, *arguments[2:])
        assert result.code == 0, result.err
        assert f"method  {method}: " in result.err
        assert "5 of 12 records" in result.err
    told = delift(*arguments, "-o", tmp_path / "s.jsonl", "--json", "--curve", tmp_path / "c.csv").json
    assert (told["method"], told["selected"]) == (method, 5)
    assert told["objective"] == {"delift": "topm", "embedding": "fl"}.get(method, "modular")
    assert (told["utility"], told["kernel"]) == {"delift": ("euclidean", "clip"), "embedding": ("cosine", "clip")}.get(
        method, (None, None)
    )
    assert told["seed"] == (0 if method == "random" else None)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 6
    assert delift(*arguments, "-q").err == ""


def test_default_is_delift() -> None:
    assert delift("select", "pool", "-k", "5", "-q").out == delift("select", "pool", "--method", "delift", "-k5").out


def test_the_model_runs_once() -> None:
    shutil.copytree("pool", "again")
    shutil.rmtree("again/baselines", ignore_errors=True)
    for method in ("ifd", "embedding"):
        first = delift("select", "again", "--method", method, "-k", "5", "-m", model(), "-q")
        assert first.code == 0, first.err
        assert delift("select", "again", "--method", method, "-k", "5", "-m", "nowhere.gguf", "-q").out == first.out
    for file in Path("again/baselines").iterdir():
        file.write_bytes(b"")
    assert "no such file" in delift("select", "again", "--method", "ifd", "-m", "nowhere.gguf").refusal()


# ---- what does not go together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pool", "--method", "length", "--target", "dev"), "--target is of no use to --method length"),
        (("pool", "--method", "ifd", "--existing", "dev"), "--existing is of no use to --method ifd"),
        (("pool", "--method", "random", "--objective", "fl"), "--objective is of no use to --method random"),
        (("pool", "--method", "loss", "--utility", "pmi"), "--utility is of no use to --method loss, only to delift"),
        (("pool", "--method", "embedding", "--kernel", "clip"), "--kernel is of no use to --method embedding"),
        (("pool", "--method", "embedding", "--paper"), "--paper is of no use"),
        (("pool", "--method", "embedding", "--estimates", "off"), "--estimates is of no use"),
        (("pool", "--method", "random", "--self", "include"), "--self is of no use to --method random"),
        (("pool", "--method", "length", "--greedy", "stochastic"), "--greedy is of no use to --method length"),
        (("pool", "--method", "length", "--eta", "2"), "--eta is of no use to --method length"),
        (("pool", "--method", "length", "-m", "smollm2"), "--model is of no use without --method ifd or embedding"),
        (("dev", "--method", "length"), "dev is not a pool scored against itself"),
        (("--method", "random"), "give a cache to select from"),
        (("--method", "embedding"), "give a cache to select from"),
    ],
)
def test_contradictions(arguments: tuple[str, ...], message: str) -> None:
    assert message in delift("select", *arguments).refusal()


@pytest.mark.parametrize("method", ["ifd", "embedding"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--until", "often"), "--until often"),
        (("--until", "100%"), "--until 100%"),
        (("--always", "nowhere.txt"), "nowhere.txt"),
        (("--per", "task"), "--per task"),
        (("-k", "1tok"), "-k 1tok selects nothing: no record is admissible; the smallest has 1"),
        (("--at-least", "odd=9", "-k", "8"), "cannot have at least 9"),
        (("--at-least", "odd=3", "-k", "100tok"), "needs a number of records"),
        (("--distinct", "most"), "--distinct most"),
        (("--not-like", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--drop-suspects", "most"), "--drop-suspects most: give a share, such as 1% or 0.01, or last or off"),
    ],
)
def test_bad_limits_are_told_before_the_model_runs(
    tmp_path: Path, method: str, options: tuple[str, ...], message: str
) -> None:
    """Of a cache whose model is not on this machine nothing else could be told."""
    records = jsonl([{**pair(number), "task": "odd" if number % 2 else "even"} for number in range(12)])
    made_up = make_cache(tmp_path / "made up", records)
    assert message in delift("select", made_up, "--method", method, *options).refusal()
    assert "made up" in delift("select", made_up, "--method", method).refusal()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pool", "--objective", "flcg"), "objective flcg needs existing data"),
        (("pool", "--quality", "prompt"), "its 'prompt' is no number"),
        (("pool", "--target", "pool"), "--target pool is a pool scored against itself"),
        (("pool", "--existing", "dev"), "dev does not have the records to cover as its targets"),
        (("pool", "--target", "elsewhere"), "elsewhere does not have the pool as its examples"),
        (("--target", "dev", "--drop-suspects", "10%"), "is not a pool scored against itself, which suspects"),
        (("pool", "--greedy", "stochastic", "-k", "20tok"), "stochastic method takes k, always and never, no budget"),
        (("pool", "--greedy", "partitioned", "--distinct", "0.9"), "partitioned method takes k, always and never"),
        (("pool", "--greedy", "partitioned", "--drop-suspects", "last"), "partitioned method takes k, always and"),
    ],
)
def test_what_does_not_go_together_is_told_before_the_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    make_cache(tmp_path / "pool", pairs(*range(12)))
    make_cache(tmp_path / "dev", pairs(*range(12)), pairs(20, 21))
    make_cache(tmp_path / "elsewhere", pairs(*range(5)), pairs(20, 21))
    monkeypatch.chdir(tmp_path)
    assert message in delift("select", *arguments, "--method", "embedding").refusal()
    assert "made up" in delift("select", "pool", "--target", "dev", "--method", "embedding").refusal()


def test_unfinished_caches_have_baselines(tmp_path: Path) -> None:
    """The pairs are of no use to them, the losses without an example are."""
    with open_cache(tmp_path / "c", pairs(0, 1, 2)) as cache:
        pass
    assert len(ids(tmp_path / "c", "--method", "length", "-k", "2")) == 2
    refused = delift("select", tmp_path / "c", "--method", "loss").refusal()
    assert "run the same delift score command again" in refused
    with open_cache(tmp_path / "c", pairs(0, 1, 2)) as cache:
        fill(cache, [0])
    assert len(ids(tmp_path / "c", "--method", "loss", "-k", "2")) == 2


def test_what_limits_by_a_field_came_to_is_said(tmp_path: Path) -> None:
    run = delift("select", "pool", "-k", "6", "--per", "task:4", "-o", tmp_path / "s")
    told = delift("select", "pool", "-k", "6", "--per", "task:4", "-o", tmp_path / "s", "--json").json["groups"]
    tasks = Counter(json.loads(line)["task"] for line in (tmp_path / "s").read_bytes().splitlines())
    assert told["field"] == "task"
    assert {value: taken for value, (taken, _) in told["chosen_of"].items() if taken} == dict(tasks)
    (first, (taken, there)), *_ = told["chosen_of"].items()
    assert f"{first} {taken} of {there}" in " ".join(run.err.split())
    assert taken == max(tasks.values()) <= 4
    assert "groups" not in delift("select", "pool", "-k", "6", "-o", tmp_path / "s", "--json").json


def test_a_least_number_that_is_missed_is_said(tmp_path: Path) -> None:
    """An early end goes before it, and says so."""
    stop = ("select", "pool", "-k", "8", "--at-least", "odd=4", "--until", "99%", "-o", tmp_path / "s")
    assert delift(*stop).err.count("fewer than were to be at least: odd ") == 1
    told = delift(*stop, "--json").json
    (missed,) = told["at_least_missed"].items()
    lines = (tmp_path / "s").read_bytes().splitlines()
    assert missed == ("odd", [sum(json.loads(line)["task"] == "odd" for line in lines), 4])
    assert "at_least_missed" not in delift(*stop[:4], "-o", tmp_path / "s", "--json").json

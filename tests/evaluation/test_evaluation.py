"""`delift evaluate`: which examples are shown, what the model says behind them, and how sure the comparison is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf_models
import numpy as np
import orjson
import pytest
from one_by_one import TEXTS, Alone, pool
from tiny_runs import QUICK, Result, delift, jsonl, model, pair, pairs, score

from delift_cli.data.options import Reading
from delift_cli.data.record import Record, RecordSet
from delift_cli.errors import InputError
from delift_cli.evaluation.evaluate import Evaluation
from delift_cli.evaluation.in_context import HeldOut, join, read_set
from delift_cli.evaluation.intervals import Bootstrap, Measured, best_matches, outcomes, random_subsets
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Settings
from delift_cli.prompt.encoding import encode_rows_of_examples
from delift_cli.prompt.template import ChatTemplate
from delift_cli.scoring.job import Engine

EXACT: dict[str, Any] = {"kv_type": "f32", "flash_attention": "off"}
RNG = np.random.default_rng(0)


# ---- which examples


@pytest.mark.parametrize("shots", [1, 3])
def test_best_matches(shots: int) -> None:
    targets, examples = (RNG.normal(size=(n, 8)).astype(np.float32) for n in (600, 50))
    groups = np.arange(600), np.arange(600, 650)
    groups[1][7] = 3  # example 7 is target 3
    found = best_matches(targets, examples, shots, *groups)
    cosines = targets @ examples.T
    cosines[3, 7] = -np.inf
    assert (found == np.argsort(-cosines, axis=1, kind="stable")[:, :shots][:, ::-1]).all()


def test_best_matches_of_few_and_of_equal_ones() -> None:
    points = np.eye(3, dtype=np.float32)
    same = points[[0, 0, 1]]
    assert best_matches(points[:1], same, 2, np.array([9]), np.array([1, 2, 3])).tolist() == [[1, 0]]  # lower is nearer
    assert best_matches(points[:1], same, 3, np.array([2]), np.array([1, 2, 3])).tolist() == [[-1, 2, 0]]
    assert best_matches(points[:1], same, 1, np.array([1]), np.array([1, 1, 1])).tolist() == [[-1]]


def test_random_subsets() -> None:
    pool = np.arange(100, 140)
    drawn = random_subsets(pool, 10, 5, 3)
    assert [len({*subset.tolist()} & {*pool.tolist()}) for subset in drawn] == [10] * 5
    assert len({tuple(subset.tolist()) for subset in drawn}) == 5
    assert all((a == b).all() for a, b in zip(drawn, random_subsets(pool, 10, 5, 3), strict=True))
    assert (drawn[0] != random_subsets(pool, 10, 5, 4)[0]).any()
    with pytest.raises(InputError, match="cannot be drawn from a pool of 40"):
        random_subsets(pool, 41, 5, 3)


# ---- how sure


def test_intervals_are_as_wide_as_they_should_be() -> None:
    """Of the mean of independent values: 1.96 standard errors, from records and, for random subsets, from draws."""
    m, draws = 400, 40
    values = RNG.normal(size=m)
    bootstrap = Bootstrap(m, draws, 0)
    assert bootstrap.mean(values).mean == pytest.approx(values.mean())
    assert bootstrap.mean(values).margin == pytest.approx(1.96 * values.std() / np.sqrt(m), rel=0.1)
    by_draw = RNG.normal(size=(draws, 1)) + np.zeros((1, m))  # draws differ, records do not
    expected = 1.96 * by_draw[:, 0].std(ddof=1) / np.sqrt(draws)
    assert bootstrap.mean_of_draws(by_draw).margin == pytest.approx(expected, rel=0.1)
    assert Bootstrap(m, 0, 0).mean(values) == Bootstrap(m, 0, 0).mean(values)


def test_comparisons_are_paired() -> None:
    """What records have in common does not blur the difference."""
    hardness = 10 * RNG.normal(size=300)
    draws = hardness + 0.01 * RNG.normal(size=(5, 300))
    better = Bootstrap(300, 5, 0).difference(hardness + 0.1, draws)
    assert better.sees_a_difference
    assert better.mean == pytest.approx(0.1, abs=0.01)
    assert better.margin < 0.02
    assert not Bootstrap(300, 5, 0).difference(hardness + 0.01 * RNG.normal(size=300), draws).sees_a_difference


@pytest.mark.parametrize("draws", [2, 5, 20])
def test_few_draws_are_not_trusted_too_far(draws: int) -> None:
    """A subset that is worth what random ones are worth on average is called different in one case of twenty."""
    called = 0
    for seed in range(300):
        rng = np.random.default_rng((seed, draws))
        records, worth = rng.normal(size=30), rng.normal(size=(draws, 1))
        values = records + 0.01 * rng.normal(size=(draws, 30)) + worth
        called += Bootstrap(30, draws, seed).difference(records, values).sees_a_difference
    assert called / 300 < 0.1


@pytest.mark.parametrize("records", [3, 5, 10])
def test_few_records_are_not_trusted_too_far(records: int) -> None:
    """The mean of what records are drawn from lies in the interval, however few they are."""
    rng = np.random.default_rng(records)
    found = [Bootstrap(records, 0, seed).mean(rng.normal(size=records)) for seed in range(300)]
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) > 0.9


def test_intervals_stay_within_what_is_possible() -> None:
    values = np.array([-0.1, -0.2, -4.0])
    draws = [Measured(np.array([0.1, 0.2, 0.3]) * scale, values * scale) for scale in (0.1, 2.0)]
    nothing, random, own = outcomes(draws[0], [("a", 7, draws[1])], {7: draws}, 0)
    for row in (nothing, random, own):
        assert row.logprob.low < row.logprob.mean < row.logprob.high <= 0.0
        assert 0.0 <= row.distance.low < row.distance.mean < row.distance.high <= 1.0
    assert own.better is not None
    assert own.better.low >= own.logprob.low  # random ones cannot be better than certain


def test_one_record_has_no_interval() -> None:
    one = Measured(np.array([0.5]), np.array([-1.0]))
    better = Measured(np.array([0.1]), np.array([-0.1]))
    rows = outcomes(one, [("a", 7, better)], {7: [one, one]}, 0)
    told = Evaluation(rows, 1, 1, 2, 0, "0" * 64)
    assert rows[2].verdict == "no difference from random that this test can see"
    assert told.lines()[0][1].startswith("1 held-out record behind 1 example each")
    assert told.table()[3] == ("a", "7", "-0.1000 (no interval)", "0.1000 (no interval)", "1.11")
    assert json.loads(orjson.dumps(told.as_dict()))["rows"][0]["logprob"] == {"mean": -1.0, "low": None, "high": None}


def test_outcomes_in_words() -> None:
    base, distance = RNG.normal(size=100) - 10.0, RNG.uniform(size=100)
    measured = [Measured(distance, base + shift) for shift in (0.5, -0.5, 0.0)]
    draws = [Measured(distance, base + 0.01 * RNG.normal(size=100)) for _ in range(5)]
    rows = outcomes(
        Measured(distance, base), [(name, 7, each) for name, each in zip("abc", measured, strict=True)], {7: draws}, 0
    )
    assert [(row.shown, row.records) for row in rows] == [("nothing", 0), ("random", 7), ("a", 7), ("b", 7), ("c", 7)]
    assert rows[2].verdict is not None
    assert rows[2].verdict.startswith("better than random by 0.5")
    assert str(rows[3].verdict).startswith("worse than random by 0.")
    assert rows[4].verdict == "no difference from random that this test can see"
    assert rows[0].verdict is None
    assert rows[0].perplexity == pytest.approx(np.exp(-base.mean()))
    alone = outcomes(Measured(distance, base), [("a", 7, measured[0])], {}, 0)
    assert [row.better for row in alone] == [None, None]


# ---- several examples in a row


def rendered(template: ChatTemplate, *records: Record) -> list[int]:
    """Records in turn as one conversation, printed by the template at once and tokenized at once."""
    turns = [(turn.role, turn.content) for record in records for turn in record.turns]
    text = template._render([{"role": role, "content": content} for role, content in turns]).text
    return template.vocabulary.tokenize(text.removesuffix("\n"), special=True)


@pytest.mark.parametrize(
    "template_text", [gguf_models.CHATML, gguf_models.CHATML_DEFAULT_SYSTEM], ids=["chatml", "default system"]
)
def test_rows_of_examples_are_one_conversation(tiny_model: Callable[..., Path], template_text: str) -> None:
    file = ModelFile(tiny_model(chat_template=template_text))
    template = ChatTemplate(template_text, file.vocabulary)
    records = pool(TEXTS)
    rows = encode_rows_of_examples(records, [[0], [1, 2], [6, 9, 3]], template, limit=None)
    assert rows.systems == [None] * 3
    target = template.target(records.records[7])
    for row, prefix in zip([[0], [1, 2], [6, 9, 3]], rows.prefixes, strict=True):
        whole = np.concatenate([prefix, target.after, target.response])
        assert whole.tolist() == rendered(template, *(records.records[at] for at in row), records.records[7])
    assert rows.prefixes[0].tolist() == template.example(records.records[0]).tolist()


def test_system_messages_are_repeated_where_another_is_in_force(tiny_model: Callable[..., Path]) -> None:
    file = ModelFile(tiny_model())
    template = ChatTemplate(gguf_models.CHATML, file.vocabulary)
    texts = [(*TEXTS[0], "Be kind."), (*TEXTS[1], "Be kind."), (*TEXTS[2], "Be short."), TEXTS[3]]
    records = pool(texts)
    bare = pool([text[:2] for text in texts]).records
    rows = encode_rows_of_examples(records, [[0, 1], [0, 2, 3], [3, 0]], template, limit=None)
    assert rows.systems == ["Be kind.", "Be short.", "Be kind."]
    of = records.records
    for prefix, said in zip(rows.prefixes, [[of[0], bare[1]], [of[0], of[2], of[3]], [of[3], of[0]]], strict=True):
        assert [*prefix.tolist(), *template.vocabulary.tokenize("<|im_end|>", special=True)] == rendered(
            template, *said
        )


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
def test_measured_as_if_evaluated_alone(tiny_model: Callable[..., Path], threads: int, tokenizer: str) -> None:
    path = tiny_model(tokenizer)
    file = ModelFile(path)
    assert file.template
    template = ChatTemplate(file.template, file.vocabulary)
    held_out, candidates = pool(TEXTS[:4]), pool(TEXTS[5:])
    test = HeldOut(held_out, candidates, template, None)
    engine = Engine(file, "as-is", None, Settings(threads=threads, batch=64, **EXACT))
    shown = np.array([[[0, 1], [0, 1], [2, 3], [4, 0]], [[0, 1], [1, 0], [2, 3], [4, 0]]])
    rows_done: list[int] = []
    nothing, first, second = test.measure(engine, file.context, shown, rows_done.append)
    assert rows_done[-1] == 4  # distinct rows of examples, whatever shows them
    reference = Alone(path, threads=threads, **EXACT)
    rows = encode_rows_of_examples(candidates, shown.reshape(-1, 2).tolist(), template, limit=None).prefixes
    for at, target in enumerate(test.targets.targets):
        alone = [(target.alone,), (rows[at], target.after), (rows[4 + at], target.after)]
        for measured, context in zip((nothing, first, second), alone, strict=True):
            expected = reference.measure(*context, target.response)
            assert (measured.distance[at], measured.logprob[at]) == pytest.approx(expected, abs=1e-4)
    reference.close()
    with pytest.raises(InputError, match="more than the context of 30; use --truncate or fewer --shots"):
        test.measure(engine, 30, shown, rows_done.append)


def test_nearest_prompts(tiny_model: Callable[..., Path], threads: int) -> None:
    """A record with the same prompt is nearest, unless it is the held-out record itself."""
    file = ModelFile(tiny_model())
    assert file.template
    held_out, candidates = pool(TEXTS[:1]), pool([TEXTS[0], (TEXTS[0][0], "No idea."), *TEXTS[5:9]])
    test = HeldOut(held_out, candidates, ChatTemplate(file.template, file.vocabulary), None)
    done: list[int] = []
    test.embed_prompts(Engine(file, "as-is", None, Settings(threads=threads, **EXACT)), done.append)
    assert done[-1] == 7
    everything = np.arange(6)
    assert test.nearest(everything, 1, "x").tolist() == [[1]]
    assert test.nearest(np.array([0, 4, 5]), 2, "x")[0].tolist() in ([4, 5], [5, 4])
    with pytest.raises(InputError, match="x has fewer than 2 records besides copies of the held-out record 0"):
        test.nearest(np.array([0, 4]), 2, "x")


def test_join(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(pairs(1, 2, 2))
    (tmp_path / "b.jsonl").write_bytes(pairs(3, 2))
    sets: list[RecordSet] = [read_set(str(tmp_path / name), Reading()) for name in ("a.jsonl", "b.jsonl")]
    joined = join(sets)
    assert [record.id for record in joined.records.records] == ["r1", "r2", "r3"]
    assert [members.tolist() for members in joined.members] == [[0, 1], [1, 2]]


# ---- as a user meets it


@pytest.fixture(scope="module", autouse=True)
def _there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder, before = tmp_path_factory.mktemp("evaluated"), os.getcwd()
    (folder / "pool.jsonl").write_bytes(pairs(*range(14)))
    (folder / "test.jsonl").write_bytes(pairs(3, 20, 21, 22, 23))
    (folder / "a.jsonl").write_bytes(pairs(2, 3, 4, 5))
    (folder / "b.jsonl").write_bytes(pairs(6, 7, 8))
    os.chdir(folder)
    assert score("a.jsonl", "-o", "a.delift", "-q").code == 0
    yield
    os.chdir(before)


def evaluate(*arguments: object) -> Result:
    return delift("evaluate", *arguments, "-m", model(), *QUICK)


def test_json(threads: int) -> None:
    result = evaluate("test.jsonl", "a.jsonl", "b.jsonl", "--pool", "pool.jsonl", "--json", "--random", "3")
    assert result.code == 0, result.err
    told = result.json
    assert (told["held_out"], told["shots"], told["random"], told["seed"]) == (5, 1, 3, 0)
    rows = {(row["shown"], row["records"]): row for row in told["rows"]}
    assert list(rows) == [("nothing", 0), ("random", 4), ("random", 3), ("a.jsonl", 4), ("b.jsonl", 3)]
    for row in told["rows"]:
        assert row["logprob"]["low"] <= row["logprob"]["mean"] <= row["logprob"]["high"] < 0
        assert 0 < row["distance"]["low"] <= row["distance"]["mean"] <= row["distance"]["high"] < 1
        assert row["perplexity"] == pytest.approx(np.exp(-row["logprob"]["mean"]))
    a, chance = rows["a.jsonl", 4], rows["random", 4]
    assert a["better_than_random"]["mean"] == pytest.approx(a["logprob"]["mean"] - chance["logprob"]["mean"])
    assert f"a.jsonl: {a['better_than_random']['verdict']}" in result.err
    # "nothing" is what delift score calls the base
    assert score("pool.jsonl", "--targets", "test.jsonl", "-o", "base", "-q").code == 0
    base = np.load("base/base_logprob.npy")
    assert rows["nothing", 0]["logprob"]["mean"] == pytest.approx(base.mean(), abs=1e-5)


def test_one_shot_is_one_pair_of_the_cache() -> None:
    """Each record's number is the entry of its best match in the matrix that delift score makes."""
    (Path("one.jsonl")).write_bytes(pairs(20))
    assert score("a.jsonl", "--targets", "one.jsonl", "-o", "one", "-q").code == 0
    told = evaluate("one.jsonl", "a.jsonl", "--json").json
    entries = np.load("one/logprob.npy")[:, 0]
    assert np.abs(entries - told["rows"][1]["logprob"]["mean"]).min() < 2e-3
    assert told["rows"][1]["better_than_random"] is None


def test_tsv_table_and_caches() -> None:
    result = evaluate("test.jsonl", "a.jsonl", "--pool", "pool.jsonl", "--shots", "2")
    assert result.code == 0, result.err
    lines = [line.split("\t") for line in result.out.decode().splitlines()]
    assert [line[0] for line in lines] == ["shown", "nothing", "random", "a.jsonl"]
    assert {len(line) for line in lines} == {12}
    assert "behind 2 examples each" in result.err
    assert "than random" in result.err or "no difference from random" in result.err
    quiet = evaluate("test.jsonl", "a.delift", "--pool", "pool.jsonl", "--shots", "2", "-q")
    assert quiet.err == ""
    numbers = [line.split("\t")[1:] for line in quiet.out.decode().splitlines()]
    assert numbers == [line[1:] for line in lines]  # the same records, from a cache
    again = evaluate("test.jsonl", "a.jsonl", "--pool", "pool.jsonl", "--shots", "2", "-q", "--seed", "1")
    assert again.out.splitlines()[1:2] != again.out.splitlines()[2:3]
    assert again.out != quiet.out


def test_held_out_records_that_are_in_a_subset_are_said() -> None:
    Path("both.jsonl").write_bytes(jsonl([{**pair(20), "response": " ".join(pair(20)["response"].upper().split())}]))
    Path("c.jsonl").write_bytes(Path("a.jsonl").read_bytes() + Path("both.jsonl").read_bytes())
    Path("held.jsonl").write_bytes(pairs(20, 21))
    said = "1 of the 2 held-out records are in c.jsonl too; none is shown behind a copy of itself"
    assert evaluate("held.jsonl", "c.jsonl", "--json").json["notes"] == [said]
    assert evaluate("held.jsonl", "a.jsonl", "--json").json["notes"] == []


def test_a_subset_as_large_as_the_pool_is_said_to_be_compared_with_all_of_it() -> None:
    result = evaluate("test.jsonl", "a.jsonl", "b.jsonl", "--pool", "a.jsonl", "--json").json
    assert "random subsets of 4 records are the whole pool, each of them" in result["notes"]
    assert "whole pool" not in str(evaluate("test.jsonl", "b.jsonl", "--pool", "a.jsonl", "--json").json["notes"])


def test_truncate_makes_things_fit() -> None:
    long = {**pair(50), "prompt": "say it " * 1500}
    Path("long.jsonl").write_bytes(jsonl([long]))
    refused = evaluate("test.jsonl", "long.jsonl").refusal()
    assert "more than the context of 2,048; use --truncate or fewer --shots" in refused
    assert evaluate("test.jsonl", "long.jsonl", "--truncate", "-q").code == 0


def test_bad_records_can_be_left_out() -> None:
    Path("holes.jsonl").write_bytes(jsonl([pair(2), {"prompt": "no response"}, pair(4), pair(5)]))
    assert "holes.jsonl:2" in evaluate("test.jsonl", "holes.jsonl").refusal()
    result = evaluate("test.jsonl", "holes.jsonl", "--skip-invalid")
    assert result.code == 0
    assert "holes.jsonl: 1 record left out, first: line 2: " in result.err
    assert [line.split(b"\t")[1] for line in result.out.splitlines()] == [b"records", b"0", b"3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test.jsonl", "pool.jsonl", "--pool", "a.jsonl"), "cannot be drawn from a pool of 4"),
        (("test.jsonl", "a.jsonl", "--shots", "4"), "a.jsonl has fewer than 4 records besides copies of"),
        (("none.jsonl", "a.jsonl"), "none.jsonl: cannot be read"),
        (("test.jsonl", "empty"), "empty is a folder without any file of records"),
        (("-", "-"), "one set alone can come from stdin"),
        (("test.jsonl", "-", "--pool", "-"), "one set alone can come from stdin"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir(exist_ok=True)
    assert message in evaluate(*arguments).refusal()


def test_a_subset_that_is_too_small_is_told_before_the_model_is_opened() -> None:
    refused = delift("evaluate", "test.jsonl", "b.jsonl", "--shots", "4", "-m", "nowhere.gguf").refusal()
    assert refused == "b.jsonl has fewer than 4 records, which --shots asks for"


def test_bad_usage() -> None:
    assert delift("evaluate", "test.jsonl").code == 2
    assert evaluate("test.jsonl", "a.jsonl", "--random", "1").code == 2
    assert evaluate("test.jsonl", "a.jsonl", "--shots", "0").code == 2


def test_the_real_model_learns_from_what_is_alike(smollm2: Path, threads: int) -> None:
    """Questions with an odd form of answer: examples of that form help, examples of another one do less."""

    def odd(word: str) -> dict[str, str]:
        return {"prompt": f"Spell the word {word}.", "response": "-".join(word) + "!!"}

    Path("spell-test.jsonl").write_bytes(jsonl([odd(word) for word in ("house", "green", "table")]))
    Path("spell.jsonl").write_bytes(jsonl([odd(word) for word in ("water", "apple")]))
    sums = [{"prompt": f"What is {n} plus {n}?", "response": f"{2 * n}"} for n in range(2, 6)]
    Path("sums.jsonl").write_bytes(jsonl(sums[:2]))
    Path("both.jsonl").write_bytes(Path("spell.jsonl").read_bytes() + jsonl(sums))
    result = delift(
        *("evaluate", "spell-test.jsonl", "spell.jsonl", "sums.jsonl", "--pool", "both.jsonl", "--random", 2),
        *("-m", smollm2, "--weights", "as-is", "--threads", threads, "--json", "-q"),
    )
    assert result.code == 0, result.err
    nothing, _, spell, sums_row = json.loads(result.out)["rows"]
    assert spell["logprob"]["mean"] > sums_row["logprob"]["mean"] + 0.3
    assert spell["logprob"]["mean"] > nothing["logprob"]["mean"] + 0.3
    assert spell["better_than_random"]["mean"] > sums_row["better_than_random"]["mean"]

"""Suspects: the score against its formula, what it is said from, and the verbs that use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from tiny_runs import delift, model, pair, pairs, score

from delift_cli.cache.dense import Cache
from delift_cli.cache.sparse import open_cache
from delift_cli.data.shared_answers import shared_answers
from delift_cli.selection.suspects import KIN, judge, measured_behind, nearest_prompts, suspects

SIZE = 12


def formula(loss: np.ndarray, behind: np.ndarray, alone: np.ndarray) -> list[float]:
    found = []
    for own, row, without in zip(loss, behind, alone, strict=True):
        kin = [value for value in row if not np.isnan(value)][:KIN]
        left = (own + sum(kin) / len(kin)) / 2 if kin else own
        found.append(left / without**0.8)
    return found


def test_the_score_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    loss, alone = rng.uniform(0.1, 4, (2, 30))
    behind = np.where(rng.random((30, 20)) < 0.4, np.nan, rng.uniform(0.1, 4, (30, 20)))
    behind[3] = np.nan
    found = judge(loss, behind, alone)
    np.testing.assert_allclose(found.score, formula(loss, behind, alone))
    assert found.kin[3] == 0
    assert found.worst(5).tolist() == np.argsort(-found.score, kind="stable")[:5].tolist()
    without = judge(loss, behind, None)
    np.testing.assert_array_equal(without.score, without.behind)
    assert 3 not in without.worst(30)
    assert np.isnan(judge(loss, behind, np.zeros(30)).score).all()


REFUSAL = "I am sorry, but I cannot help with that request."


def test_a_long_answer_to_unlike_prompts_is_boilerplate() -> None:
    told = [
        ("How far is the moon from the earth?", REFUSAL),
        ("Translate into French: the cat sleeps.", REFUSAL.upper().replace(" ", "  ")),
        ("Write a sonnet about autumn leaves.", REFUSAL),
        ("How far is the moon away from the earth?", REFUSAL),  # the same question
        ("Is seven a prime number?", "Yes"),
        ("Is nine an odd number, or what is it?", "Yes"),
        ("Which is the largest planet in our solar system?", "It is Jupiter, eleven times as wide as the earth."),
        ("Which planet is the largest in our solar system?", "It is Jupiter, eleven times as wide as the earth."),
        ("Name a bird that cannot fly.", "The ostrich, which runs at seventy kilometres an hour."),
    ]
    lines = [{"prompt": prompt, "response": response} for prompt, response in told]
    found = shared_answers(tiny_runs.records(tiny_runs.jsonl(lines)).records)
    assert found.tolist() == [3, 3, 3, 3, 0, 0, 1, 1, 1]
    loss, alone = np.array([1.0, 1.0, 1.0, 0.5] + [1.0] * 5), np.ones(9)
    behind = np.full((9, 1), 0.2)
    judged = judge(loss, behind, alone, found)
    assert np.flatnonzero(judged.boilerplate).tolist() == [0, 1, 2]  # the fourth is made likelier by its prompt
    np.testing.assert_allclose(judged.score, [1.6] * 3 + [0.35] + [0.6] * 5)
    assert not judge(loss, behind, None, found).boilerplate.any()  # nothing is known of what prompts do


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suspects")
    (folder / "pool.jsonl").write_bytes(pairs(*range(SIZE)))
    assert score(folder / "pool.jsonl", "-o", folder / "pool.delift").code == 0
    return folder / "pool.delift"


def test_kin_are_the_nearest_prompts_and_never_copies() -> None:
    records = tiny_runs.records(
        tiny_runs.jsonl(
            [*map(pair, range(5)), {**pair(2), "id": "copy"}, {"prompt": "say cat and dog!", "response": "x"}]
        )
    ).records
    near = nearest_prompts(records)
    assert near[0, 0] == 6
    assert 5 not in near[2]
    assert all(place not in row[row >= 0] for place, row in enumerate(near))


def test_a_partly_measured_cache_gives_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_runs.jsonl([pair(number) for number in range(20)])
    dense = Cache(tiny_runs.make_cache(tmp_path / "dense", data))
    from delift_cli.budget.measured import NEIGHBOUR
    from delift_cli.cache.sparse import Asked, open_sparse_for_scoring

    records = tiny_runs.records(data)
    lengths = tiny_runs.tokens(records)
    rng = np.random.default_rng(0)
    chosen = [np.sort(rng.choice(20, 9, replace=False)).astype(np.int32) for _ in range(20)]
    with open_sparse_for_scoring(
        tmp_path / "sparse", tiny_runs.DESCRIPTION, records, None, example_tokens=lengths, response_tokens=lengths
    ) as cache:
        cache.write_base(0, dense.base_distance, dense.base_logprob)
        part = cache.begin_round(
            Asked("9", 180, 1, 0), np.arange(21) * 9, np.concatenate(chosen), np.full(180, NEIGHBOUR, np.uint8)
        )
        for example, targets in enumerate(chosen):
            cache.write_pairs(part, example, dense.distance[example, targets], dense.logprob[example, targets])
        cache.sync()
    sparse = open_cache(tmp_path / "sparse")
    near = nearest_prompts(records.records)
    found, whole = measured_behind(sparse, near), measured_behind(dense, near)
    measured = np.zeros((20, 20), bool)
    for example, targets in enumerate(chosen):
        measured[example, targets] = True
    there = measured[near, np.arange(20)[:, None]] & (near >= 0)
    np.testing.assert_array_equal(np.isnan(found), ~there)
    np.testing.assert_array_equal(found[there], whole[there])
    assert suspects(sparse, records.records).alone is None
    monkeypatch.setattr("delift_cli.selection.suspects.SEARCHED", 10)  # a large pool
    large = suspects(sparse, records.records)
    for target in range(20):  # the neighbours it was scored behind, the first KIN of them
        kin = [j for j in range(20) if measured[j, target] and j != target][:KIN]
        assert large.kin[target] == len(kin)
        assert large.score[target] == pytest.approx(-dense.logprob[kin, target].mean(), rel=1e-6)


def test_inspect_lists_them_and_keeps_what_the_model_said(scored: Path) -> None:
    told = delift("inspect", scored, "--suspects", 4, "-m", model(), "--threads", 1, "--json").json["suspects"]
    assert [row["suspicion"] for row in told] == sorted((row["suspicion"] for row in told), reverse=True)
    base = -np.load(scored / "base_logprob.npy")
    for row in told:
        place = int(row["id"][1:])
        assert row["loss"] == pytest.approx(base[place])
        left = (row["loss"] + row["loss_behind_kin"]) / 2
        assert row["suspicion"] == pytest.approx(left / row["loss_without_prompt"] ** 0.8)
    again = delift("inspect", scored, "--suspects", 4, "-m", "no-such.gguf", "--json")  # kept: no model is asked
    assert again.json["suspects"] == told
    shown = delift("inspect", scored, "--suspects", 4).out.decode()
    assert "suspicion" in shown
    assert all(row["id"] in shown for row in told)


def test_select_leaves_them_out(scored: Path) -> None:
    told = delift("inspect", scored, "--suspects", 3, "-m", model(), "--threads", 1, "--json").json["suspects"]
    gone = {row["id"] for row in told}
    kept = delift("select", scored, "-k", SIZE - 3, "--drop-suspects", "25%", "--ids-only", "-q").out.decode().split()
    assert {*kept} == {f"r{place}" for place in range(SIZE)} - gone
    summary = delift("select", scored, "-k", 3, "--drop-suspects", "0.25", "-o", "/dev/null")
    assert "left out  3 records whose answers are the most suspect" in summary.err
    assert delift("select", scored, "-k", 3, "-o", "/dev/null", "--json").json["dropped_suspects"] == 0


def test_a_record_that_must_be_in_stays_in(scored: Path, tmp_path: Path) -> None:
    (worst,) = delift("inspect", scored, "--suspects", 1, "-m", model(), "--threads", 1, "--json").json["suspects"]
    (tmp_path / "always.txt").write_text(worst["id"] + "\n")
    words = ("--always", tmp_path / "always.txt", "--drop-suspects", "25%")
    assert delift("select", scored, "-k", 2, *words, "--ids-only", "-q").out.decode().split()[0] == worst["id"]


def test_what_has_no_suspects(tmp_path: Path) -> None:
    cache = tiny_runs.make_cache(tmp_path / "dev", pairs(0, 1, 2), pairs(7, 8))
    assert "not a pool scored against itself" in delift("inspect", cache, "--suspects", 2).refusal()
    words = ("select", "--target", cache, "-k", 1, "--drop-suspects", "50%")
    assert "not a pool scored against itself" in delift(*words).refusal()
    pool = tiny_runs.make_cache(tmp_path / "pool", pairs(0, 1, 2))
    assert "--drop-suspects" in delift("select", pool, "-k", 1, "--drop-suspects", "150%").refusal()

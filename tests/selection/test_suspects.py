"""Suspects: the score against its formula, what it is said from, and the verbs that use it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from tiny_runs import delift, model, pair, pairs, score

import delift_cli
from delift_cli.cache.dense import Cache
from delift_cli.cache.sparse import open_cache
from delift_cli.data.shared_answers import shared_answers
from delift_cli.errors import InputError
from delift_cli.model.llama import Settings
from delift_cli.report.pool import Pool, Wanted
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Scoring
from delift_cli.selection.blocks import as_block
from delift_cli.selection.reasons import explain_record
from delift_cli.selection.run import select_records
from delift_cli.selection.set_aside import SetAside, come_last
from delift_cli.selection.suspects import KIN, SPREAD, SUSPECT, judge, measured_behind, nearest_prompts, suspects

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


def test_a_kind_of_prompt_is_not_doubtful_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(60) // 6  # six of each kind are near to each other
    near = np.array([rng.permutation([j for j in np.flatnonzero(kind == kind[i]) if j != i]) for i in range(60)])
    near = np.hstack([near, np.full((60, 30), -1)]).astype(np.int32)
    loss = np.where(np.isin(kind, (4, 7)), 5.5, 1.0) + rng.random(60)  # 14 of 60 are suspect
    loss[[3, 20]] = 8.0
    judged = judge(loss, np.full((60, 1), np.nan), np.full(60, 6.0), near=near)
    suspect = np.flatnonzero(judged.score > SUSPECT).tolist()
    assert suspect == [3, 20, *range(24, 30), *range(42, 48)]
    found = judged.doubtful.tolist()
    assert found == [place for place in judged.worst(60).tolist() if place in found]
    assert {3, 20} <= {*found}
    for each in (4, 7):
        of_kind = [place for place in judged.worst(60).tolist() if kind[place] == each]
        assert [place for place in found if kind[place] == each] == of_kind[:SPREAD]
    assert judge(loss, np.full((60, 1), np.nan), np.full(60, 6.0)).doubtful.tolist() == judged.worst(14).tolist()
    assert not len(judge(loss / 9, np.full((60, 1), np.nan), np.full(60, 6.0)).doubtful)


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
    from delift_cli.cache.sparse import open_sparse_for_scoring
    from delift_cli.cache.stored_round import Asked

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
    told = delift("select", scored, "-k", 3, "-o", "/dev/null", "--json").json
    assert told["dropped_suspects"] == 0


def test_by_default_doubtful_answers_come_last(scored: Path) -> None:
    cache = open_cache(scored)
    judged = suspects(cache, cache.examples().records)
    doubtful = [f"r{place}" for place in judged.doubtful.tolist()]
    few = SIZE - len(doubtful)
    assert 1 < few < SIZE - 1
    everything = select_records(scored, SIZE)  # nothing but what scoring kept is needed
    assert {*everything.ids[few:]} == {*doubtful}
    told = {"suspects_last": len(doubtful), "suspects_taken": len(doubtful)}
    assert everything.as_dict() | told == everything.as_dict()
    assert f"{len(doubtful)} of them taken for want of others" in dict(everything.lines())["suspects"]
    shorter = select_records(scored, few)
    assert not {*shorter.ids} & {*doubtful}
    listed = max(judged.worst(SIZE).tolist().index(int(name[1:])) for name in doubtful) + 1
    others = f", and {listed - len(doubtful)} more" if listed > len(doubtful) else ""
    which = f"delift inspect {scored} --suspects {listed} lists them{others} (--drop-suspects off: as any other)"
    told = f"{len(doubtful)} doubtful answers come last, none of them taken; {which}"
    assert dict(shorter.lines())["suspects"] == told
    assert "of the best subset without suspects" in dict(shorter.lines())["quality"]

    off = select_records(scored, SIZE, drop_suspects="off")
    assert off.as_dict()["suspects_last"] == 0
    assert "suspects" not in dict(off.lines())
    named = select_records(scored, SIZE, objective="topm")  # is what it is defined as
    assert named.as_dict()["suspects_last"] == 0
    asked_for = select_records(scored, SIZE, objective="topm", drop_suspects="last")
    assert {*asked_for.ids[few:]} == {*doubtful}
    with pytest.raises(InputError, match="stochastic method takes k, always and never, no budget"):
        select_records(scored, 3, greedy="stochastic", drop_suspects="last")
    for method in ("random", "loss"):
        assert select_records(scored, 3, method=method).as_dict()["suspects_last"] == 0
    assert select_records(scored, 3, greedy="stochastic").as_dict()["suspects_last"] == 0

    for rank, name in enumerate(doubtful, start=1):
        explained = explain_record(scored, name, few)
        assert explained.figures["suspect"] == rank
        assert f"number {rank} of the doubtful answers, which come last" in dict(explained.lines())["suspect"]
    left_out = next(record.id for record in off.records if record.id not in doubtful and record.id != shorter.ids[0])
    assert explain_record(scored, left_out, 1).figures["suspect"] is None
    (reported,) = Pool(as_block(open_cache(scored)), None, Wanted(k=str(few))).subsets
    assert reported.places.tolist() == shorter.selection.indices.tolist()


def test_a_model_that_prompts_say_nothing_to_doubts_no_answer(tmp_path: Path) -> None:
    unmoved = np.full((60, 1), np.nan)
    for suspect in (29, 30, 31):
        loss = np.where(np.arange(60) < suspect, 6.0, 1.0)
        judged = judge(loss, unmoved, np.full(60, 6.0))
        assert judged.telling == (suspect <= 30)
        assert len(judged.doubtful) == (suspect if suspect <= 30 else 0)
        aside = come_last(judged)
        assert len(aside.last) == len(judged.doubtful)
        assert aside.as_dict([])["suspects_last"] == (suspect if suspect <= 30 else None)
    ((name, told),) = aside.lines(tmp_path, [])
    assert name == "suspects"
    assert told.startswith("none come last: to this model most answers are hardly likelier behind their prompts")
    assert not judge(loss / 9, unmoved, None).telling


def test_of_damaged_pairs_no_suspects_are_told(scored: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(scored, tmp_path / "c.delift")
    with (cache / "logprob.npy").open("r+b") as file:
        file.seek(-5, 2)
        byte = file.read(1)[0]
        file.seek(-5, 2)
        file.write(bytes([byte ^ 64]))
    for method in ("random", "length", "delift"):
        found = delift("select", cache, "--method", method, "--drop-suspects", "30%", "-k", 2)
        assert "logprob.npy does not match its checksum" in found.refusal()
    assert delift("select", cache, "--method", "random", "-k", 2).code == 0


def test_what_is_said_of_them() -> None:
    place = Path("c.delift")
    ((_, told),) = SetAside([3, 5], listed=4).lines(place, [5])
    which = "delift inspect c.delift --suspects 4 lists them, and 2 more (--drop-suspects off: as any other)"
    assert told == f"2 doubtful answers come last, 1 of them taken for want of others; {which}"
    ((_, told),) = SetAside([3], listed=1).lines(place, [])
    assert told.startswith(
        "1 doubtful answer comes last, none of them taken; delift inspect c.delift --suspects 1 lists"
    )
    assert SetAside().lines(place, []) == []


def test_who_must_be_in_does_not_come_last(scored: Path, tmp_path: Path) -> None:
    (worst,) = delift("inspect", scored, "--suspects", 1, "--json").json["suspects"]
    (tmp_path / "always.txt").write_text(worst["id"] + "\n")
    before = select_records(scored, 2).as_dict()["suspects_last"]
    subset = select_records(scored, 2, always=tmp_path / "always.txt")
    assert subset.ids[0] == worst["id"]
    assert subset.as_dict()["suspects_last"] == before - 1


def test_a_cache_that_does_not_say_is_not_judged(scored: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.delift"
    shutil.copytree(scored, old)
    for file in (old / "baselines").iterdir():
        file.unlink()
    subset = select_records(old, 3)
    assert subset.as_dict()["suspects_last"] is None
    assert dict(subset.lines())["suspects"].startswith(f"not looked for: {old} does not hold what responses cost")
    assert score(scored.parent / "pool.jsonl", "-o", old).code == 0  # nothing but that is missing
    assert [file.read_bytes() for file in (old / "baselines").iterdir()] == [
        file.read_bytes() for file in (scored / "baselines").iterdir()
    ]
    assert select_records(old, 3).as_dict()["suspects_last"] == select_records(scored, 3).as_dict()["suspects_last"] > 0


def test_what_responses_cost_alone_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delift_cli.scoring.pairs.BASE_CHUNK", 5)
    asked = []
    measure = Scoring.without_example

    def counted(self: Scoring, chosen: np.ndarray) -> Measures:
        asked.append(chosen.tolist())
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measure(self, chosen)

    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(pairs(*range(SIZE)))
    monkeypatch.setattr(Scoring, "without_example", counted)
    quick: dict[str, Any] = {"model": str(model()), "weights": "as-is", "settings": Settings(threads=1)}
    with pytest.raises(KeyboardInterrupt):
        delift_cli.score(pool, output=tmp_path / "c", **quick)
    delift_cli.score(pool, output=tmp_path / "c", **quick)
    assert asked[:4] == [[*range(5)], [*range(5, 10)], [*range(5, 10)], [10, 11]]
    delift_cli.score(pool, output=tmp_path / "at once", **quick)
    np.testing.assert_array_equal(kept_alone(tmp_path / "c"), kept_alone(tmp_path / "at once"))


def kept_alone(path: Path) -> np.ndarray:
    cache = open_cache(path)
    found = suspects(cache, cache.examples().records).alone
    assert found is not None
    return found


REFUSES = """{%- for message in messages %}
{%- if not message.content %}{{ raise_exception('an empty message') }}{%- endif %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""


def test_a_template_that_takes_no_empty_prompt_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_bytes(pairs(*range(SIZE)))
    (tmp_path / "strict.jinja").write_text(REFUSES)
    done = score(tmp_path / "pool.jsonl", "-o", tmp_path / "c", "--template", tmp_path / "strict.jinja")
    assert done.code == 0
    assert "which answers look wrong is not known, for responses without their prompts fail" in done.err
    assert select_records(tmp_path / "c", 3).as_dict()["suspects_last"] is None


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
    for share in ("150%", "most"):
        refused = delift("select", pool, "-k", 1, "--drop-suspects", share).refusal()
        assert refused == f"--drop-suspects {share}: give a share, such as 1% or 0.01, or last or off"

"""`delift explain` against what NumPy says of the same cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import WORDS, delift, make_cache, pair, pairs, score

from delift_cli.cache.sparse import open_cache

SIZE = 14


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "pool.jsonl").write_bytes(pairs(*range(SIZE)))
    assert score(folder / "pool.jsonl", "-o", folder / "pool.delift").code == 0
    return folder / "pool.delift"


@pytest.fixture(scope="module")
def utility(cache: Path) -> np.ndarray:
    base = np.load(cache / "base_distance.npy").astype(np.float64)
    return base - np.load(cache / "distance.npy")


@pytest.fixture(scope="module")
def chosen(cache: Path) -> list[int]:
    ids = delift("select", cache, "-k", 4, "--ids-only", "-q").out.decode().split()
    return [int(name[1:]) for name in ids]


def clipped(utility: np.ndarray) -> np.ndarray:
    similarity = np.maximum(utility, 0)
    np.fill_diagonal(similarity, 0)
    return similarity


@pytest.fixture(scope="module")
def worth(cache: Path, utility: np.ndarray) -> Callable[[list[int]], float]:
    """The value of a subset under the default: three helpers a target, which counts for the root of its tokens."""
    similarity = clipped(utility)
    weight = np.sqrt(np.load(cache / "response_tokens.npy"))
    weight /= weight.mean()

    def of(subset: list[int]) -> float:
        best = np.sort(similarity[subset], axis=0)[::-1][:3]
        return float((best / np.arange(1, len(best) + 1)[:, None]).sum(0) @ weight)

    return of


def test_a_chosen_record(
    cache: Path, utility: np.ndarray, chosen: list[int], worth: Callable[[list[int]], float]
) -> None:
    similarity = clipped(utility)
    for rank, record in enumerate(chosen, start=1):
        told = delift("explain", cache, f"r{record}", "-k", 4, "--top", SIZE, "--json").json
        assert told["chosen"]
        assert told["rank"] == rank
        others = [other for other in chosen if other != record]
        assert told["lost_without_it"] == pytest.approx(worth(chosen) - worth(others), abs=1e-5)
        for entry in told["covers"]:
            target = int(entry["id"][1:])
            assert entry["similarity"] == pytest.approx(similarity[record, target], abs=1e-6)
            assert entry["otherwise_similarity"] == pytest.approx(similarity[others, target].max(), abs=1e-6)


def test_a_record_that_was_left_out(
    cache: Path, utility: np.ndarray, chosen: list[int], worth: Callable[[list[int]], float]
) -> None:
    record = next(place for place in range(SIZE) if place not in chosen)
    told = delift("explain", cache, f"r{record}", "-k", 4, "--top", SIZE, "--json").json
    assert not told["chosen"]
    assert told["could_still_add"] == pytest.approx(worth([*chosen, record]) - worth(chosen), abs=1e-5)
    assert told["worth_alone"] == pytest.approx(worth([record]), abs=1e-5)
    assert {entry["id"] for entry in told["made_redundant_by"]} <= {f"r{place}" for place in chosen}
    assert told["harms"]["targets"] == int((np.delete(utility[record], record) < 0).sum())
    assert told["harms"]["measured"] == SIZE - 1
    worst = told["harms"]["most"][0]
    assert worst["utility"] == pytest.approx(utility[record].min(), abs=1e-6)


def test_harm_is_said_of_what_was_measured(tmp_path: Path) -> None:
    """Neither of pairs that were not, nor of a record before itself or a copy of itself."""
    data = pairs(*range(SIZE)) + json.dumps({**pair(2), "id": "a copy"}).encode() + b"\n"
    (tmp_path / "pool.jsonl").write_bytes(data)
    for name, budget in (("all", "100%"), ("part", "40%")):
        assert score(tmp_path / "pool.jsonl", "-o", tmp_path / name, "--budget", budget, "-q").code == 0
        cache = open_cache(tmp_path / name)
        for example, targets, distance in cache.measured():
            group = {2, SIZE} if example in (2, SIZE) else {example}
            others = np.array([target not in group for target in targets.tolist()])
            utility = (cache.base_distance[targets] - distance)[others]
            told = delift("explain", tmp_path / name, f"record:{example + 1}", "-k", 4, "--json").json["harms"]
            assert (told["targets"], told["measured"]) == (int((utility < 0).sum()), len(utility))
    assert len(utility) < SIZE
    line = f"harms  {told['targets']} of the {told['measured']} targets measured"
    assert line in delift("explain", tmp_path / "part", "a copy", "-k", 4).out.decode()


def test_told_in_words(cache: Path, chosen: list[int]) -> None:
    told = delift("explain", cache, f"r{chosen[0]}", "-k", 4)
    assert told.code == 0
    assert told.err == ""
    assert "number 1 of the 4 selected from 14" in told.out.decode()


def test_a_record_that_is_nobodys_best(cache: Path) -> None:
    """Where second and third helpers count, a record may add much and be no target's best."""
    how = ("-k", 12, "--objective", "topm")
    ids = delift("select", cache, *how, "--ids-only", "-q").out.decode().split()
    told = {name: delift("explain", cache, name, *how, "--json").json for name in ids}
    assert [told[name]["rank"] for name in ids] == list(range(1, 13))
    helping = [name for name in ids if told[name]["gain"] > 0 and not told[name]["covers"]]
    assert helping
    assert (
        "no target best: what it adds, it adds behind others" in delift("explain", cache, helping[0], *how).out.decode()
    )


def test_no_such_record(cache: Path) -> None:
    assert "no record with the id nobody" in delift("explain", cache, "nobody").refusal()


def test_a_target_set_has_no_selection_to_explain(tmp_path: Path) -> None:
    dev = make_cache(tmp_path / "dev", pairs(0, 1), pairs(2, 3))
    refused = delift("explain", dev, "r0").refusal()
    assert refused == f"{dev} is not a pool scored against itself, which selections are explained of"


def test_records_without_a_prompt_are_shown_by_their_text(tmp_path: Path) -> None:
    lines = [{"id": f"t{n}", "text": f"the {word} is here"} for n, word in enumerate(WORDS[:6])]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cache = tmp_path / "texts.delift"
    assert score(tmp_path / "texts.jsonl", "-o", cache).code == 0
    told = delift("explain", cache, "t2", "-k", 3)
    assert told.code == 0
    assert b"the sun is here" in told.out
    for verb in (("inspect", cache), ("show", cache, "t2"), ("inspect", cache, "--suspects", 2)):
        assert delift(*verb).code == 0
    assert delift("inspect", cache, "--json").json["most_useful"][0]["prompt"] == ""

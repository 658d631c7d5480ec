"""Benchmarks kept out, near-duplicates grouped, scores of the data weighed, shares of a field."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import delift, jsonl, make_cache, pair, records

from delift_cli.amount import parse_amount
from delift_cli.cache.sparse import open_cache
from delift_cli.data.limits import read_quotas
from delift_cli.data.near_duplicates import Near, groups_of, joined, near_duplicates
from delift_cli.data.overlap import overlaps, parse_not_like
from delift_cli.data.quality import bonus, parse_quality, read_quality
from delift_cli.errors import InputError
from delift_cli.report.pool import Pool, Wanted
from delift_cli.selection.blocks import KernelOptions, as_block
from delift_cli.selection.reasons import explain_record
from delift_cli.selection.run import select_records
from delift_cli.selection.subset import Subset

LONG = "the quick brown fox jumps over the lazy dog near the old stone bridge"


def pool(*rows: dict[str, Any]) -> Any:
    return records(jsonl([{"prompt": f"p{n}", "response": f"r{n}", **row} for n, row in enumerate(rows)])).records


# ---- benchmarks


def test_overlaps() -> None:
    mine = pool(
        {"prompt": f"Intro. {LONG.upper()}! And more."},  # holds all of it
        {"prompt": " ".join(LONG.split()[:10])},  # a part: 3 of its 7 n-grams
        {"prompt": "Say  HI!"},  # the same short prompt, up to case and punctuation
        {"prompt": "Say hi to her"},
        {"response": f"Well: {LONG}."},
        {"prompt": "other", "response": "yes it is"},
    )
    theirs = pool({"prompt": LONG, "response": "yes it is"}, {"prompt": "say hi"})
    found = overlaps(mine, theirs, 0.8)
    assert [(o.place, o.other, o.share, o.part, o.exact) for o in found] == [
        (0, 0, 1.0, "prompt", False),
        (2, 1, 1.0, "prompt", True),
        (4, 0, 1.0, "prompt", False),
    ]
    assert [(o.place, round(o.share, 4)) for o in overlaps(mine, theirs, 0.4)][:2] == [(0, 1.0), (1, round(3 / 7, 4))]


def test_overlap_with_an_answer() -> None:
    mine = pool({"response": LONG}, {"prompt": "x", "response": "yes"})
    found = overlaps(mine, pool({"prompt": "what?", "response": LONG}), 1.0)
    assert [(o.place, o.part) for o in found] == [(0, "response")]


def test_not_like_as_written() -> None:
    assert parse_not_like("test.jsonl") == ("test.jsonl", 0.8)
    assert parse_not_like("test.jsonl:0.5") == ("test.jsonl", 0.5)
    assert parse_not_like("hf:us/x:test:50%") == ("hf:us/x:test", 0.5)
    for text in ("test.jsonl:.", "test.jsonl:1.2.3", "test.jsonl:0"):
        with pytest.raises(InputError, match="give a file and a share"):
            parse_not_like(text)
    assert parse_not_like("hf:us/x:test") == ("hf:us/x:test", 0.8)
    for wrong in ("t:0", "t:1.5", "t:1.2.3", ":0.5"):
        with pytest.raises(InputError, match="--not-like"):
            parse_not_like(wrong)


def test_groups_of_near_duplicates() -> None:
    mine = pool({"prompt": LONG}, {"prompt": "else"}, {"prompt": LONG + "s", "response": "r0"}, {"prompt": "b"})
    assert groups_of(near_duplicates(mine, 0.7).near) == [[0, 2]]
    chain = Near(np.array([0, 1, 2, 2, 3]), np.array([1, 2, 0], np.int32))  # 0-1, 1-2, 3-0
    assert groups_of(chain) == [[0, 1, 2, 3]]
    two = Near(np.array([0, 1, 2, 2, 4, 5, 6]), np.array([3, 4, 0, 5, 1, 3], np.int32))  # 0-3, 3-5 and 1-4; 2 alone
    assert joined(two).tolist() == [0, 1, 2, 0, 1, 0]
    assert groups_of(two) == [[0, 3, 5], [1, 4]]


# ---- scores


def test_quality_is_scaled() -> None:
    quality = read_quality("score:0.5", pool({"score": 2}, {"score": "4"}, {"score": 3.0}, {}))
    assert quality.scores.tolist() == [0.0, 1.0, 0.5, 0.0]
    assert (quality.weight, quality.low, quality.high, quality.missing) == (0.5, 2.0, 4.0, 1)
    term = bonus(quality, 6.0, 2)
    np.testing.assert_allclose(term, [0, 2, 1, 0])  # the best two make half of 6
    assert parse_quality("a.b") == ("a.b", 1.0)
    for wrong, rows in (("s:0", [{}]), ("s:x", [{}]), ("s", [{}]), ("s", [{"s": "x"}]), ("s", [{"s": 1}, {"s": 1}])):
        with pytest.raises(InputError, match=r"--quality|is no number"):
            read_quality(wrong, pool(*rows))


# ---- shares

TASKS = [{"task": task} for task in "aaaaabbbcc"]


def quotas(k: str, **options: Any) -> dict[str, int]:
    rows = pool(*TASKS)
    field, least, most = read_quotas(None, options.pop("group", None), [], [], rows, parse_amount(k, 10), **options)
    assert (field, least) == ("task", most)
    return least


def test_shares() -> None:
    assert quotas("6", keep=True) == {"a": 3, "b": 2, "c": 1}
    assert quotas("10", keep=True) == {"a": 5, "b": 3, "c": 2}
    assert quotas("5", shares=["task:c=40%"]) == {"c": 2}
    assert quotas("4", shares=["task:c=0.5"], keep=True) == {"c": 2, "a": 1, "b": 1}
    assert sum(quotas("7", keep=True).values()) == 7
    for options, cause in (
        ({"shares": ["task:c=90%"]}, "there are 2"),
        ({"shares": ["task:a=60%", "task:b=50%"]}, "110% together"),
        ({"shares": ["task:a=60%", "x:b=1%"]}, "several fields"),
        ({"shares": ["task=60%"]}, "source:code=30%"),
        ({"keep": True, "group": "none"}, "no field 'none'"),
    ):
        with pytest.raises(InputError, match=cause):
            quotas("8", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a token budget"):
        quotas("50tok", keep=True)


# ---- all of it through select


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"r{n}",
            "prompt": f"{LONG} {n}" if n < 3 else f"say {n}",
            "response": f"{n}",
            "task": "ab"[n % 2],
            "score": n,
        }
        for n in range(12)
    ]
    return make_cache(tmp_path / "c", jsonl(rows))


def test_select_leaves_out_what_is_like_a_benchmark(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(jsonl([{"id": "q", "prompt": LONG, "response": "x"}]))
    ran = delift(
        "select", cache, "-k", "12", "--not-like", tmp_path / "test.jsonl", "--stop-at-zero", "-o", tmp_path / "out"
    )
    assert ran.code == 0
    assert not {"r0", "r1", "r2"} & {json.loads(line)["id"] for line in (tmp_path / "out").read_bytes().splitlines()}
    assert "3 records left out" in ran.err
    assert "r0: 100% of its prompt as q of" in ran.err
    summary = delift(
        "select", cache, "-k", "4", "--not-like", tmp_path / "test.jsonl:0.9", "-o", tmp_path / "o", "--json"
    ).json
    assert [like["id"] for like in summary["not_like"]] == ["r0", "r1", "r2"]


def test_a_benchmark_that_nothing_overlaps_is_said(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(jsonl([{"prompt": "of something else", "response": "altogether"}]))
    subset = select_records(cache, 4, not_like=[str(tmp_path / "test.jsonl")])
    assert dict(subset.lines())["not like"] == "0 records left out, for text shared with a benchmark"
    assert subset.as_dict()["not_like"] == []
    assert "not like" not in dict(select_records(cache, 4).lines())


def test_select_weighs_scores(cache: Path) -> None:
    def chosen(quality: str | None) -> list[str]:
        return sorted(select_records(cache, 4, quality=quality).ids)

    assert chosen("score:1000") == ["r10", "r11", "r8", "r9"]
    assert chosen("score:0.000001") == chosen(None)
    subset = select_records(cache, 4, quality="score:1")
    assert subset.as_dict()["parameters"]["quality of score"] == 1
    assert any("0 counts as 0 and 11 as 1" in text for _, text in subset.lines())
    without = select_records(cache, 4)
    assert np.mean([int(name[1:]) for name in subset.ids]) > np.mean([int(name[1:]) for name in without.ids])


def test_select_keeps_shares(cache: Path) -> None:
    subset = select_records(cache, 6, keep_shares=True)
    assert sorted(json.loads(record.raw)["task"] for record in subset) == list("aaabbb")
    subset = select_records(cache, 6, shares=["task:b=83.4%"])
    assert sorted(json.loads(record.raw)["task"] for record in subset) == list("abbbbb")


def test_select_reports_groups(cache: Path) -> None:
    subset = select_records(cache, 6, distinct="40%")
    (group,) = subset.as_dict()["near_duplicate_groups"]
    assert group == ["r0", "r1", "r2"]
    assert len({*group} & {*subset.ids}) <= 1
    assert any("1 group of near-duplicates, 3 records" in text for _, text in subset.lines())


def near_copied(tmp_path: Path) -> Path:
    """A pool of four records three times each, the prompts a little otherwise, and three records of their own."""
    rng = random.Random(0)
    asked = [" ".join("".join(rng.choices("abcdefghijklmnop", k=5)) for _ in range(12)) for _ in range(4)]
    texts = [
        {"id": f"r{n}.{copy}", "prompt": f"{prompt}{end}", "response": f"answer {n}"}
        for copy, end in enumerate(("", " pls", " now"))
        for n, prompt in enumerate(asked)
    ]
    return make_cache(tmp_path / "pool.delift", jsonl([*texts, *(pair(n) | {"id": f"own {n}"} for n in range(3))]))


def test_near_copies_are_taken_once_as_long_as_others_are_left(tmp_path: Path) -> None:
    pool = near_copied(tmp_path)

    def originals(subset: Subset) -> list[str]:
        return [name.split(".")[0] for name in subset.ids]

    subset = select_records(pool, 7)
    assert sorted(originals(subset)) == sorted({*originals(subset)})
    assert sorted(map(len, subset.as_dict()["near_copy_groups"])) == [3, 3, 3, 3]
    told = (
        "4 groups of near-copies, 12 records; a second of a group once no others are left (--distinct off: at any time)"
    )
    assert dict(subset.lines())["near"] == told
    more = select_records(pool, 10)
    assert more.ids[:7] == subset.ids
    assert len({*more.ids}) == 10
    assert more.as_dict()["nearly_the_same"] == 3
    assert len(select_records(pool, 7, distinct="0.9")) == 7
    assert len(select_records(pool, 10, distinct="0.9")) == 7

    free = select_records(pool, 7, distinct="off")
    assert len({*originals(free)}) < 7
    assert "near_copy_groups" not in free.as_dict()
    named = select_records(
        pool, 7, objective="topm", count="both", options=KernelOptions(self_utility="exclude-answers")
    )
    assert free.ids == named.ids  # an objective by its name is what it is defined as
    for seed in range(5):
        drawn = originals(select_records(pool, 7, method="random", distinct="copies", seed=seed))
        assert len({*drawn}) == 7
    with pytest.raises(InputError, match="no budget, quotas, near-duplicates or last"):
        select_records(pool, 7, greedy="stochastic", distinct="copies")
    assert len(select_records(pool, 7, greedy="stochastic")) == 7


def test_what_is_explained_and_reported_is_what_is_selected(tmp_path: Path) -> None:
    pool = near_copied(tmp_path)
    chosen = select_records(pool, 7)
    for record in chosen.pool.examples:
        explained = explain_record(pool, record.id, 7)
        assert explained.figures["chosen"] == (record.id in chosen.ids)
        if record.id not in chosen.ids:  # of each original another copy was taken
            (twin,) = explained.figures["nearly_the_same"]
            assert twin[:3] == record.id[:3]
            assert dict(explained.lines())["like"].startswith(f"{twin}: one of them is enough")
    (reported,) = Pool(as_block(open_cache(pool)), None, Wanted(k="7")).subsets
    assert reported.places.tolist() == chosen.selection.indices.tolist()


def test_select_says_what_it_took_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*map(pair, range(8))]
    twins = [{**one, "id": f"twin of {one['id']}", "prompt": one["prompt"].upper()} for one in texts[:3]]
    pool = make_cache(tmp_path / "pool.delift", jsonl([*texts, *twins]))
    subset = select_records(pool, 11)
    assert subset.as_dict()["nearly_the_same"] == 3
    told = dict(subset.lines())["near"]
    assert told == "3 of the selected are nearly the same as another one of them; --distinct 0.9 takes one of each"
    assert select_records(pool, 8, distinct="0.9").as_dict()["nearly_the_same"] is None
    monkeypatch.setattr("delift_cli.selection.hygiene.LOOKED_AT", 10)
    assert select_records(pool, 11).as_dict()["nearly_the_same"] is None
    assert not any("nearly the same" in text for _, text in select_records(pool, 11).lines())


def test_select_says_where_one_answer_goes_to_unlike_prompts(tmp_path: Path) -> None:
    same = "Please refer to the documentation for more details."
    lines = [*map(pair, range(6)), *({**pair(n), "response": same} for n in range(6, 9))]
    pool = make_cache(tmp_path / "pool.delift", jsonl(lines))
    subset = select_records(pool, 9)
    assert subset.as_dict()["one_answer"] == 3
    told = dict(subset.lines())["answers"]
    expected = "3 of the selected give unlike prompts one long answer, as boilerplate does; delift inspect "
    assert told.startswith(expected)
    assert select_records(pool, 5, never=_ids(tmp_path, "r6", "r7")).as_dict()["one_answer"] == 0


def _ids(folder: Path, *names: str) -> Path:
    (folder / "ids.txt").write_text("\n".join(names))
    return folder / "ids.txt"

"""`delift preview`, and the containers of what `select` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import delift, jsonl, make_cache, model, pair, pairs, score

CHAT = {
    "id": "c",
    "messages": [
        {"role": "system", "content": "say it"},
        {"role": "user", "content": "cat"},
        {"role": "assistant", "content": "dog"},
        {"role": "user", "content": "sun [b]"},
        {"role": "assistant", "content": "moon"},
        {"role": "user", "content": "tree"},
    ],
    "source": "web",
}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(jsonl([CHAT, pair(0), pair(1), pair(2), pair(3)]))
    return path


def test_json_has_exactly_these_keys(pool: Path) -> None:
    found = delift("preview", pool, "--json").json
    assert [row["id"] for row in found] == ["c", "r0", "r1", "r2", "r3"]
    assert found[0] == {
        "id": "c",
        "layout": "messages",
        "prompt": CHAT["messages"][:4],
        "scored": ["dog", "moon"],
        "ignored": ["source"],
    }
    assert [row["id"] for row in delift("preview", pool, "--json", "--first", 2).json] == ["c", "r0"]
    assert delift("preview", pool, "--json", "--first", 0).json == []
    last = delift("preview", pool, "--json", "--turns", "last", "--record", "line:1").json
    assert [row["scored"] for row in last] == [["moon"]]


def test_json_with_a_model_has_the_text_that_is_scored(pool: Path) -> None:
    (row,) = delift("preview", pool, "--json", "--record", "c", "-m", model()).json
    assert set(row) == {"id", "layout", "prompt", "scored", "ignored"}
    assert row["scored"] == ["dog<|im_end|>", "moon<|im_end|>"]


def test_for_people(pool: Path) -> None:
    out = delift("preview", pool).out.decode()
    assert "messages (1), prompt/response (4)" in out
    assert "1 turn behind the last scored turn left out" in out
    assert "messages: source (1)" in out
    assert "user: cat\nassistant: ⟦dog⟧\nuser: sun [b]\nassistant: ⟦moon⟧\n" in out
    assert "r1: line 3" in out
    assert "r2" not in out


def test_the_text_that_the_model_sees(pool: Path) -> None:
    out = delift("preview", pool, "--record", "c", "-m", model()).out.decode()
    text = (
        "<|im_start|>user\ncat<|im_end|>\n<|im_start|>assistant\n⟦dog<|im_end|>⟧\n<|im_start|>user\nsun [b]<|im_end|>"
    )
    assert text in out
    assert "tokens" in out
    assert "tree" not in out


def test_what_overflows_is_said(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(jsonl([pair(0), {"prompt": "cat " * 3000, "response": "dog"}]))
    out = delift("preview", path, "-m", model(), "--first", 0).out.decode()
    assert "1 record longer than the context" in out


def test_refusals(pool: Path, tmp_path: Path) -> None:
    assert "there is no record with the id nobody" in delift("preview", pool, "--record", "nobody").refusal()
    (tmp_path / "bad.jsonl").write_bytes(pairs(0) + b'{"prompt": "p", "response": ""}\n')
    assert 'bad.jsonl:2: field "response" is empty' in delift("preview", tmp_path / "bad.jsonl").refusal()
    out = delift("preview", tmp_path / "bad.jsonl", "--skip-invalid").out.decode()
    assert 'left out  1 record: field "response" is empty' in out


def test_score_says_what_it_left_out(pool: Path, tmp_path: Path) -> None:
    ran = score(pool, "-o", tmp_path / "c", "--json")
    (read,) = ran.json["read"]
    assert read["turns_not_scored"] == {"unanswered": 1}
    assert read["ignored"] == {"messages": {"source": 1}}
    assert "left out" in score(pool, "-o", tmp_path / "d").err


def test_a_cache_reads_its_records_as_it_was_told(pool: Path, tmp_path: Path) -> None:
    from delift_cli.cache.sparse import open_cache

    for turns, scored in (("all", 2), ("last", 1)):
        cache = tmp_path / turns
        assert score(pool, "-o", cache, "--turns", turns, "--role", "web=user").code == 0
        fields = open_cache(cache).manifest["fields"]
        assert fields == {"prompt": None, "response": None, "roles": {"web": "user"}} | (
            {"turns": "all"} if turns == "all" else {}
        )
        first = open_cache(cache).examples().records[0]
        assert sum(turn.scored for turn in first.turns) == scored


# ---- what select writes


def test_output_over_a_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_bytes(pairs(0, 1, 2))
    make_cache(Path("c"), pairs(0, 1, 2))
    assert "is where the records came from" in delift("select", "c", "-k", "1", "-o", "pool.jsonl").refusal()
    Path("link.jsonl").symlink_to("pool.jsonl")
    assert "--force" in delift("select", "c", "-k", "1", "-o", "link.jsonl").refusal()
    assert Path("pool.jsonl").read_bytes() == pairs(0, 1, 2)
    assert delift("select", "c", "-k", "1", "-o", "pool.jsonl", "--force").code == 0
    assert Path("pool.jsonl").read_bytes().count(b"\n") == 1


def test_dash_is_stdout(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "c", pairs(0, 1, 2))
    assert delift("select", cache, "-k", "2", "-o", "-").out == delift("select", cache, "-k", "2").out


def test_parquet_and_jsonl_give_the_same_cache_and_subset(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    rows = [pair(number) for number in range(9)]
    (tmp_path / "pool.jsonl").write_bytes(jsonl(rows))
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    for name in ("jsonl", "parquet"):
        assert score(tmp_path / f"pool.{name}", "-o", tmp_path / name).code == 0
    for file in ("distance.npy", "logprob.npy", "base_distance.npy"):
        assert (tmp_path / "jsonl" / file).read_bytes() == (tmp_path / "parquet" / file).read_bytes()
    chosen = {}
    for name in ("jsonl", "parquet"):
        out = tmp_path / f"subset.{name}"
        assert delift("select", tmp_path / name, "-k", "4", "-o", out).code == 0
        chosen[name] = [row["id"] for row in delift("preview", out, "--json").json]
    assert chosen["jsonl"] == chosen["parquet"]
    table = pa.parquet.read_table(tmp_path / "subset.parquet")
    assert table.schema == pa.parquet.read_table(tmp_path / "pool.parquet").schema
    assert table.to_pylist() == [json.loads(line) for line in (tmp_path / "subset.jsonl").read_bytes().splitlines()]
    # to stdout it goes in the container that it came in
    assert delift("select", tmp_path / "parquet", "-k", "4").out[:4] == b"PAR1"
    ran = delift("select", tmp_path / "jsonl", "-k", "4", "-o", tmp_path / "subset.csv")
    assert ran.code == 0
    assert [row["id"] for row in delift("preview", tmp_path / "subset.csv", "--json").json] == chosen["jsonl"]

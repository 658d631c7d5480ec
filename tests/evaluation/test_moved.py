"""A model that has moved on: what its new utilities say of the old ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf_models as g
import numpy as np
import pytest
from tiny_runs import DESCRIPTION, delift, fill, jsonl, make_cache, model, pairs, records, score
from tiny_runs import open_cache as cache_writer

from delift_cli.cache.sparse import SparseCache, open_cache, open_sparse_for_scoring
from delift_cli.cache.stored_round import Asked
from delift_cli.errors import InputError
from delift_cli.evaluation.moved import moved
from delift_cli.ranks import rank_correlation

POOL = pairs(*range(8))


def test_rank_correlation() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, 10 * a) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(0.75))
    assert np.isnan(rank_correlation(a, np.ones(4)))


def test_two_states(tmp_path: Path) -> None:
    first, second = (open_cache(make_cache(tmp_path / name, POOL, seed=seed)) for name, seed in (("a", 0), ("b", 1)))
    same = moved(first, first)
    assert (same.changed, same.mean_change, same.pairs) == (0.0, 0.0, 64)
    assert same.rank_correlation == pytest.approx(1.0)
    assert "hardly changed" in same.advice
    other = moved(first, second)
    old, new = (
        np.load(tmp_path / name / "base_distance.npy") - np.load(tmp_path / name / "distance.npy") for name in "ab"
    )
    assert other.changed == pytest.approx((np.abs(old - new) > 0.01).mean())
    assert other.mean_change == pytest.approx(np.abs(old - new).mean(), rel=1e-5)
    assert "order changed" in other.advice
    with pytest.raises(InputError, match="do not have the same examples"):
        moved(first, open_cache(make_cache(tmp_path / "c", pairs(1, 2))))


def test_some_of_the_pairs_by_hand(tmp_path: Path) -> None:
    """A cache of all pairs and one of some: what is compared are the pairs that both have, each with its own."""
    whole, part = tmp_path / "a", tmp_path / "b"
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(POOL)
    assert score(pool, "-o", whole, "-q").code == 0
    assert score(pool, "-o", part, "-q", "--budget", "60%").code == 0
    base, distance = (np.load(whole / name).astype(np.float64) for name in ("base_distance.npy", "distance.npy"))
    measured = SparseCache(part).pairs()
    old = base[measured.target] - distance[measured.example, measured.target]
    new = np.load(part / "base_distance.npy").astype(np.float64)[measured.target] - measured.distance
    for before, now, change in ((whole, part, new - old), (part, whole, old - new), (part, part, 0 * new)):
        found = moved(open_cache(before), open_cache(now))
        assert found.pairs == len(new) < 64
        assert found.mean_change == pytest.approx(np.abs(change).mean(), abs=1e-12)
        assert found.rank_correlation == pytest.approx(rank_correlation(old, new) if before != now else 1.0)


def test_no_matrix_is_made_of_some_pairs(tmp_path: Path) -> None:
    """Of 3,000 records one matrix would be 72 MB."""
    count, half = 3000, np.full(3000, 0.5, np.float32)
    pool = records(jsonl([{"prompt": f"{number}", "response": "x"} for number in range(count)]))
    lengths = [1] * count
    writer = open_sparse_for_scoring(
        tmp_path / "c", DESCRIPTION, pool, None, example_tokens=lengths, response_tokens=lengths
    )
    with writer as cache, cache.together():
        cache.write_base(0, half, -half)
        targets = np.arange(count, dtype=np.int32)[::-1]
        asked = Asked("1%", count, 1, 0, count, count)
        part = cache.begin_round(asked, np.arange(count + 1), targets, np.zeros(count, np.uint8))
        for example in range(count):
            cache.write_pairs(part, example, half[:1] / (example + 1), -half[:1])
    opened = SparseCache(tmp_path / "c")
    tracemalloc.start()
    found = moved(opened, opened)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.pairs, found.changed) == (count, 0.0)
    assert peak < 10e6


def test_other_records_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    pool, before, now = tmp_path / "pool.jsonl", tmp_path / "a.delift", tmp_path / "b.delift"
    pool.write_bytes(pairs(*range(7), 9))
    make_cache(before, POOL)
    wanted = "does not have the examples that are to be scored; --previous needs them"
    for options in ((), ("--budget", "60%"), ("--budget", "60%", "--proxy", model()), ("--dry-run",)):
        assert wanted in score(pool, "-o", now, "--previous", before, *options).refusal()
    pool.write_bytes(POOL)
    wanted = "does not have the targets that are to be scored"
    (tmp_path / "dev.jsonl").write_bytes(pairs(1, 2))
    assert wanted in score(pool, "--targets", tmp_path / "dev.jsonl", "-o", now, "--previous", before).refusal()
    rows = np.load(before / "distance.npy", mmap_mode="r+")
    rows[3, 2] += 1
    rows.flush()
    assert "row 3 of distance.npy" in score(pool, "-o", now, "--previous", before).refusal()
    assert not [*tmp_path.glob("b*")]


def test_no_pair_in_common_does_not_cost_the_summary(tmp_path: Path) -> None:
    pool, before = tmp_path / "pool.jsonl", tmp_path / "a.delift"
    pool.write_bytes(POOL)
    with cache_writer(before, POOL) as cache:
        fill(cache, [])
    result = score(pool, "-o", tmp_path / "b", "--previous", before, "--json")
    assert (result.code, result.json["moved"], result.json["pairs_scored"]) == (0, None, 64)
    result = score(pool, "-o", tmp_path / "b", "--previous", before)
    assert result.code == 0
    assert "not known" in result.err
    assert "no measured pair in common" in result.err


def test_from_the_command_line(tmp_path: Path) -> None:
    """All pairs under the model, then a part of them under the model with an adapter."""
    pool, before, now = tmp_path / "pool.jsonl", tmp_path / "a.delift", tmp_path / "b.delift"
    pool.write_bytes(POOL)
    adapter = g.write_adapter(tmp_path / "lora.gguf", g.lora(n_embd=64))
    assert score(pool, "-o", before).code == 0
    result = score(pool, "-o", now, "--lora", adapter, "--previous", before, "--budget", "50%", "--json")
    assert result.code == 0, result
    assert 24 <= result.json["moved"]["pairs"] <= 64
    assert result.json["moved"]["changed"] > 0.1
    assert "rank correlation" in score(pool, "-o", now, "--lora", adapter, "--previous", before).err
    assert "no such cache" in score(pool, "-o", now, "--previous", tmp_path / "none.delift").refusal()
    assert delift("select", now, "-k", 2).code == 0

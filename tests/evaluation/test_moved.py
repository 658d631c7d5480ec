"""A model that has moved on: what its new utilities say of the old ones."""

from __future__ import annotations

from pathlib import Path

import gguf_models as g
import numpy as np
import pytest
from tiny_runs import delift, make_cache, pairs, score

from delift_cli.cache.sparse import open_cache
from delift_cli.errors import InputError
from delift_cli.evaluation.moved import moved, spearman

POOL = pairs(*range(8))


def test_rank_correlation() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(a, 10 * a) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(0.75))
    assert np.isnan(spearman(a, np.ones(4)))


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

"""What `delift inspect` says of a cache."""

from __future__ import annotations

from pathlib import Path

from tiny_runs import delift, open_cache, pairs


def test_a_cache_without_a_measured_pair_has_no_mean_utility(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.delift", pairs(4)):
        pass
    shown = delift("inspect", tmp_path / "c.delift").out.decode()
    assert "no pair of two records is measured yet" in " ".join(shown.split())
    assert "1 example from pool.jsonl, the pool against itself" in shown
    told = delift("inspect", tmp_path / "c.delift", "--json").json
    assert told["mean_utility"] is None
    assert told["harmful_share"] is None

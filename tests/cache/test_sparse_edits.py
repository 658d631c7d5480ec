"""Caches of some of the pairs and files that were edited: each pair keeps its numbers, wherever its records went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_strangers import make_sparse, open_sparse
from tiny_runs import pairs, tree

from delift_cli.budget.plan import _random_new_pairs
from delift_cli.cache.sparse import SparseCache

EDITS = {
    "appended": (pairs(*range(8)), [0, 1, 2, 3, 4, 5, -1, -1]),
    "inserted": (pairs(0, 7, 1, 2, 3, 8, 4, 5), [0, -1, 1, 2, 3, -1, 4, 5]),
    "removed": (pairs(0, 2, 3, 5), [0, 2, 3, 5]),
    "reordered": (pairs(5, 3, 0, 1, 4, 2), [5, 3, 0, 1, 4, 2]),
    "a label edited": (pairs(0, 1, 9, 3, 4, 5), [0, 1, -1, 3, 4, 5]),
}


@pytest.mark.parametrize("name", EDITS)
def test_pairs_keep_their_numbers(tmp_path: Path, name: str) -> None:
    edited, old = EDITS[name]
    path = make_sparse(tmp_path / "c")
    before = SparseCache(path).pairs()
    want = {(e, t): d for e, t, d in zip(before.example, before.target, before.distance, strict=True)}
    want = {(e, t): d for (e, t), d in want.items() if e in old and t in old}
    with open_sparse(path, edited) as cache:
        assert (cache.reused is None) == (name == "appended")
        if cache.reused:
            assert f"{len(want)} of the 24 pairs that were scored are used again" in cache.reused
    cache = SparseCache(path)
    cache.check_rows()
    now = cache.pairs()
    found = {(old[e], old[t]): d for e, t, d in zip(now.example, now.target, now.distance, strict=True)}
    assert found == want
    new = [place for place, record in enumerate(old) if record < 0]
    assert [later.tolist() for later in cache.later] == [new, new]
    assert cache.known == (len(old) - len(new), len(old) - len(new))
    np.testing.assert_array_equal(np.isnan(cache.base_distance), np.array(old) < 0)
    assert cache.rounds[-1].ended


def test_a_record_that_moved_twice_is_still_new(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "c")
    open_sparse(path, pairs(0, 7, 1, 2, 3, 4, 5)).__exit__(None)
    open_sparse(path, pairs(5, 4, 7, 3, 2, 1, 0, 8)).__exit__(None)
    assert [later.tolist() for later in SparseCache(path).later] == [[2, 7], [2, 7]]
    open_sparse(path, pairs(*range(6))).__exit__(None)
    assert tree(path)["round-1/distance.npy"] == tree(make_sparse(tmp_path / "fresh"))["round-1/distance.npy"]


def test_random_pairs_of_new_records_wherever_they_stand() -> None:
    """All pairs are of a new example or a new target, none is taken, and records in front count as those at the end."""
    later = np.array([0, 3]), np.array([2])
    taken = np.array([0 * 5 + 1, 3 * 5 + 3])
    drawn = _random_new_pairs(taken, 9, later, 6, 5, np.random.default_rng(0))
    example, target = drawn // 5, drawn % 5
    assert len({*drawn.tolist()}) == 9
    assert not {*drawn.tolist()} & {*taken.tolist()}
    assert (np.isin(example, later[0]) | np.isin(target, later[1])).all()

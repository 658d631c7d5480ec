"""Neighbours by candidates against the exact ones, on pools that are small enough for both."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

from delift_cli.data import large_pools
from delift_cli.data.large_pools import nearest
from delift_cli.data.ngrams import grams, neighbours

COUNT, ASKED = 600, 7


@pytest.fixture(autouse=True)
def every_pool_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pools, "EXACT", 0)


@pytest.fixture(scope="module")
def vectors():
    """Records of twelve tasks: words of the task, words that are frequent everywhere, rare words."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 7)) for _ in range(900)])
    task = rng.integers(12, size=COUNT)
    prompts = [f"{' '.join(words[10 * t : 10 * t + 5])} {' '.join(words[rng.zipf(1.4, 8) % 900])}" for t in task]
    return grams(prompts, [str(words[10 * t + rng.integers(10)]) for t in task])


def points(width: int, main: int):
    """Dense vectors with most of their length in few directions."""
    rng = np.random.default_rng(1)
    found = rng.standard_normal((COUNT, width)).astype(np.float32) * np.where(np.arange(width) < main, 1.0, 0.05)
    return found.astype(np.float32)


@pytest.mark.parametrize("width", [0, 40])
def test_without_anything_left_out_they_are_the_exact_ones(vectors, width, monkeypatch):
    monkeypatch.setattr(large_pools, "POSTINGS", 1 << 40)
    key = np.arange(COUNT) // 2  # of each record there is a copy
    both = (points(width, width),) * 2 if width else None
    found, similarity = nearest(vectors, vectors, ASKED, key, key, points=both)
    expected, exact = neighbours(vectors, vectors, ASKED, key, key, points=both)
    assert similarity == pytest.approx(exact, abs=1e-4)
    assert (found == expected).mean() > 0.99  # ties fall either way


@pytest.mark.parametrize("width", [0, 120])
def test_few_of_the_nearest_are_missed_and_what_is_found_has_its_similarity(vectors, width, monkeypatch):
    total = int(np.bincount(vectors.ids)[vectors.ids].sum()) // COUNT  # occurrences of a query's grams, on average
    monkeypatch.setattr(large_pools, "POSTINGS", total // 3)
    key = np.arange(COUNT)
    both = (points(width, 30),) * 2 if width else None
    found, similarity = nearest(vectors, vectors, ASKED, key, key, points=both)
    expected, exact = neighbours(vectors, vectors, ASKED, key, key, points=both)
    shared = [len(np.intersect1d(one, other)) for one, other in zip(found, expected, strict=True)]
    assert np.mean(shared) > 0.9 * ASKED
    assert (found != key[:, None]).all()
    same = found == expected
    assert similarity[same] == pytest.approx(exact[same], abs=1e-4)
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_a_query_whose_grams_are_all_frequent_keeps_its_rarest(vectors, monkeypatch):
    monkeypatch.setattr(large_pools, "POSTINGS", 0)
    key = np.arange(COUNT)
    _, similarity = nearest(vectors, vectors, ASKED, key, key)
    assert (similarity[:, 0] > 0).mean() > 0.9


def test_more_are_asked_for_than_there_are(vectors):
    few = vectors.rows(0, 3)
    found, similarity = nearest(few, few, ASKED, np.arange(3), np.arange(3))
    assert found.shape == similarity.shape == (3, 3)
    assert (found[:, 2] == -1).all()
    assert (similarity[:, 2] == 0).all()


def test_the_number_of_threads_changes_nothing(vectors, monkeypatch):
    monkeypatch.setattr("delift_cli.compiled.WORTH_SHARING", 0)
    key, results = np.arange(COUNT), []
    before = nb.get_num_threads()
    for threads in {1, before}:
        nb.set_num_threads(threads)
        results.append(nearest(vectors, vectors, ASKED, key, key))
    nb.set_num_threads(before)
    assert all((one == other).all() for one, other in zip(results[0], results[-1], strict=True))


def test_it_is_said_of_large_pools_alone(monkeypatch):
    monkeypatch.setattr(large_pools, "EXACT", 1000)
    assert large_pools.hint(1000) is None
    assert "1,001 records are found approximately" in str(large_pools.hint(1001))

from __future__ import annotations

import numpy as np
import pytest

from delift_cli.data import ngrams
from delift_cli.data.ngrams import grams, neighbours, neighbours_by_each

PROMPTS = ["Translate to French: cat", "Translate to French: dog", "What is 2 + 2?", "What is 3 + 5?", ""]
RESPONSES = ["chat", "chien", "4", "8", ""]


def dense(vectors):
    out = np.zeros((len(vectors), 1 << 19))
    for r in range(len(vectors)):
        part = vectors.rows(r, r + 1)
        out[r, part.ids] = part.weights
    return out


def test_neighbours_are_the_exact_ones():
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    texts = [" ".join(rng.choice(words, 5)) for _ in range(300)]
    vectors = grams(texts, texts[::-1])
    full = dense(vectors)
    cosine = full @ full.T
    key = np.arange(300)
    indices, values = neighbours(vectors.rows(0, 100), vectors, 7, key[:100], key)
    cosine[key, key] = -1
    best = np.sort(cosine[:100], 1)[:, :-8:-1]
    assert values == pytest.approx(best, abs=1e-5)
    assert np.take_along_axis(cosine[:100], indices.astype(int), 1) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("held", [1 << 23, 1000])
def test_products_of_points_are_added_to_the_cosines(monkeypatch, held):
    monkeypatch.setattr(ngrams, "PRODUCTS", held)  # the second: a few queries at a time
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["alpha", "beta", "gamma", "delta"], 4)) for _ in range(120)]
    vectors = grams(texts, texts[::-1])
    points = rng.standard_normal((120, 9)).astype(np.float32)
    total = dense(vectors) @ dense(vectors).T + points @ points.T
    key = np.arange(120)
    queries = vectors.rows(20, 120)
    indices, values = neighbours(queries, vectors, 7, key[20:], key, points=(points[20:], points))
    total[key, key] = -np.inf
    best = np.sort(total[20:], 1)[:, :-8:-1]
    assert values == pytest.approx(best, abs=1e-4)
    assert np.take_along_axis(total[20:], indices.astype(int), 1) == pytest.approx(best, abs=1e-4)


def test_several_lists_of_neighbours_are_those_that_each_has_alone():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["alpha", "beta", "gamma", "delta"], 4)) for _ in range(150)]
    vectors, key = grams(texts, texts[::-1]), np.arange(150) // 2
    ways = [None, *((points, points) for points in rng.standard_normal((2, 150, 9)).astype(np.float32))]
    together = neighbours_by_each(ways, vectors, vectors, 7, key, key)
    for points, (indices, values) in zip(ways, together, strict=True):
        alone = neighbours(vectors, vectors, 7, key, key, points=points)
        assert (indices == alone[0]).mean() > 0.99  # products of other shapes may round another way
        assert values == pytest.approx(alone[1], abs=1e-5)
    assert (together[0][0] != together[1][0]).any()


def test_same_template_is_nearest_and_own_key_is_left_out():
    vectors = grams(PROMPTS, RESPONSES)
    key = np.arange(5)
    indices, values = neighbours(vectors, vectors, 4, key, key)
    assert indices[:4, 0].tolist() == [1, 0, 3, 2]
    assert (np.diff(values, axis=1) <= 0).all()
    assert (indices != key[:, None]).all()


def test_fewer_candidates_than_asked_for():
    vectors = grams(PROMPTS, RESPONSES)
    same = np.zeros(5, int)
    indices, values = neighbours(vectors, vectors, 99, same, np.array([0, 0, 0, 0, 1]))
    assert indices.shape == (5, 5)
    assert (indices[:, 1:] == -1).all()
    assert (values[:, 1:] == 0).all()


def test_ties_go_to_the_lower_index():
    vectors = grams(["same text"] * 6 + ["another one"] * 30, ["x"] * 6 + ["y"] * 30)
    indices, _ = neighbours(vectors, vectors, 3)
    assert indices[0].tolist() == [0, 1, 2]


def test_unpaired_surrogates_and_short_texts_are_taken():
    assert len(grams(["\ud800", "é", ""], ["", "a", "b"])) == 3

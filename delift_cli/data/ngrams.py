"""Texts to vectors without a model: hashed character n-grams, and the exact nearest neighbours among them.

A record becomes one sparse vector: tf-idf weights of the 4-byte grams of its prompt and, apart from them, of its
response, each part of equal length, so that the cosine of two records is the mean of their prompts' and their
responses' cosines. Neighbours are found through an inverted index, one accumulator per query: exact for these
vectors, and the sums do not depend on the number of threads.

Folding the vectors into a few hundred dense dimensions instead was tried: its noise (0.02 to 0.05) is as large as the
similarity of two short answers of one task, and the neighbours were clearly worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ..compiled import jit, threads_for
from ..compressed import row_starts, rows_taken

GRAM = 4
BITS = 18
# A gram that more than this share of the records contain says little of which records are alike, and costs most.
FREQUENT = 0.25
NANOSECONDS = 4.0  # that one thread takes for a pair of short texts
PRODUCTS = 1 << 26  # products of dense vectors that are held at a time
STRIDE = 64  # rows that are looked at together

Points: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]  # dense vectors [q, d] of queries, [n, d] of a pool
Neighbours: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]  # indices and similarities, [q, k] each


@dataclass(frozen=True)
class Grams:
    """Sparse unit vectors in CSR form: row r holds ids[indptr[r]:indptr[r+1]] (ascending) with their weights."""

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def rows(self, start: int, stop: int) -> Grams:
        """The vectors of records start .. stop-1."""
        a, b = self.indptr[start], self.indptr[stop]
        return Grams(self.indptr[start : stop + 1] - a, self.ids[a:b], self.weights[a:b])

    def take(self, places: NDArray[np.int64]) -> Grams:
        """The vectors of these records."""
        indptr, at = rows_taken(self.indptr, places)
        return Grams(indptr, self.ids[at], self.weights[at])


@jit()
def _gram_hash(text: NDArray[np.uint8], at: int) -> int:
    word = np.uint64(0)
    for b in range(GRAM):
        word = (word << np.uint64(8)) | np.uint64(text[at + b])
    word *= np.uint64(0x9E3779B97F4A7C15)
    word ^= word >> np.uint64(29)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    return np.int64(word >> np.uint64(64 - BITS))  # type: ignore[return-value]


@jit()
def _count(
    text: NDArray[np.uint8], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """CSR of gram counts of each text (bytes text[ends[r-1]:ends[r]]), and each gram's document frequency."""
    n = len(ends)
    indptr = np.zeros(n + 1, np.int64)
    ids = np.empty(len(text), np.int32)
    counts = np.empty(len(text), np.int32)
    frequency = np.zeros(1 << BITS, np.int64)
    count = np.zeros(1 << BITS, np.int32)
    start = 0
    size = 0
    for r in range(n):
        first = size
        for at in range(start, ends[r] - GRAM + 1):
            gram = _gram_hash(text, at)
            if count[gram] == 0:
                ids[size] = gram
                size += 1
            count[gram] += 1
        start = ends[r]
        ids[first:size].sort()
        for e in range(first, size):
            counts[e] = count[ids[e]]
            count[ids[e]] = 0
            frequency[ids[e]] += 1
        indptr[r + 1] = size
    return indptr, ids[:size].copy(), counts[:size].copy(), frequency


def _weigh(texts: Sequence[str], every: bool) -> Grams:
    pieces = [f"\x02{text}\x03".encode(errors="replace").ljust(GRAM) for text in texts]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    indptr, ids, counts, frequency = _count(np.frombuffer(b"".join(pieces), np.uint8), ends)
    n = len(texts)
    rarity = np.log((1 + n) / (1 + frequency)).astype(np.float32)
    frequent = frequency > max(FREQUENT * n, 100)
    row = np.repeat(np.arange(n), np.diff(indptr))
    kept = ~frequent[ids]
    if every:
        rarity = rarity.clip(1e-3)  # what all texts have, too
        kept |= (np.bincount(row, kept, n) == 0)[row]
    weights = ((1 + np.log(counts)) * rarity[ids] * kept).astype(np.float32)
    norm = np.sqrt(np.bincount(row, weights.astype(np.float64) ** 2, n))
    keep = weights > 0
    weights = (weights / norm.clip(1e-12)[row] * 0.5**0.5).astype(np.float32)[keep]
    return Grams(row_starts(np.bincount(row[keep], minlength=n)), ids[keep], weights)


def grams(prompts: Sequence[str], responses: Sequence[str], *, every: bool = False) -> Grams:
    """Vectors of records given as texts.

    A gram that is in more than a quarter of the texts does not count. With `every`, a text that has no other keeps its
    grams: a label that very many records have is their likeness, too.

    Document frequencies are those of the records in this call: give examples and targets together when they are to be
    compared, and take each side with `Grams.rows`. Case, white space, and where a text begins and
    ends count: they tell templates apart. Takes some 0.1 ms per record.
    """
    parts = [_weigh(prompts, every), _weigh(responses, every)]
    row = np.concatenate([np.repeat(np.arange(len(prompts)), np.diff(part.indptr)) for part in parts])
    order = np.argsort(row, kind="stable")
    ids = np.concatenate([parts[0].ids, parts[1].ids + (1 << BITS)])[order]
    weights = np.concatenate([part.weights for part in parts])[order]
    return Grams(parts[0].indptr + parts[1].indptr, ids.astype(np.int32), weights)


@jit()
def _inverted(
    indptr: NDArray[np.int64], ids: NDArray[np.int32], weights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Of each gram the rows that contain it: postings[gram]:postings[gram + 1] of rows (ascending) and weights."""
    postings = np.zeros((2 << BITS) + 1, np.int64)
    for gram in ids:
        postings[gram + 1] += 1
    for gram in range(2 << BITS):
        postings[gram + 1] += postings[gram]
    at = postings.copy()
    rows, row_weights = np.empty(len(ids), np.int32), np.empty(len(ids), np.float32)
    for r in range(len(indptr) - 1):
        for e in range(indptr[r], indptr[r + 1]):
            place = at[ids[e]]
            rows[place] = r
            row_weights[place] = weights[e]
            at[ids[e]] += 1
    return postings, rows, row_weights


@jit(inline="always")
def _worse(value_a: float, index_a: int, value_b: float, index_b: int) -> bool:
    return value_a < value_b or (value_a == value_b and index_a > index_b)


@jit()
def sift_worst(values: NDArray[np.float32], indices: NDArray[np.int32], size: int) -> None:
    """Restore a heap whose root is its worst entry (lowest value, then highest index) after the root was replaced."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _worse(values[child + 1], indices[child + 1], values[child], indices[child]):
            child += 1
        if not _worse(values[child], indices[child], values[at], indices[at]):
            return
        values[at], values[child] = values[child], values[at]
        indices[at], indices[child] = indices[child], indices[at]
        at = child


@jit(parallel=True)
def _search(
    query_indptr: NDArray[np.int64],
    query_ids: NDArray[np.int32],
    query_weights: NDArray[np.float32],
    query_key: NDArray[np.int64],
    postings: NDArray[np.int64],
    rows: NDArray[np.int32],
    row_weights: NDArray[np.float32],
    key: NDArray[np.int64],
    added: NDArray[np.float32],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    blocks: int,
) -> None:
    """Of each query keep the best pool rows in each list of indices/values [lists, q, k] (heaps; entries never filled
    stay -1, -inf).

    `added` [a, q, n]: what is added to the cosines in the last a lists; the lists before go by the cosines alone.
    """
    n = len(key)
    lists, q_count, k = indices.shape
    by_text = lists - len(added)
    for block in nb.prange(blocks):
        cosines = np.zeros(n, np.float32)
        nothing = np.zeros(n, np.float32)
        for q in range(q_count * block // blocks, q_count * (block + 1) // blocks):
            cosines[:] = 0.0
            for e in range(query_indptr[q], query_indptr[q + 1]):
                gram, weight = query_ids[e], query_weights[e]
                for p in range(postings[gram], postings[gram + 1]):
                    cosines[rows[p]] += weight * row_weights[p]
            for own in range(lists):
                other = nothing if own < by_text else added[own - by_text, q]
                heap, at = values[own, q], indices[own, q]
                for start in range(0, n, STRIDE):
                    stop, floor = min(start + STRIDE, n), heap[0]
                    better = 0  # counted without a branch: hardly any stretch has one
                    for j in range(start, stop):
                        better += cosines[j] + other[j] > floor
                    if better == 0:
                        continue
                    for j in range(start, stop):
                        similarity = cosines[j] + other[j]
                        if similarity > heap[0] and key[j] != query_key[q]:
                            heap[0] = similarity
                            at[0] = j
                            sift_worst(heap, at, k)


def neighbours(
    queries: Grams,
    pool: Grams,
    k: int,
    query_key: NDArray[np.int64] | None = None,
    pool_key: NDArray[np.int64] | None = None,
    *,
    points: Points | None = None,
) -> Neighbours:
    """The k nearest pool rows of each query: indices int32 [q, k] and cosines float32 [q, k], best first.

    Queries and pool come from one call of `grams`. Rows of the pool whose key equals the query's are left out (the
    record itself and its copies). Where fewer than k remain the index is -1 and the cosine 0. Exact; ties go to
    the lower index.
    Time grows with the product of the two sizes, memory with their sum and the result.

    Args:
        points: dense vectors of the queries and of the pool, float32 [q, d] and [n, d]; their products are added to
            the cosines.
    """
    return neighbours_by_each([points], queries, pool, k, query_key, pool_key)[0]


def neighbours_by_each(
    points: Sequence[Points | None],
    queries: Grams,
    pool: Grams,
    k: int,
    query_key: NDArray[np.int64] | None = None,
    pool_key: NDArray[np.int64] | None = None,
) -> list[Neighbours]:
    """`neighbours` with each of `points` (None: by text alone), for which the texts are compared once. The Nones stand
    first."""
    k = max(1, min(k, len(pool)))
    query_key = np.full(len(queries), -1, np.int64) if query_key is None else query_key
    pool_key = np.full(len(pool), -2, np.int64) if pool_key is None else pool_key
    postings, rows, weights = _inverted(pool.indptr, pool.ids, pool.weights)
    indices = np.full((len(points), len(queries), k), -1, np.int32)
    values = np.full((len(points), len(queries), k), -np.inf, np.float32)
    dense = [pair for pair in points if pair is not None]
    block = min(max(1, PRODUCTS // max(len(dense) * len(pool), 1)), max(1, len(queries)))
    added = np.empty((len(dense), block, len(pool)), np.float32)
    for a in range(0, len(queries), block):
        b = min(a + block, len(queries))
        some = queries.rows(a, b)
        for (asking, among), products in zip(dense, added, strict=True):
            np.matmul(asking[a:b], among.T, out=products[: b - a])
        with threads_for(len(some) * len(pool) * NANOSECONDS):
            _search(
                some.indptr, some.ids, some.weights, query_key[a:b], postings, rows, weights, pool_key, added,
                indices[:, a:b], values[:, a:b], 8 * nb.get_num_threads(),
            )  # fmt: skip
    for at, value in zip(indices, values, strict=True):
        by_similarity(at, value)
    return [(at, np.where(at >= 0, value, np.float32(0))) for at, value in zip(indices, values, strict=True)]


def by_similarity(indices: NDArray[np.int32], values: NDArray[np.float32]) -> None:
    """Sort each row in place: falling values, ties by index."""
    for a in range(0, len(indices), 4096):  # in blocks: the sort needs several times its input
        order = np.lexsort((indices[a : a + 4096], -values[a : a + 4096]))
        indices[a : a + 4096] = np.take_along_axis(indices[a : a + 4096], order, 1)
        values[a : a + 4096] = np.take_along_axis(values[a : a + 4096], order, 1)

"""Texts to vectors without a model: hashed character n-grams, and the exact nearest neighbours among them.

A record becomes one vector: tf-idf weights of the 4-byte grams of its prompt and of its response, each part of
unit length, folded with random signs into a few hundred dimensions ("feature hashing", Weinberger et al. 2009).
Frequent grams stay in: they are what tells one task's template from another's.

Components are rounded to integers and every vector's norm stays below 2**12, so a dot product and each of its
partial sums is an integer below 2**24: float32 arithmetic is exact, and the result does not depend on how a BLAS
orders or divides the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np
from numpy.typing import NDArray

GRAM = 4
BUCKETS = 1 << 18
NORM = 4000.0  # below 2**12, with room for the rounding of components


@nb.njit(cache=True)
def _gram_bucket(text: NDArray[np.uint8], at: int) -> int:
    """Bucket of the gram that starts at byte `at` (a multiplicative hash, mixed once)."""
    word = np.uint64(0)
    for b in range(GRAM):
        word = (word << np.uint64(8)) | np.uint64(text[at + b])
    word *= np.uint64(0x9E3779B97F4A7C15)
    word ^= word >> np.uint64(29)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    return np.int64(word >> np.uint64(46))


@nb.njit(cache=True)
def _fold(
    text: NDArray[np.uint8], ends: NDArray[np.int64], dim: int, out: NDArray[np.float32], column: int
) -> None:
    """Write the sketch of each text (bytes text[ends[r-1]:ends[r]]) into out[r, column:column+dim]."""
    n = len(ends)
    document_frequency = np.zeros(BUCKETS, np.int32)
    seen = np.full(BUCKETS, -1, np.int32)
    start = 0
    for r in range(n):
        for at in range(start, ends[r] - GRAM + 1):
            bucket = _gram_bucket(text, at)
            if seen[bucket] != r:
                seen[bucket] = r
                document_frequency[bucket] += 1
        start = ends[r]
    count = np.zeros(BUCKETS, np.int32)
    touched = np.empty(BUCKETS, np.int64)
    vector = np.empty(dim, np.float64)
    start = 0
    for r in range(n):
        size = 0
        for at in range(start, ends[r] - GRAM + 1):
            bucket = _gram_bucket(text, at)
            if count[bucket] == 0:
                touched[size] = bucket
                size += 1
            count[bucket] += 1
        start = ends[r]
        vector[:] = 0.0
        for t in range(size):
            bucket = touched[t]
            weight = (1.0 + np.log(count[bucket])) * np.log((1.0 + n) / (1.0 + document_frequency[bucket]))
            count[bucket] = 0
            mixed = np.uint64(bucket + 1) * np.uint64(0xD6E8FEB86659FD93)
            mixed ^= mixed >> np.uint64(32)
            mixed *= np.uint64(0xD6E8FEB86659FD93)
            sign = 1.0 if (mixed >> np.uint64(63)) == 0 else -1.0
            vector[np.int64((mixed >> np.uint64(20)) % np.uint64(dim))] += sign * weight
        norm = np.sqrt((vector * vector).sum())
        if norm > 0.0:
            for d in range(dim):
                out[r, column + d] = np.float32(vector[d] / norm)


def sketch(prompts: Sequence[str], responses: Sequence[str], dim: int = 512) -> NDArray[np.float32]:
    """One vector per record, float32 [n, dim], components integers; cosine = dot product / NORM².

    Half of the dimensions belong to the prompt, half to the response, so that the cosine of two records is the mean
    of their prompts' and their responses' cosines. Document frequencies are those of the records given: sketch examples
    and targets in one call when they are to be compared. A text shorter than 4 bytes is padded with spaces.
    """
    half = dim // 2
    out = np.zeros((len(prompts), 2 * half), np.float32)
    for column, texts in ((0, prompts), (half, responses)):
        pieces = [" ".join(["", *text.lower().split(), ""]).encode().ljust(GRAM) for text in texts]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        _fold(np.frombuffer(b"".join(pieces), np.uint8), ends, half, out, column)
    return np.rint(out * (NORM / np.sqrt(2.0) - half**0.5)).astype(np.float32)


@nb.njit(cache=True, inline="always")
def _worse(value_a: float, index_a: int, value_b: float, index_b: int) -> bool:
    return value_a < value_b or (value_a == value_b and index_a > index_b)


@nb.njit(cache=True)
def sift_worst(values: NDArray[np.float32], indices: NDArray[np.int32], size: int) -> None:
    """Restore a heap whose root is its worst entry (lowest value, then highest index) after the root was replaced."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _worse(
            values[child + 1], indices[child + 1], values[child], indices[child]
        ):
            child += 1
        if not _worse(values[child], indices[child], values[at], indices[at]):
            return
        values[at], values[child] = values[child], values[at]
        indices[at], indices[child] = indices[child], indices[at]
        at = child


@nb.njit(cache=True, parallel=True)
def _keep_best(
    tile: NDArray[np.float32],
    query_key: NDArray[np.int64],
    key: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Of each tile row keep the best columns in indices/values (heaps; entries never filled stay -1, -inf)."""
    k = indices.shape[1]
    for q in nb.prange(tile.shape[0]):
        floor = values[q, 0]
        for j in range(tile.shape[1]):
            value = tile[q, j]
            if value > floor and key[j] != query_key[q]:
                values[q, 0] = value
                indices[q, 0] = j
                sift_worst(values[q], indices[q], k)
                floor = values[q, 0]


def neighbours(
    queries: NDArray[np.float32],
    pool: NDArray[np.float32],
    k: int,
    query_key: NDArray[np.int64] | None = None,
    pool_key: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest pool rows of each query: indices int32 [q, k] and cosines float32 [q, k], best first.

    Both arguments come from one `sketch`. Rows of the pool whose key equals the query's are left out (the record itself and
    its copies). Where fewer than k remain the index is -1 and the cosine 0. Exact; ties go to the lower index; memory is
    one tile of 64 MB beside the result.
    """
    k = max(1, min(k, len(pool)))
    query_key = np.full(len(queries), -1, np.int64) if query_key is None else query_key
    pool_key = np.full(len(pool), -2, np.int64) if pool_key is None else pool_key
    indices = np.full((len(queries), k), -1, np.int32)
    values = np.full((len(queries), k), -np.inf, np.float32)
    step = max(1, (1 << 24) // max(1, len(pool)))
    for a in range(0, len(queries), step):
        b = min(a + step, len(queries))
        tile = queries[a:b] @ pool.T
        _keep_best(tile, query_key[a:b], pool_key, indices[a:b], values[a:b])
        order = np.lexsort((indices[a:b], -values[a:b]))
        indices[a:b] = np.take_along_axis(indices[a:b], order, 1)
        values[a:b] = np.take_along_axis(values[a:b], order, 1)
    return indices, np.where(indices >= 0, values / np.float32(NORM * NORM), np.float32(0))

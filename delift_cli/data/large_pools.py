"""The nearest records of a large pool: candidates by what is cheap to compare, then the nearest of them exactly.

Nearly all of the time of `ngrams.neighbours` goes to common grams, which say least, and to all the dimensions of dense
vectors. Candidates are therefore looked for with each query's rarest grams and the first principal components; what is
found among them has its true similarity. So a few of the nearest may be missed, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ..compiled import jit, threads_for
from .ngrams import BITS, NANOSECONDS, Grams, Neighbours, Points, by_similarity, neighbours_by_each

EXACT = 32_768  # records of a pool in which the nearest are found without candidates
CANDIDATES = 4  # for each of the nearest that is asked for
POSTINGS = 100_000  # occurrences of a query's rarest grams in the pool, at most, unless one gram has more
COMPONENTS = 64  # of dense vectors
SAMPLE = 20_000  # vectors that the components are found from


def hint(records: int) -> str | None:
    """What to say of neighbours among so many records; None where they are exact."""
    if records <= EXACT:
        return None
    return (
        f"the nearest of {records:,} records are found approximately, by their rarest character sequences and the main "
        f"directions of their embeddings (exactly up to {EXACT:,})"
    )


def nearest(
    queries: Grams,
    pool: Grams,
    k: int,
    query_key: NDArray[np.int64],
    pool_key: NDArray[np.int64],
    *,
    points: Points | None = None,
) -> Neighbours:
    """`ngrams.neighbours`, approximate in a pool of more than `EXACT` records. Deterministic."""
    return nearest_by_each([points], queries, pool, k, query_key, pool_key)[0]


def nearest_by_each(
    points: Sequence[Points | None],
    queries: Grams,
    pool: Grams,
    k: int,
    query_key: NDArray[np.int64],
    pool_key: NDArray[np.int64],
) -> list[Neighbours]:
    """`ngrams.neighbours_by_each`, approximate in a pool of more than `EXACT` records. Deterministic."""
    if len(pool) <= EXACT:
        return neighbours_by_each(points, queries, pool, k, query_key, pool_key)
    frequency = np.bincount(pool.ids, minlength=2 << BITS)
    rare = Grams(*_rarest(queries.indptr, queries.ids, queries.weights, frequency, POSTINGS))
    main = [pair and _components(*pair) for pair in points]
    candidates = neighbours_by_each(main, rare, pool, CANDIDATES * k, query_key, pool_key)
    return [_best(queries, pool, k, found, pair) for (found, _), pair in zip(candidates, points, strict=True)]


def _best(queries: Grams, pool: Grams, k: int, found: NDArray[np.int32], points: Points | None) -> Neighbours:
    """The k most similar of the candidates of each query, as the whole vectors have it."""
    asking, among = points or (np.empty((len(queries), 0), np.float32), np.empty((len(pool), 0), np.float32))
    similarity = np.empty(found.shape, np.float32)
    with threads_for(found.size * NANOSECONDS * 100):
        _compare(
            queries.indptr, queries.ids, queries.weights, pool.indptr, pool.ids, pool.weights, asking, among, found,
            similarity, 8 * nb.get_num_threads(),
        )  # fmt: skip
    by_similarity(found, similarity)
    found, similarity = found[:, :k].copy(), similarity[:, :k].copy()
    return found, np.where(found >= 0, similarity, np.float32(0))


@jit()
def _rarest(
    indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    weights: NDArray[np.float32],
    frequency: NDArray[np.int64],
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Of each vector the rarest grams, one at least, as long as they occur `limit` times together."""
    kept = np.zeros(len(ids), np.bool_)
    start = np.zeros_like(indptr)
    for r in range(len(indptr) - 1):
        a, b = indptr[r], indptr[r + 1]
        total = count = 0
        for e in a + np.argsort(frequency[ids[a:b]], kind="mergesort"):
            total += frequency[ids[e]]
            if count and total > limit:
                break
            kept[e] = True
            count += 1
        start[r + 1] = start[r] + count
    return start, ids[kept], weights[kept]


def _components(asking: NDArray[np.float32], among: NDArray[np.float32]) -> Points:
    """Both in the `COMPONENTS` directions in which a sample of `among` is largest."""
    sample = among[np.linspace(0, len(among) - 1, min(SAMPLE, len(among))).astype(np.int64)].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)
    main = directions[:, -COMPONENTS:].astype(np.float32)
    theirs = among @ main
    return (theirs if asking is among else asking @ main), theirs


@jit(fastmath={"reassoc", "contract"})
def _product(one: NDArray[np.float32], other: NDArray[np.float32]) -> np.floating:
    total = np.float32(0)
    for d in range(len(one)):
        total += one[d] * other[d]
    return total


@jit(parallel=True)
def _compare(
    query_indptr: NDArray[np.int64],
    query_ids: NDArray[np.int32],
    query_weights: NDArray[np.float32],
    indptr: NDArray[np.int64],
    ids: NDArray[np.int32],
    weights: NDArray[np.float32],
    asking: NDArray[np.float32],
    among: NDArray[np.float32],
    found: NDArray[np.int32],
    similarity: NDArray[np.float32],
    blocks: int,
) -> None:
    """The similarities of the pool's rows that were found for each query; -inf where there is none (-1)."""
    for block in nb.prange(blocks):
        own = np.zeros(2 << BITS, np.float32)
        for q in range(len(found) * block // blocks, len(found) * (block + 1) // blocks):
            for e in range(query_indptr[q], query_indptr[q + 1]):
                own[query_ids[e]] = query_weights[e]
            for c in range(found.shape[1]):
                j = found[q, c]
                total = np.float32(-np.inf if j < 0 else 0.0)
                if j >= 0:
                    for e in range(indptr[j], indptr[j + 1]):
                        total += own[ids[e]] * weights[e]
                    total += _product(asking[q], among[j])
                similarity[q, c] = total
            for e in range(query_indptr[q], query_indptr[q + 1]):
                own[query_ids[e]] = 0.0

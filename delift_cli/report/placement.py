"""Records placed in the plane so that those that are alike lie near: the two main directions of what is known of them.

Principal components rather than a neighbour embedding (UMAP, t-SNE, PaCMAP): they need NumPy alone, are the same on
every machine and run, take seconds, and distances in the picture mean something. Four directions hold most of what
utilities have in common.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..data.ngrams import Grams

Floats = npt.NDArray[np.float32]
Rows = Callable[[int, int], Floats]  # (start, stop) to rows float32 [stop - start, columns]

SKETCH = 10  # directions that are followed to find the first two
SWEEPS = 4
CHUNK = 1 << 24


def principal_plane(rows: Rows, shape: tuple[int, int]) -> tuple[Floats, float]:
    """The two principal components of rows that are never held as one matrix.

    Block power iteration (Halko, Martinsson and Tropp, 2011) over centred columns, from a fixed start.

    Returns:
        float32 [rows, 2], each axis pointing to where its largest value is; the share of the variance that they hold.
    """
    n, m = shape
    step = max(1, CHUNK // max(1, m))
    parts = [(start, min(start + step, n)) for start in range(0, n, step)]
    mean, squares = np.zeros(m), 0.0
    for part in parts:
        block = rows(*part)
        mean += block.sum(0, dtype=np.float64)
        squares += float(np.square(block, dtype=np.float64).sum())
    mean /= n
    variance = max(squares - n * float((mean**2).sum()), 0.0)
    basis = np.random.default_rng(0).standard_normal((m, min(SKETCH, n, m)))
    scores = np.zeros((n, basis.shape[1]))
    for _ in range(SWEEPS):
        basis = np.linalg.qr(basis)[0]
        grown = np.zeros_like(basis)
        for start, stop in parts:
            block = rows(start, stop)
            scores[start:stop] = block @ basis - mean @ basis
            grown += block.T @ scores[start:stop]
        basis = grown - np.outer(mean, scores.sum(0))
    u, s, _ = np.linalg.svd(scores, full_matrices=False)
    placed = np.zeros((n, 2))
    placed[:, : min(2, len(s))] = (u * s)[:, :2]
    placed *= np.where(placed[np.abs(placed).argmax(0), [0, 1]] < 0, -1, 1)
    share = float((s[:2] ** 2).sum()) / variance if variance > 0 else 0.0
    return placed.astype(np.float32), min(share, 1.0)


def text_points(vectors: Grams, width: int = 128) -> Floats:
    """Sparse text vectors as float32 [records, width] points, their products kept up to chance (random signs)."""
    found, ids = np.unique(vectors.ids, return_inverse=True)
    signs = np.random.default_rng(0).integers(0, 2, (len(found), width), np.int8) * np.int8(2) - np.int8(1)
    points = np.zeros((len(vectors), width), np.float32)
    filled = np.flatnonzero(np.diff(vectors.indptr))
    step = 1 << 18
    ends = vectors.indptr[1:]
    start = 0
    while start < len(filled):
        first = filled[start]
        stop = max(start + 1, int(np.searchsorted(ends[filled], vectors.indptr[first] + step, side="right")))
        some = filled[start:stop]
        a, b = int(vectors.indptr[first]), int(vectors.indptr[some[-1] + 1])
        weighted = signs[ids[a:b]] * vectors.weights[a:b, None]
        points[some] = np.add.reduceat(weighted, vectors.indptr[some] - a, axis=0)
        start = stop
    return points / np.float32(np.sqrt(width))

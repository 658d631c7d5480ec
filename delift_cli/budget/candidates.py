"""Pairs that may improve a target: the unscored ones with the highest estimates, and what each is expected to bring."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ..compiled import jit
from ..data.ngrams import sift_worst
from .measured import ADAPTIVE, NEIGHBOUR


@jit(parallel=True)
def best_unscored(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    base: float,
    target_sd: NDArray[np.float32],
    indptr: NDArray[np.int64],
    scored_examples: NDArray[np.int32],
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    width: int,
    optimism: float,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Of each target the `width` unscored examples with the highest optimistic estimate: example (-1: none), mean, sd.

    Visits every pair once, with memory for one block of targets per thread; `scored_examples` are by target,
    ascending.
    """
    members, n, r = left.shape
    m = right.shape[1]
    size = 64
    out_example = np.full((m, width), -1, np.int32)
    out_score = np.full((m, width), -np.inf, np.float32)
    out_mean = np.zeros((m, width), np.float32)
    out_sd = np.zeros((m, width), np.float32)
    for block in nb.prange((m + size - 1) // size):
        first = block * size
        held = min(size, m - first)
        columns = np.zeros((members, r, size), np.float32)
        for e in range(members):
            for p in range(r):
                for b in range(held):
                    columns[e, p, b] = right[e, first + b, p]
        total = np.empty(size, np.float32)
        square = np.empty(size, np.float32)
        value = np.empty(size, np.float32)
        noise = np.zeros(size, np.float32)
        for b in range(held):
            noise[b] = target_sd[first + b] ** 2
        at = indptr[first : first + held].copy()
        floor = np.full(size, np.inf, np.float32)  # what a value has to be above
        floor[:held] = -np.inf
        for j in range(n):
            total[:] = 0.0
            square[:] = 0.0
            for e in range(members):
                value[:] = 0.0
                for p in range(r):
                    factor = left[e, j, p]
                    for b in range(size):
                        value[b] += factor * columns[e, p, b]
                for b in range(size):
                    total[b] += value[b]
                    square[b] += value[b] * value[b]
            for b in range(size):
                mean = total[b] / members
                variance = max(square[b] / members - mean * mean, np.float32(0)) + noise[b]
                total[b] = mean + np.float32(base)
                square[b] = np.sqrt(variance)
                value[b] = total[b] + np.float32(optimism) * square[b]
            above = 0
            for b in range(size):
                above += value[b] > floor[b]
            if above == 0:  # as nearly always, once the heaps are full
                continue
            for b in range(held):
                if not value[b] > floor[b]:
                    continue
                i = first + b
                while at[b] < indptr[i + 1] and scored_examples[at[b]] < j:
                    at[b] += 1
                scored = at[b] < indptr[i + 1] and scored_examples[at[b]] == j
                if not scored and example_key[j] != target_key[i]:
                    out_score[i, 0] = value[b]
                    out_example[i, 0] = j
                    sift_worst(out_score[i], out_example[i], width)
                    floor[b] = out_score[i, 0]
        for b in range(held):
            i = first + b
            for c in range(width):
                j = out_example[i, c]
                if j < 0:
                    continue
                mean_sum = np.float32(0)
                square_sum = np.float32(0)
                for e in range(members):
                    dot = np.float32(0)
                    for p in range(r):
                        dot += left[e, j, p] * right[e, i, p]
                    mean_sum += dot
                    square_sum += dot * dot
                mean = mean_sum / members
                out_mean[i, c] = mean + np.float32(base)
                out_sd[i, c] = np.sqrt(max(square_sum / members - mean * mean, np.float32(0)) + noise[b])
    return out_example, out_mean, out_sd


@jit()
def nth_best(
    indptr: NDArray[np.int64],
    examples: NDArray[np.int32],
    utility: NDArray[np.float32],
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    nth: int,
) -> NDArray[np.float32]:
    """Each target's nth best scored utility without self-pairs, at least 0."""
    out = np.zeros(len(target_key), np.float32)
    best = np.empty(nth, np.float32)
    for i in range(len(target_key)):
        best[:] = 0.0  # ascending
        for e in range(indptr[i], indptr[i + 1]):
            if utility[e] > best[0] and example_key[examples[e]] != target_key[i]:
                p = 0
                while p + 1 < nth and best[p + 1] < utility[e]:
                    best[p] = best[p + 1]
                    p += 1
                best[p] = utility[e]
        out[i] = best[0]
    return out


@jit()
def expected_improvement(
    mean: NDArray[np.float32], sd: NDArray[np.float32], best: NDArray[np.float32]
) -> NDArray[np.float32]:
    """E[max(0, U - best)] of a normal U."""
    out = np.empty(len(mean), np.float32)
    for e in range(len(mean)):
        s = max(sd[e], 1e-12)
        z = (mean[e] - best[e]) / s
        density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        out[e] = (mean[e] - best[e]) * 0.5 * math.erfc(-z / math.sqrt(2.0)) + s * density
    return out


@jit()
def hits(
    indptr: NDArray[np.int64],
    example: NDArray[np.int32],
    utility: NDArray[np.float32],
    source: NDArray[np.uint8],
    best: NDArray[np.float32],
    nearest: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Pairs and hits, of the farther half of each target's neighbours and of the model's pairs: int64 [2, 2]."""
    out = np.zeros((2, 2), np.int64)
    for i in range(len(indptr) - 1):
        a, b = indptr[i], indptr[i + 1]
        near = 0
        for e in range(a, b):
            near += source[e] == NEIGHBOUR
            if source[e] == ADAPTIVE:
                out[1, 0] += 1
                out[1, 1] += utility[e] > 0 and utility[e] >= best[i]
        passed = 0
        for j in nearest[i]:
            e = a + np.searchsorted(example[a:b], j)
            if j >= 0 and e < b and example[e] == j and source[e] == NEIGHBOUR:
                passed += 1
                if 2 * passed > near:
                    out[0, 0] += 1
                    out[0, 1] += utility[e] > 0 and utility[e] >= best[i]
    return out


@jit()
def with_room(example: NDArray[np.int32], room: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs, taken in this order, are among the first room[j] of their example j."""
    left = room.copy()
    out = np.empty(len(example), np.bool_)
    for e in range(len(example)):
        out[e] = left[example[e]] > 0
        left[example[e]] -= 1
    return out


def contains(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `wanted` are in the ascending `keys`."""
    if len(keys) == 0:
        return np.zeros(len(wanted), bool)
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.asarray(keys[at] == wanted)

"""Kernels read row by row: how a row is loaded, which targets it may cover, and what all rows come to by column.

Compiled code that takes and returns arrays. A sweep over all rows runs at memory bandwidth; its sums are added up
in runs of rows that do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numba.extending import overload
from numpy.typing import ArrayLike

from ..compiled import jit, threads_for
from .kernel import FASTMATH, RUNS, Array, DenseKernel, FactoredKernel, Kernel, as_float

LANES = 256
TILE = 512  # targets whose estimates are computed at a time
TOGETHER = 8  # rows computed at a time: what is read of the factors serves them all

# What `aggregate` finds for each target over some rows.
BEST, SUM, POWERS, LOGS, TOP = range(5)


@jit()
def _estimate(left: Array, right: Array, begin: int, row: Array) -> None:
    """A tile of a row of estimates, from target `begin` on; it stays in the fastest cache while directions go by."""
    end = min(row.size, begin + TILE)
    tile, rank = row[begin:end], right.shape[0]
    tile[:] = np.float32(0.0)
    fours = rank - rank % 4
    for q in range(0, fours, 4):
        a, b, c, d = right[q, begin:end], right[q + 1, begin:end], right[q + 2, begin:end], right[q + 3, begin:end]
        for i in range(tile.size):
            tile[i] += left[q] * a[i] + left[q + 1] * b[i] + left[q + 2] * c[i] + left[q + 3] * d[i]
    for q in range(fours, rank):
        a = right[q, begin:end]
        for i in range(tile.size):
            tile[i] += left[q] * a[i]


@jit()
def _put_measured(kernel: FactoredKernel, j: int, row: Array) -> None:
    for p in range(kernel.indptr[j], kernel.indptr[j + 1]):
        row[kernel.columns[p]] = kernel.values[p]


def load_row(kernel: Any, j: Any, scratch: Any) -> Any:
    """Row j before the transform: a view of the matrix, or computed in `scratch` (float32[m])."""
    raise NotImplementedError("compiled code only")


@overload(load_row)
def _load_row(kernel, j, scratch):  # type: ignore[no-untyped-def]
    if kernel.instance_class is DenseKernel:
        return lambda kernel, j, scratch: kernel.matrix[j]

    def estimate_then_measured(kernel, j, scratch):  # type: ignore[no-untyped-def]
        for begin in range(0, scratch.size, TILE):
            _estimate(kernel.left[j], kernel.right, begin, scratch)
        _put_measured(kernel, j, scratch)
        return scratch

    return estimate_then_measured


def load_rows(kernel: Any, rows: Any, scratch: Any) -> Any:
    """At most TOGETHER rows for `loaded_row` to give: the numbers of `load_row`, to the bit. scratch: [TOGETHER, m]."""
    raise NotImplementedError("compiled code only")


@overload(load_rows)
def _load_rows(kernel, rows, scratch):  # type: ignore[no-untyped-def]
    if kernel.instance_class is DenseKernel:
        return lambda kernel, rows, scratch: None

    def tile_by_tile(kernel, rows, scratch):  # type: ignore[no-untyped-def]
        for begin in range(0, scratch.shape[1], TILE):
            for r in range(rows.size):
                _estimate(kernel.left[rows[r]], kernel.right, begin, scratch[r])
        for r in range(rows.size):
            _put_measured(kernel, rows[r], scratch[r])

    return tile_by_tile


def loaded_row(kernel: Any, j: Any, scratch: Any) -> Any:
    """Row j before the transform, which `load_rows` has put into `scratch` (float32[m])."""
    raise NotImplementedError("compiled code only")


@overload(loaded_row)
def _loaded_row(kernel, j, scratch):  # type: ignore[no-untyped-def]
    if kernel.instance_class is DenseKernel:
        return lambda kernel, j, scratch: kernel.matrix[j]
    return lambda kernel, j, scratch: scratch


def new_scratch(kernel: Kernel, threads: int) -> Array:
    """float32[threads, TOGETHER, m]: room for each thread to compute rows in; dense kernels need none."""
    return np.empty((threads, TOGETHER, kernel.offset.size if isinstance(kernel, FactoredKernel) else 0), np.float32)


def scattered(kernel: Any) -> Any:
    """Is a row nothing but its measured pairs? The others' similarity is then 0 or less, and they gain nothing."""
    raise NotImplementedError("compiled code only")


@overload(scattered)
def _scattered(kernel):  # type: ignore[no-untyped-def]
    if kernel.instance_class is DenseKernel:
        return lambda kernel: False
    return lambda kernel: kernel.right.shape[0] == 0 and kernel.offset.size > 0 and kernel.offset.max() <= 0.0


def measured_pairs(kernel: Any, j: Any) -> Any:
    """Targets (int32) and raw values (float32) of row j's measured pairs."""
    raise NotImplementedError("compiled code only")


@overload(measured_pairs)
def _measured_pairs(kernel, j):  # type: ignore[no-untyped-def]
    if kernel.instance_class is DenseKernel:
        return lambda kernel, j: (np.empty(0, np.int32), kernel.matrix[j])

    def of_row(kernel, j):  # type: ignore[no-untyped-def]
        a, b = kernel.indptr[j], kernel.indptr[j + 1]
        return kernel.columns[a:b], kernel.values[a:b]

    return of_row


@jit()
def may_cover(kernel: Kernel, j: int, target: int) -> bool:
    """Is this target none of those that are excluded for example j?"""
    g = kernel.group[j]
    if g >= 0:
        low, end = kernel.group_start[g], kernel.group_start[g + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if kernel.group_targets[middle] < target:
                low = middle + 1
            else:
                high = middle
        return low == end or kernel.group_targets[low] != target
    return True


def row_nanoseconds(kernel: Kernel) -> float:
    """What a row takes one thread, roughly: by its entries and, of a factored kernel, the rank of the estimates."""
    rank = kernel.right.shape[0] if isinstance(kernel, FactoredKernel) else 0
    return kernel.offset.size * (0.4 + 0.1 * rank)


def gain_nanoseconds(kernel: Kernel) -> float:
    """What a gain takes one thread, roughly: by its row, or by the pairs of a scattered one."""
    if isinstance(kernel, FactoredKernel) and kernel.right.shape[0] == 0:
        return 10.0 * kernel.columns.size / max(1, kernel.group.size)
    return row_nanoseconds(kernel)


# Excluded targets cut a row into segments. Inner loops run over whole segments and never test for exclusion.


@jit()
def segment_count(kernel: Kernel, j: int) -> int:
    g = kernel.group[j]
    return 1 if g < 0 else kernel.group_start[g + 1] - kernel.group_start[g] + 1


@jit()
def segment(kernel: Kernel, j: int, q: int) -> tuple[int, int]:
    """The q-th run [begin, end) of targets that example j may cover."""
    g, m = kernel.group[j], kernel.offset.size
    if g < 0:
        return 0, m
    first, last = kernel.group_start[g], kernel.group_start[g + 1]
    begin = kernel.group_targets[first + q - 1] + 1 if q > 0 else 0
    end = kernel.group_targets[first + q] if first + q < last else m
    return begin, end


# ---------------------------------------------------------------------------------------------- over all rows


# LLVM vectorises sums and elementwise maxima, but not the maximum of a run of numbers: hence maxima by column,
# and by lane where a row's own maximum is wanted.


@jit(parallel=True, fastmath=FASTMATH)
def _aggregate(kernel: Kernel, rows: Array, what: int, parameter: float, partial: Array, scratch: Array) -> None:
    slope = kernel.slope
    for run in prange(RUNS):
        last = (run + 1) * rows.size // RUNS
        for first in range(run * rows.size // RUNS, last, TOGETHER):
            some = rows[first : min(first + TOGETHER, last)]
            load_rows(kernel, some, scratch[run])
            for r in range(some.size):
                j = some[r]
                raw = loaded_row(kernel, j, scratch[run, r])
                for part in range(segment_count(kernel, j)):
                    begin, end = segment(kernel, j, part)
                    x, offset, out = raw[begin:end], kernel.offset[begin:end], partial[run, 0, begin:end]
                    if what == BEST:
                        for i in range(out.size):
                            out[i] = max(out[i], slope * as_float(x[i]) + offset[i])
                    elif what == SUM:
                        for i in range(out.size):
                            out[i] += max(0.0, slope * as_float(x[i]) + offset[i])
                    elif what == POWERS:
                        for i in range(out.size):
                            out[i] += max(0.0, slope * as_float(x[i]) + offset[i]) ** parameter
                    elif what == LOGS:
                        for i in range(out.size):
                            s = min(max(0.0, slope * as_float(x[i]) + offset[i]), 1.0)
                            out[i] -= parameter * np.log1p(-s)
                    else:
                        for i in range(out.size):
                            s = slope * as_float(x[i]) + offset[i]
                            for rank in range(partial.shape[1]):
                                better = max(partial[run, rank, begin + i], s)
                                s = min(partial[run, rank, begin + i], s)
                                partial[run, rank, begin + i] = better


def aggregate(
    kernel: Kernel, what: int, rows: ArrayLike | None = None, *, parameter: float = 1.0, depth: int = 1
) -> Array:
    """float64[depth, m]: for each target, over the similarities s of the examples `rows` (default: all),

    their BEST, their SUM, the sum of their POWERS s**parameter, the sum of their LOGS -parameter ln(1 - s) (s above
    1 counts as 1), or the TOP `depth` of them in falling order. Negative similarities count as zero.
    """
    partial = np.zeros((RUNS, depth, kernel.offset.size))
    chosen = _rows(kernel, rows)
    with threads_for(chosen.size * depth * row_nanoseconds(kernel)):
        _aggregate(kernel, chosen, what, parameter, partial, new_scratch(kernel, RUNS))
    if what == BEST:
        return np.asarray(partial.max(axis=0))
    if what == TOP:
        return merged_top(partial.reshape(RUNS * depth, -1), depth)
    return np.asarray(partial.sum(axis=0))


def merged_top(values: Array, depth: int) -> Array:
    """float64[depth, m]: the largest of each column of values [r, m], in falling order; r >= depth."""
    return -np.sort(np.partition(-values, depth - 1, axis=0)[:depth], axis=0)


def column_sums(kernel: Kernel, rows: ArrayLike | None = None) -> Array:
    """float64[m]: for each target the sum of its positive similarities over the examples `rows` (default: all)."""
    return np.asarray(aggregate(kernel, SUM, rows)[0])


def column_maxima(kernel: Kernel, rows: ArrayLike | None = None) -> Array:
    """float64[m]: for each target its best similarity over the examples `rows` (default: all), at least 0."""
    return np.asarray(aggregate(kernel, BEST, rows)[0])


@jit(parallel=True, fastmath=FASTMATH)
def _row_maxima(kernel: Kernel, scratch: Array) -> Array:
    n = kernel.group.size
    best = np.zeros(n)
    for run in prange(RUNS):
        lanes = np.empty(LANES)
        for j in range(run * n // RUNS, (run + 1) * n // RUNS):
            raw = load_row(kernel, j, scratch[run, 0])
            lanes[:] = 0.0
            for q in range(segment_count(kernel, j)):
                begin, end = segment(kernel, j, q)
                for first in range(begin, end, LANES):
                    last = min(end, first + LANES)
                    x, offset = raw[first:last], kernel.offset[first:last]
                    for i in range(x.size):
                        lanes[i] = max(lanes[i], kernel.slope * as_float(x[i]) + offset[i])
            best[j] = lanes.max()
    return best


def row_maxima(kernel: Kernel) -> Array:
    """float64[n]: for each example its best similarity over the targets, at least 0."""
    with threads_for(kernel.group.size * row_nanoseconds(kernel)):
        best: Array = _row_maxima(kernel, new_scratch(kernel, RUNS))
    return best


@jit()
def _similarities(kernel: Kernel, rows: Array, out: Array, scratch: Array) -> None:
    out[:] = 0.0
    for position in range(rows.size):
        j = rows[position]
        raw = load_row(kernel, j, scratch[0, 0])
        for q in range(segment_count(kernel, j)):
            begin, end = segment(kernel, j, q)
            for i in range(begin, end):
                out[position, i] = max(kernel.floor, kernel.slope * as_float(raw[i]) + kernel.offset[i])


def similarities(kernel: Kernel, rows: ArrayLike | None = None) -> Array:
    """float64[len(rows), m]: the similarities themselves (default: all rows). To look at, not to select with."""
    chosen = _rows(kernel, rows)
    out = np.empty((chosen.size, kernel.offset.size))
    _similarities(kernel, chosen, out, new_scratch(kernel, 1))
    return out


def _rows(kernel: Kernel, rows: ArrayLike | None) -> Array:
    if rows is None:
        return np.arange(kernel.group.size, dtype=np.int64)
    return np.atleast_1d(np.ascontiguousarray(rows, dtype=np.int64))

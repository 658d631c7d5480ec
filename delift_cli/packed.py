"""Rows reduced to the entries that can still gain.

Under a maximum, an entry s[j, i] matters only while it exceeds what target i has. After t choices that holds for
about one entry in t, and for fewer with every further choice. So once few enough are left, two sweeps copy them
into compressed rows, and from then on the selector reads these and the matrix no more. Reading a row for its gain
also drops the entries that have fallen behind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from delift_cli.kernel import FASTMATH, Array, Kernel, as_float, load_row, segment, segment_count
from delift_cli.objectives import CAPPED, Coverage, _segment_gain

# An entry takes 12 bytes: 72 MB at most. Denser than one in SPARSE, dense rows are as fast.
MOST_ENTRIES = 6_000_000
SPARSE = 48
SAMPLED_ROWS = 64
BLOCK = 32


class Packed(NamedTuple):
    """Example j's entries are target[start[j]:start[j] + length[j]] and value[...]; all empty: not packed yet."""

    start: Array  # int64[n]
    length: Array  # int64[n]
    target: Array  # int32
    value: Array  # float64, cut at the cap


@njit(cache=True)
def not_packed() -> Packed:
    nothing = np.empty(0, np.int64)
    return Packed(nothing, nothing, np.empty(0, np.int32), np.empty(0))


@njit(cache=True)
def pack(kernel: Kernel, coverage: Coverage, out: Array, scratch: Array) -> Packed:
    """The rows of the examples that are not `out`, packed, or `not_packed()` while there is too much of them.

    Only for the curves MAXIMUM and CAPPED.
    """
    n, m = out.size, coverage.state.size
    most = min(MOST_ENTRIES, n * m // SPARSE)
    length = np.zeros(n, np.int64)
    step = max(1, n // SAMPLED_ROWS)
    _count(kernel, coverage, out, step, length, scratch)
    if length.sum() * step > most:
        return not_packed()
    if step > 1:
        _count(kernel, coverage, out, 1, length, scratch)
    start = np.zeros(n, np.int64)
    for j in range(1, n):
        start[j] = start[j - 1] + length[j - 1]
    entries = start[n - 1] + length[n - 1]
    if entries > most:
        return not_packed()
    packed = Packed(start, length, np.empty(entries, np.int32), np.empty(entries))
    _copy(kernel, coverage, start, length, packed.target, packed.value, scratch)
    return packed


@njit(cache=True)
def packed_gain(packed: Packed, coverage: Coverage, j: int) -> float:
    """What example j would add now. Entries that no longer gain are dropped from its row."""
    begin, gain = packed.start[j], coverage.bonus[j]
    kept = begin
    for p in range(begin, begin + packed.length[j]):
        more = packed.value[p] - coverage.state[packed.target[p]]
        if more > 0.0:
            gain += more
            packed.target[kept], packed.value[kept] = packed.target[p], packed.value[p]
            kept += 1
    packed.length[j] = kept - begin
    return gain


@njit(cache=True)
def packed_cover(packed: Packed, coverage: Coverage, j: int) -> None:
    """Choose example j: update the coverage in place."""
    for p in range(packed.start[j], packed.start[j] + packed.length[j]):
        i = packed.target[p]
        coverage.state[i] = max(coverage.state[i], packed.value[p])


@njit(cache=True, parallel=True, fastmath=FASTMATH)
def _count(kernel: Kernel, coverage: Coverage, out: Array, step: int, length: Array, scratch: Array) -> None:
    """length[j]: the entries of row j that can still gain, for every step-th row."""
    threads, rows = scratch.shape[0], (out.size + step - 1) // step
    for thread in prange(threads):
        for position in range(thread * rows // threads, (thread + 1) * rows // threads):
            j = position * step
            entries = 0
            if not out[j]:
                raw = load_row(kernel, j, scratch[thread])
                for q in range(segment_count(kernel, j)):
                    begin, end = segment(kernel, j, q)
                    x, offset, state = raw[begin:end], kernel.offset[begin:end], coverage.state[begin:end]
                    if coverage.curve == CAPPED:
                        cap = coverage.cap[begin:end]
                        for i in range(x.size):
                            entries += min(kernel.slope * as_float(x[i]) + offset[i], cap[i]) > state[i]
                    else:
                        for i in range(x.size):
                            entries += kernel.slope * as_float(x[i]) + offset[i] > state[i]
            length[j] = entries


@njit(cache=True, parallel=True, fastmath=FASTMATH)
def _copy(
    kernel: Kernel,
    coverage: Coverage,
    start: Array,
    length: Array,
    target: Array,
    value: Array,
    scratch: Array,
) -> None:
    # (Numba loses writes to arrays inside a tuple from a parallel loop: hence the four arrays.)
    threads, rows = scratch.shape[0], start.size
    for thread in prange(threads):
        for j in range(thread * rows // threads, (thread + 1) * rows // threads):
            if length[j] == 0:
                continue
            raw = load_row(kernel, j, scratch[thread])
            p = start[j]
            cap = coverage.cap
            for q in range(segment_count(kernel, j)):
                begin, end = segment(kernel, j, q)
                for first in range(begin, end, BLOCK):
                    last = min(end, first + BLOCK)
                    if coverage.curve == CAPPED:
                        cap = coverage.cap[first:last]
                    x, offset, state = raw[first:last], kernel.offset[first:last], coverage.state[first:last]
                    # Most blocks have nothing: this looks at them at full speed.
                    if _segment_gain(coverage.curve, x, kernel.slope, offset, state, cap) > 0.0:
                        for i in range(x.size):
                            s = kernel.slope * as_float(x[i]) + offset[i]
                            if coverage.curve == CAPPED:
                                s = min(s, cap[i])
                            if s > state[i]:
                                target[p], value[p] = first + i, s
                                p += 1

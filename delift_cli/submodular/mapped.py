"""Rows of a matrix that is mapped from a file, read without filling memory with their neighbours.

Left to itself the system reads on around every page that is asked for, and keeps what it has read: of a file larger
than memory it then reads several times as much as is wanted, and drops what is needed.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN_BYTES = 1 << 22  # read at a time


def copied(matrix: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """matrix[rows] in memory of its own; rows int64, ascending, matrix in C order."""
    out = np.empty((rows.size, *matrix.shape[1:]), matrix.dtype)
    longest = max(1, RUN_BYTES // max(1, matrix.strides[0]))
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, rows.size)
    mapping, done = _mapping(matrix), 0
    for end in ends.tolist():
        while done < end:
            after = min(end, done + longest)
            run = matrix[rows[done] : rows[done] + after - done]
            _advise(mapping, run, "MADV_WILLNEED")
            out[done:after] = run
            _advise(mapping, run, "MADV_DONTNEED")
            done = after
    return out


def _mapping(array: Any) -> mmap.mmap | None:
    """The file's mapping that holds an array, if one does."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return array if isinstance(array, mmap.mmap) else None


def _advise(mapping: mmap.mmap | None, run: NDArray[Any], advice: str) -> None:
    """Tell the system what becomes of the pages of a run, where it listens."""
    option = getattr(mmap, advice, None)
    if mapping is None or option is None or not run.size:
        return
    start = run.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    first = start - start % mmap.PAGESIZE
    mapping.madvise(option, first, start + run.nbytes - first)

"""Compressed rows: the entries of all rows one behind the other, and where each row's begin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


def row_starts(counts: NDArray[Any]) -> Places:
    """int64 [n + 1]: where each of n rows with so many entries begins; the last is where all of them end."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def by_row(rows: NDArray[np.integer], n: int) -> tuple[Places, Places]:
    """The order that puts entries of these rows (of n) row by row, else as they came; and where each row begins."""
    return np.argsort(rows, kind="stable"), row_starts(np.bincount(rows, minlength=n))


def rows_taken(starts: Places, rows: NDArray[Any]) -> tuple[Places, Places]:
    """Some of the rows, in this order: where each begins among those alone, and where their entries stand in all."""
    counts = np.diff(starts)[rows]
    own = row_starts(counts)
    return own, np.repeat(starts[rows] - own[:-1], counts) + np.arange(own[-1])

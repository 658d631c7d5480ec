"""Compressed rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from delift_cli.compressed import by_row, row_starts, rows_taken


def test_entries_row_by_row() -> None:
    rows = np.array([2, 0, 2, 4, 0], np.int32)
    order, starts = by_row(rows, 6)
    assert [order[a:b].tolist() for a, b in pairwise(starts)] == [
        [1, 4],
        [],
        [0, 2],
        [],
        [3],
        [],
    ]
    taken = np.array([4, 1, 0, 2])
    own, places = rows_taken(starts, taken)
    found = [order[places][a:b].tolist() for a, b in pairwise(own)]
    assert found == [[3], [], [1, 4], [0, 2]]


def test_starts_are_wide_enough_for_all_pairs() -> None:
    starts = row_starts(np.full(3, 2**31 - 1, np.int32))
    assert (starts.dtype, starts[-1]) == (np.int64, 3 * (2**31 - 1))
    assert row_starts(np.empty(0, np.int64)).tolist() == [0]

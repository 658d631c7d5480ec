"""Records whose texts are nearly the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .ngrams import grams, neighbours
from .record import Record, plain

NEIGHBOURS = 32  # a record has more near-duplicates than this only where whole clusters are copies of each other


def near_duplicates(
    records: Sequence[Record], similarity: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Pairs of records at least this similar (cosine of their n-grams), as compressed rows.

    Returns:
        indptr int64 [n + 1], indices int32: record j's near-duplicates are indices[indptr[j]:indptr[j + 1]].
    """
    vectors = grams(
        [plain(record.prompt_text) for record in records],
        [plain(record.response_text) for record in records],
    )
    n = len(records)
    own = np.arange(n)
    near, cosines = neighbours(vectors, vectors, min(NEIGHBOURS, n - 1), own, own)
    close = (cosines >= similarity - 1e-6) & (near >= 0)
    return np.concatenate([[0], np.cumsum(close.sum(axis=1))]).astype(np.int64), near[close].astype(np.int32)

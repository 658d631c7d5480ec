"""A proxy: what a smaller model measured of the same records, for planning and estimating a larger one's utilities.

Its utilities come in as factors, left[j] · right[i] for example j and target i, standardised over all pairs. They
propose pairs (the examples that help a target most by the proxy), and the estimates regress on them: how much they
count is found on pairs of the larger model that were drawn at random, so that a proxy that misleads counts for little.
A small model chooses data for a large one in several papers (Superfiltering, arXiv 2402.00530).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..amount import counted
from ..cache.sparse import SparseCache, open_cache
from ..data.record import Record
from ..errors import InputError
from ..progress import Say, silent
from .estimate import Factors
from .partial_block import Partial

RANK = 32  # of a proxy whose pairs are all measured
OVERSAMPLED, POWER = 8, 2  # of the randomised singular value decomposition (Halko et al. 2011, algorithm 4.4)
BLOCK = 1024  # rows at a time
SAME = 1e-10  # of the mean square: a variance that is no more than rounding


def read_proxy(path: Path, examples: Sequence[Record], targets: Sequence[Record] | None, say: Say = silent) -> Factors:
    """What a proxy's cache says of these records.

    Args:
        path: a cache that another model has scored, all pairs or some.
        examples, targets: the records of the run; targets None: a pool against itself. They are found in the cache by
            what the model sees of them. Of a record that is not there the proxy says nothing, which is said.

    Returns:
        left float32 [n, r], right float32 [m, r]; over the pairs that the proxy knows their products have mean 0 and
        standard deviation 1 (0 where it says the same of all).

    Raises:
        InputError: there is no such cache, it is not complete, is damaged, or holds none of the examples or targets.
    """
    cache = open_cache(path)
    cache.check_rows()
    if isinstance(cache, SparseCache):
        theirs = None if cache.square else cache.targets().records
        left, right = Partial(cache, cache.examples().records, theirs).estimate.factors(caution=0.0)
    else:
        if not cache.complete:
            raise InputError(f"--proxy {path} is not complete: finish it with delift score, or give it a --budget")
        left, right = factors_of(cache.base_distance, cache.distance)
    left, right = standardised(left, right)
    if not right.any():
        say(f"--proxy {path} says the same of all pairs: it counts for nothing")
    sides = []
    for of, ours, known, factors in (
        ("examples", examples, cache.examples().records, left),
        ("targets", targets or examples, cache.targets().records, right),
    ):
        place = {record.conversation: at for at, record in reversed([*enumerate(known)])}
        at = np.array([place.get(record.conversation, -1) for record in ours])
        if (at < 0).all():
            raise InputError(f"--proxy {path} holds none of the {of}: score the same records with the smaller model")
        if (at < 0).any():
            say(f"--proxy {path} lacks {counted(int((at < 0).sum()), 'record')} of the {of}: of them it says nothing")
        sides.append(np.where((at < 0)[:, None], np.float32(0), factors[at]))
    return sides[0], sides[1]


def described_proxy(path: Path) -> dict[str, Any]:
    """What the manifest of a cache keeps of its proxy."""
    cache = open_cache(path)
    return {"name": cache.manifest["model"]["name"], "sha256": cache.manifest["model"]["sha256"]}


def factors_of(base: NDArray[Any], distance: NDArray[Any]) -> Factors:
    """Rank-RANK factors of all of a proxy's utilities: distances [m] without and [n, m] behind an example."""
    n, m = distance.shape
    base = base.astype(np.float32)
    rank = min(RANK, n, m)
    width = min(rank + OVERSAMPLED, n, m)
    rows = [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    mean = sum(float((base - distance[part]).sum(dtype=np.float64)) for part in rows) / (n * m)

    def centred(part: slice) -> NDArray[np.float32]:
        return np.asarray(base - distance[part] - np.float32(mean), np.float32)

    sketch = np.random.default_rng(0).standard_normal((m, width), np.float32)
    for _ in range(POWER):
        seen = np.concatenate([centred(part) @ sketch for part in rows])
        seen = np.linalg.qr(seen)[0]
        sketch = np.asarray(sum(centred(part).T @ seen[part] for part in rows), np.float32)
        sketch = np.linalg.qr(sketch)[0]
    basis = np.linalg.qr(np.concatenate([centred(part) @ sketch for part in rows]))[0]
    small = np.asarray(sum(basis[part].T @ centred(part) for part in rows))
    left, values, right = np.linalg.svd(small, full_matrices=False)
    root = np.sqrt(values[:rank])
    return np.asarray((basis @ left)[:, :rank] * root, np.float32), np.asarray(right[:rank].T * root, np.float32)


def standardised(left: NDArray[np.float32], right: NDArray[np.float32]) -> Factors:
    """The same with products of mean 0 and standard deviation 1 over all pairs; a column is added for the mean.

    Products that are all the same, as estimates are that nothing speaks for, say nothing: then they are 0.
    """
    pairs = len(left) * len(right)
    mean = float(left.sum(axis=0, dtype=np.float64) @ right.sum(axis=0, dtype=np.float64)) / pairs
    square = float((_gram(left) * _gram(right)).sum()) / pairs
    variance = square - mean**2
    if variance <= SAME * square:
        return np.zeros((len(left), 1), np.float32), np.zeros((len(right), 1), np.float32)
    sd = variance**0.5
    with_one = np.column_stack([left, np.ones(len(left))])
    with_mean = np.column_stack([right, np.full(len(right), -mean)]) / sd
    return np.ascontiguousarray(with_one, np.float32), np.ascontiguousarray(with_mean, np.float32)


def _gram(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("jp,jq->pq", factors, factors, dtype=np.float64))

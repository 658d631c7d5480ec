"""Ways to choose that `delift select` does not have: of other tools, and of who knows what is tested on.

What every record does for the first held-out ones is kept in samples/ (see `tests.evidence.datamodel`); the choices
that go by it have seen what they are tested on, and the report shows the held-out records that they have not seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.evidence import datamodel
from tests.evidence.harder import CHANGED
from tests.evidence.matrices import Matrix, load_matrix
from tests.evidence.pools import Pool

SEEN = 50  # first held-out records, before which every record of a pool was measured

Floats = npt.NDArray[np.float64]


def by_curve(matrix: Matrix, curve: str, k: int) -> list[str]:
    """Greedy on a curve ("pmi: best") over the held-out records that were seen."""
    return [matrix.examples[place] for place in datamodel.greedy_by(matrix, curve, k)]


def by_influence(matrix: Matrix, k: int) -> list[str]:
    """The records that help a validation set most on average: what data-juicer's in-context influence filter keeps."""
    order = np.argsort(-matrix.pmi.mean(axis=1), kind="stable")
    return [matrix.examples[place] for place in order[:k]]


def by_states(pool: Floats, targets: Floats, k: int) -> list[int]:
    """Places of the nearest to each target in turn (RDS+ of Ivison et al., arXiv 2503.01807, section 3).

    Args:
        pool: float64 [n, width], hidden states of each record.
        targets: float64 [m, width].
    """
    unit, aims = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (pool, targets))
    nearest = np.argsort(-(aims @ unit.T), axis=1, kind="stable")  # [m, n]
    chosen: dict[int, None] = {}
    at = np.zeros(len(aims), np.int64)
    while len(chosen) < min(k, len(pool)):
        for target, ordered in enumerate(nearest):
            while ordered[at[target]] in chosen:
                at[target] += 1
            chosen[int(ordered[at[target]])] = None
            if len(chosen) == min(k, len(pool)):
                break
    return list(chosen)


def by_tokens(lengths: dict[str, int], like: Sequence[str], seed: int) -> list[str]:
    """Records by chance, as many as have the tokens of the records `like`, within half a record."""
    wanted = sum(lengths[name] for name in like)
    chosen: list[str] = []
    order = random.Random(f"tokens {seed}")
    for name in order.sample(list(lengths), len(lengths)):
        if wanted < lengths[name] / 2:
            break
        chosen.append(name)
        wanted -= lengths[name]
    return chosen


def originals(pool: Pool) -> list[str]:
    """The records that are as they were found: neither spoiled nor copied with other words."""
    return [record["id"] for record in pool.records("pool") if CHANGED not in record["id"]]


def seen(pool: Pool) -> Matrix:
    """What the pool's records do for the first held-out ones."""
    return load_matrix(datamodel.kept(pool.name))

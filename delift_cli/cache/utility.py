"""What examples add for targets: how much nearer the model is to a response, or how much likelier it is to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..submodular.kernel import Utility
from .dense import Cache
from .sparse import SparseCache
from .stored import Stored
from .stored_round import Pairs

Floats = npt.NDArray[np.float32]


def block_utilities(cache: Cache, utility: Utility, example: Any, target: Any = slice(None)) -> Floats:
    """float32: of the pairs that distance[example, target] of a cache of all pairs names; NaN where not scored."""
    return _utility(cache, utility, cache, (example, target), target)


def pair_utilities(cache: SparseCache, utility: Utility, pairs: Pairs) -> Floats:
    """float32 [pairs]."""
    return _utility(pairs, utility, cache, slice(None), pairs.target)


def _utility(measured: Cache | Pairs, utility: Utility, cache: Stored, at: Any, target: Any) -> Floats:
    """`euclidean`: by how much the distance falls; `pmi`: by how much the mean log-probability rises."""
    if utility == "euclidean":
        return np.asarray(cache.base_distance[target] - measured.distance[at], np.float32)
    return np.asarray(measured.logprob[at] - cache.base_logprob[target], np.float32)

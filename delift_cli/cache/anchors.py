"""What a cache of anchors says of them: how many records each of its targets stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from .stored import Stored


def weights_of(cache: Stored) -> NDArray[np.float64] | None:
    """float64[m], what each target of a cache of anchors stands for; None where its targets are not anchors.

    Raises:
        DamagedError: the manifest does not give each target a weight.
    """
    said = cache.manifest.get("anchors")
    if said is None:
        return None
    weights = said.get("weights") if isinstance(said, dict) else None
    numbers = isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights)
    array = np.array(weights if numbers else [], np.float64)
    if array.shape != (cache.shape[1],) or not np.isfinite(array).all() or (array < 0).any():
        raise DamagedError(cache.path, "manifest.json", "does not give each anchor a weight")
    return array

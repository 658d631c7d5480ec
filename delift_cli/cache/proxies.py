"""What a cache that was begun with a proxy keeps of it: factors of another model's utilities, beside its arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from .sidecar import keep, kept_file, read_kept
from .stored import Stored

SIDES = ("examples", "targets")
KEPT = "proxy: factors"


def keep_proxy(cache: Stored, factors: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    """Keep a proxy's factors beside the cache, where `kept_proxy` finds them: float32 [n, r] and [m, r]."""
    for side, array in zip(SIDES, factors, strict=True):
        keep(kept_file(cache, side, KEPT), array)


def kept_proxy(cache: Stored) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The factors of the proxy that a cache was begun with; None where it was begun without one.

    Raises:
        RunError: they are gone or damaged, or do not cover records that came later.
    """
    if cache.manifest.get("proxy") is None:
        return None
    found = [
        read_kept(kept_file(cache, side, KEPT), (count, -1), np.float32)
        for side, count in zip(SIDES, cache.shape, strict=True)
    ]
    if found[0] is None or found[1] is None or found[0].shape[1] != found[1].shape[1]:
        raise RunError(
            f"{cache.path} was begun with a proxy, and what that says of its records is not kept there (any more): "
            "run delift score again with --proxy"
        )
    return found[0], found[1]

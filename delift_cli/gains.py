"""First gains of a cache and an objective, kept beside the cache so that the next selection skips the first sweep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from .cache import Cache


def gains_file(home: Cache, caches: Sequence[Cache], **choices: Any) -> Path:
    """Where the first gains for these choices are kept: named by all that they depend on."""
    content = [
        [cache.manifest["examples"]["sha256"], cache.manifest["targets"]["sha256"], cache.rows.tobytes().hex()]
        for cache in caches
    ]
    digest = hashlib.sha256(orjson.dumps([content, choices], option=orjson.OPT_SORT_KEYS)).hexdigest()
    return home.path / "gains" / f"{digest[:24]}.npy"


def read_gains(file: Path, n: int) -> npt.NDArray[np.float64] | None:
    """float64 [n], or None where they are not kept or not readable."""
    with suppress(OSError, ValueError):
        gains: npt.NDArray[np.float64] = np.load(file)
        if gains.shape == (n,) and gains.dtype == np.float64:
            return gains
    return None


def keep_gains(file: Path, gains: npt.NDArray[np.float64]) -> None:
    """Keep them; a cache that cannot be written to is no reason to fail."""
    draft = file.with_name(f"{file.stem}.{os.getpid()}.npy")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        np.save(draft, gains)
        draft.replace(file)

"""First gains of a cache and an objective, kept beside the cache so that the next selection skips the first sweep."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from .cache import Cache
from .sparse_cache import SparseCache


def gains_file(home: Cache | SparseCache, caches: Sequence[Cache | SparseCache], **choices: Any) -> Path:
    """Where the first gains for these choices are kept: named by all that they depend on."""
    digest = hashlib.sha256(orjson.dumps(choices, option=orjson.OPT_SORT_KEYS))
    for cache in caches:
        digest.update(f"{cache.manifest['examples']['sha256']} {cache.manifest['targets']['sha256']}".encode())
        for content in (cache.state, cache.base_distance.tobytes(), cache.base_logprob.tobytes()):
            digest.update(content)
    return home.path / "gains" / f"{digest.hexdigest()[:24]}.bin"


def read_gains(file: Path, n: int) -> npt.NDArray[np.float64] | None:
    """float64 [n], or None where they are not kept or do not match their checksum."""
    with suppress(OSError):
        kept = file.read_bytes()
        if len(kept) == 4 + 8 * n and kept[:4] == _checksum(kept[4:]):
            return np.frombuffer(kept[4:], np.float64).copy()
    return None


def keep_gains(file: Path, gains: npt.NDArray[np.float64]) -> None:
    """Keep them; a cache that cannot be written to is no reason to fail."""
    draft, data = file.with_suffix(f".{os.getpid()}"), gains.astype(np.float64).tobytes()
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        draft.write_bytes(_checksum(data) + data)
        draft.replace(file)


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")

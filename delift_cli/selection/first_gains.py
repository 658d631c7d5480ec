"""First gains of a cache and an objective, kept beside the cache so that the next selection skips the first sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ..cache.dense import Cache
from ..cache.sidecar import GAINS
from ..cache.sparse import SparseCache
from ..version import sources_digest


def gains_file(home: Cache | SparseCache, caches: Sequence[Cache | SparseCache], **choices: Any) -> Path:
    """Where the first gains for these choices are kept: named by all that they depend on, the code that made them
    too."""
    digest = hashlib.sha256(orjson.dumps({**choices, "code": sources_digest()}, option=orjson.OPT_SORT_KEYS))
    for cache in caches:
        digest.update(f"{cache.manifest['examples']['sha256']} {cache.manifest['targets']['sha256']}".encode())
        for content in (cache.state, cache.base_distance.tobytes(), cache.base_logprob.tobytes()):
            digest.update(content)
    return home.path / GAINS / f"{digest.hexdigest()[:24]}.bin"

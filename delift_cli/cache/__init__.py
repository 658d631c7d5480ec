"""Rows in, files out, and back: a cache directory of memory-mapped arrays with a manifest that says what they are.

`dense` holds all pairs, `sparse` some of them in rounds; `stored` what both have. Every byte that delift writes beside
its output is written here.
"""

from .dense import Cache, CacheWriter
from .figures import utilities
from .manifest import read_manifest
from .sparse import SparseCache, SparseWriter, layout_of, open_cache
from .stored import Stored

__all__ = [
    "Cache",
    "CacheWriter",
    "SparseCache",
    "SparseWriter",
    "Stored",
    "layout_of",
    "open_cache",
    "read_manifest",
    "utilities",
]

"""Caches and subsets in, one HTML file out: what the scores say about the data."""

from .comparison import compare
from .document import Document
from .html import drawing_library, render
from .pool import Pool, Wanted
from .sections import document

__all__ = ["Document", "Pool", "Wanted", "compare", "document", "drawing_library", "render"]

"""Which delift this is, and which llama-cpp-python it is tested with."""

import functools
import hashlib
from pathlib import Path

__version__ = "0.2.0"
TESTED = ("0.3.23", "0.3.36")  # the oldest and the newest version of llama-cpp-python


def sources_digest(*words: bytes) -> str:
    """Of this package's code, all of it or the files in which one of these words stands: what other code made and kept
    is not this one's."""
    digest = hashlib.sha256()
    for name, source in _sources():
        if not words or any(word in source for word in words):
            digest.update(name.encode() + b"\0" + source + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _sources() -> list[tuple[str, bytes]]:
    package = Path(__file__).parent
    return [(str(file.relative_to(package)), file.read_bytes()) for file in sorted(package.rglob("*.py"))]

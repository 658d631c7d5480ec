"""Which delift this is, and which llama-cpp-python it is tested with."""

import functools
import hashlib
from pathlib import Path

__version__ = "0.2.0"
TESTED = ("0.3.23", "0.3.36")  # the oldest and the newest version of llama-cpp-python


@functools.cache
def sources_digest() -> str:
    """Of all of this package's code: figures that other code made and kept are not this one's."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

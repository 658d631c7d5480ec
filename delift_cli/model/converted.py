"""Converted copies of a model's weights: the same numbers in a type that this machine multiplies faster.

Copies live in the user's cache directory under the original's SHA-256. The least recently used ones go when they
take more room than `LIMIT_VARIABLE` allows.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from ..errors import InputError, RunError
from .gguf import ModelFile
from .llama import quantize

DIRECTORY_VARIABLE = "DELIFT_CACHE"
LIMIT_VARIABLE = "DELIFT_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


def cache_directory() -> Path:
    """Where converted models are kept: $DELIFT_CACHE, else delift/ in the user's cache directory."""
    own = os.environ.get(DIRECTORY_VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "delift"


def kept_copy(file: ModelFile, sha256: str, weights: str) -> Path:
    """Where the copy of a model in this type is, or would be."""
    return cache_directory() / f"{file.path.stem}-{sha256[:16]}-{weights}.gguf"


def kept_models() -> list[Path]:
    """The converted models, the least recently used first."""
    return sorted(cache_directory().glob("*.gguf"), key=lambda path: path.stat().st_mtime)


def converted(file: ModelFile, sha256: str, weights: str, *, threads: int) -> ModelFile:
    """The model with its weights in another type (or `as-is`), converted on first use and kept.

    Raises:
        RunError: the conversion failed or there is no room for it.
    """
    if weights == "as-is":
        return file
    kept = kept_copy(file, sha256, weights)
    if kept.exists():
        now = time.time_ns()  # finer than what touch() writes, for what is used in quick succession
        os.utime(kept, ns=(now, now))
        return ModelFile(kept)
    draft = kept.with_suffix(f".{os.getpid()}.part")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        needed = int(file.parameters() * BITS[weights] / 8 * 1.05)
        _make_room(needed)
        if shutil.disk_usage(kept.parent).free < needed:
            raise RunError(
                f"no space for the {weights} copy of {file.path.name} ({needed / 1e9:.1f} GB) in {kept.parent}; "
                f"set ${DIRECTORY_VARIABLE} to another place or use --weights as-is"
            )
        quantize(file.path, draft, weights, threads=threads)
        draft.rename(kept)
    except OSError as error:
        raise RunError(f"cannot keep the converted model in {kept.parent}: {error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return ModelFile(kept)


def _make_room(needed: int) -> None:
    """Remove the least recently used copies until `needed` more bytes stay within the limit."""
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        raise InputError(f"${LIMIT_VARIABLE} is a number of gigabytes, not {text!r}") from None
    kept = kept_models()
    size = sum(path.stat().st_size for path in kept)
    for path in kept:
        if size + needed <= limit:
            return
        size -= path.stat().st_size
        path.unlink()


def clear_cache() -> None:
    """Remove every converted model and what was remembered of this machine's speed."""
    for path in [*kept_models(), *cache_directory().glob("*.part"), cache_directory() / "tuning.json"]:
        path.unlink(missing_ok=True)

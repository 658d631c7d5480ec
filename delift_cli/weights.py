"""Converted copies of a model's weights: the same numbers in a type that this machine multiplies faster."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import RunError
from .model import ModelFile, quantize


def cache_directory() -> Path:
    """Where converted models are kept: $DELIFT_CACHE, else delift/ in the user's cache directory."""
    own = os.environ.get("DELIFT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "delift"


def converted(file: ModelFile, sha256: str, weights: str, *, threads: int) -> ModelFile:
    """The model with its weights as another type (or `as-is`), converted on first use and kept.

    Copies are named after the original's SHA-256, so that another model never meets them.

    Raises:
        RunError: the conversion failed or there is no room for it.
    """
    if weights == "as-is":
        return file
    kept = cache_directory() / f"{file.path.stem}-{sha256[:16]}-{weights}.gguf"
    if not kept.exists():
        draft = kept.with_suffix(f".{os.getpid()}.part")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            quantize(file.path, draft, weights, threads=threads)
            draft.rename(kept)
        except OSError as error:
            raise RunError(f"cannot keep the converted model in {kept.parent}: {error}") from None
        finally:
            draft.unlink(missing_ok=True)
    return ModelFile(kept)

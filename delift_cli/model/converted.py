"""Converted copies of a model's weights: the same numbers in a type that this machine multiplies faster.

Copies live in the user's cache directory under the original's SHA-256, each with a note of its own size and digest
beside it, without which it is not believed. The least recently used ones go when they take more room than
`LIMIT_VARIABLE` allows.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError, RunError
from ..machine.kept import DIRECTORY_VARIABLE, cache_directory, file_sha256, is_own, locked, write_own
from .apart import convert_apart
from .gguf import ModelFile
from .llama import VERSION

LIMIT_VARIABLE = "DELIFT_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
DRAFT, ARRIVING = ".part", ".arriving"  # endings of what is being converted, and of what another machine is sending
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


def kept_copy(file: ModelFile, sha256: str, weights: str) -> Path:
    """Where the copy of a model in this type is, or would be."""
    return cache_directory() / f"{file.path.stem}-{sha256[:16]}-{weights}.gguf"


def kept_models() -> list[Path]:
    """The converted models, the least recently used first."""
    return sorted(cache_directory().glob("*.gguf"), key=lambda path: path.stat().st_mtime)


def unfinished() -> list[Path]:
    """What conversions and transfers that were killed left behind, or are at work on."""
    return sorted(path for ending in (DRAFT, ARRIVING) for path in cache_directory().glob(f"*{ending}"))


def converted(
    file: ModelFile,
    sha256: str,
    weights: str,
    *,
    threads: int,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ModelFile:
    """The model with its weights in another type (or `as-is`), converted on first use and kept.

    Args:
        sha256: of the model itself.
        seconds: the longest that a conversion may take.
        say: is told when a kept copy is not what was written, and when another process is waited for.

    Raises:
        RunError: the conversion failed, took too long, or there is no room for it.
    """
    if weights == "as-is":
        return file
    kept = kept_copy(file, sha256, weights)
    if _believed(kept, sha256, weights):
        return _used(kept)
    with locked("converting", waiting=lambda: say("waiting for another delift that converts a model")) as alone:
        if _believed(kept, sha256, weights):  # by the one that was waited for
            return _used(kept)
        if kept.exists() or kept.is_symlink():
            say(f"{kept} is not the copy that delift wrote there; converting again")
        if alone:
            for left in cache_directory().glob(f"*{DRAFT}"):  # whoever wrote it does not hold the lock: it is dead
                with suppress(OSError):
                    left.unlink()
        _convert(file, sha256, weights, kept, threads, seconds)
    return ModelFile(kept)


def remove(kept: Path) -> None:
    """Remove a copy and the note beside it."""
    for path in (kept, _note(kept)):
        path.unlink(missing_ok=True)


def _used(kept: Path) -> ModelFile:
    now = time.time_ns()  # finer than what touch() writes, for what is used in quick succession
    with suppress(OSError):  # root's, or on a disk that takes nothing
        os.utime(kept, ns=(now, now))
    return ModelFile(kept)


def _convert(file: ModelFile, sha256: str, weights: str, kept: Path, threads: int, seconds: float | None) -> None:
    draft = kept.with_suffix(f".{os.getpid()}{DRAFT}")
    elsewhere = f"set ${DIRECTORY_VARIABLE} to another place or use --weights as-is"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        remove(kept)
        draft.touch()
        needed = int(file.parameters() * BITS[weights] / 8 * 1.05)
        _make_room(needed)
        if shutil.disk_usage(kept.parent).free < needed:
            raise RunError(
                f"no space for the {weights} copy of {file.path.name} ({needed / 1e9:.1f} GB) in {kept.parent}; "
                f"{elsewhere}"
            )
        convert_apart(file.path, draft, weights, threads=threads, seconds=seconds)
        draft.chmod(0o644)
        write_own(_note(kept), orjson.dumps(_described(draft, sha256, weights), option=orjson.OPT_INDENT_2))
        draft.replace(kept)
    except OSError as error:
        raise RunError(f"cannot keep a converted model in {kept.parent}: {error.strerror}; {elsewhere}") from None
    finally:
        with suppress(OSError):
            draft.unlink()


def _note(kept: Path) -> Path:
    return kept.with_suffix(".gguf.json")


def _described(copy: Path, original: str, weights: str) -> dict[str, Any]:
    return {
        "of": original,
        "weights": weights,
        "bytes": copy.stat().st_size,
        "sha256": file_sha256(copy),
        "llama_cpp_python": VERSION,
    }


def _believed(kept: Path, original: str, weights: str) -> bool:
    """Is this the very file that was written as this copy, and nobody else's to change?"""
    if not is_own(kept) or not is_own(_note(kept)):
        return False
    try:
        note = orjson.loads(_note(kept).read_bytes())
        if not isinstance(note, dict) or (note.get("of"), note.get("weights")) != (original, weights):
            return False
        return kept.stat().st_size == note.get("bytes") and file_sha256(kept) == note.get("sha256")
    except (OSError, orjson.JSONDecodeError):
        return False


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
        remove(path)


def clear_cache() -> None:
    """Remove every converted model and what was remembered of this machine and its files."""
    for path in kept_models():
        remove(path)
    for pattern in (f"*{DRAFT}", f".*{DRAFT}", f"*{ARRIVING}", "*.json", "*.lock"):
        for path in cache_directory().glob(pattern):
            path.unlink(missing_ok=True)

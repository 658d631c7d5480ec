"""Arrays kept beside a cache, so that what they took is not done twice: a checksum, then the values.

What the model says of each record by itself is NaN for the records that it was not asked about yet.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..errors import DamagedError
from .files import Content, create_file, is_folder, read_bytes, read_file
from .manifest import adapters_of
from .stored import Stored

GAINS, BASELINES = "gains", "baselines"  # folders
# What is kept there, by the name that its file is made from.
WITHOUT_PROMPT = "logprob without prompt"
EMBEDDINGS = "embeddings: last, mean"
# Of what is kept of each record: the lengths before the records' own, and behind it.
_OF_RECORDS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {WITHOUT_PROMPT: ((), ()), EMBEDDINGS: ((2,), (-1,))}


def kept_file(cache: Stored, role: str, what: str) -> Path:
    """Where something that the model says of a cache's `examples` or `targets` is kept: named by all it depends on."""
    return _file_of(cache.path, cache.manifest, role, what)


def _file_of(cache: Path, manifest: dict[str, Any], role: str, what: str) -> Path:
    depends = [
        what,
        manifest[role]["sha256"],
        manifest["fields"],
        manifest["model"]["sha256"],
        manifest["weights"]["type"],
        manifest["template"],
        manifest["settings"],
    ]
    if adapters := adapters_of(manifest):
        depends.append(adapters)
    digest = hashlib.sha256(orjson.dumps(depends, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return cache / BASELINES / f"{digest[:24]}.bin"


def read_kept(
    file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, *, whole: bool = True
) -> npt.NDArray[Any] | None:
    """The array of this shape (one length may be -1) and type, or None where it is not kept or is damaged.

    `whole`: None as well where NaN says that a part of it is still to come.
    """
    if not is_folder(file.parent):
        return None
    with suppress(OSError):
        kept = read_file(file)
        row = math.prod(length for length in shape if length >= 0) * np.dtype(dtype).itemsize
        size = len(kept) - 4
        fits = size == row if -1 not in shape else size > 0 and size % row == 0
        if fits and _intact(kept):
            array = np.frombuffer(kept, dtype, offset=4).reshape(shape).copy()
            return array if np.isfinite(array).all() or not (whole or np.isinf(array).any()) else None
    return None


def keep(file: Path, array: npt.NDArray[Any]) -> None:
    """Keep it; a cache that cannot be written to is no reason to fail. It may be large: no copy of it is made."""
    draft = file.with_name(f".{file.stem}.{os.getpid()}.draft")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    with suppress(OSError):
        with suppress(FileExistsError):
            os.mkdir(file.parent)
        if not is_folder(file.parent):
            return  # a link leads out of the cache
        with suppress(FileNotFoundError):
            os.unlink(draft)
        try:
            create_file(draft, Content(4 + len(data), [_checksum(data), data]))
            os.replace(draft, file)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft)


def carry_over(present: Stored, manifest: dict[str, Any], there: dict[str, npt.NDArray[np.int64]]) -> list[Path]:
    """Keep what is kept of the records of a cache under the names that it has in the cache with another `manifest`.

    Args:
        there: by role, which record of the cache each one of the other is, -1 where it is new.

    Returns:
        The files that the other has no more use for.
    """
    left = []
    for role, old in there.items():
        if role == "targets" and present.square:
            continue  # the same files
        for what, (before, behind) in _OF_RECORDS.items():
            file, other = (_file_of(present.path, each, role, what) for each in (present.manifest, manifest))
            if file == other:
                continue
            kept = read_kept(file, (*before, present.manifest[role]["count"], *behind), np.float32, whole=False)
            if kept is None:
                continue
            of_record = np.moveaxis(kept, len(before), 0)
            moved = np.full((len(old), *of_record.shape[1:]), np.nan, np.float32)
            moved[old >= 0] = of_record[old[old >= 0]]
            keep(other, np.moveaxis(moved, 0, len(before)))
            left += [file] * other.exists()
    return left


def kept_arrays(cache: Path) -> list[Path]:
    """Every array that is kept beside a cache."""
    folders = [cache / name for name in (GAINS, BASELINES) if is_folder(cache / name)]
    return sorted(file for folder in folders for file in folder.glob("*.bin"))


def damaged_kept(cache: Path) -> list[Path]:
    """Those that do not match their checksums, or are gone; RunError where this process may not read them."""
    return [file for file in kept_arrays(cache) if not _sound(file)]


def _sound(file: Path) -> bool:
    try:
        return _intact(read_bytes(file))
    except DamagedError:
        return False


def _intact(kept: bytes) -> bool:
    """Does the content of a kept file match its checksum?"""
    return len(kept) > 4 and kept[:4] == _checksum(memoryview(kept)[4:])


def _checksum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")

"""What is damaged in a cache made good: its files such that they can be opened, and what is to be computed again.

What does not match its checksum stays as it is, and is named so, until what was computed again takes its place: who is
killed meanwhile leaves a cache that says that it is damaged. What cannot be computed (the records, the manifest) is
left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .dense import ROW, CacheWriter
from .files import Content, disk, read_bytes, replace_file
from .growing import tidy
from .lock import take_lock
from .manifest import BASES, DENSE, TOKENS, VERSION, read_manifest, write_manifest
from .npy import array_content, header, open_array
from .sidecar import damaged_kept
from .sparse import SparseWriter
from .stored import Stored
from .stored_round import ROUND, round_names
from .verification import (
    Damage,
    Expected,
    damaged_arrays,
    damaged_round,
    expected_arrays,
    expected_results,
    to_be_whole,
    unsound,
)

COUNTS = {"rows": ("distance", "logprob"), "base_crc": BASES}  # what says that these are measured


class Subject(NamedTuple):
    """A cache that is to be repaired, before anything of it but the manifest can be opened."""

    path: Path
    manifest: dict[str, Any]


@dataclass
class Lost:
    """What is to be computed again.

    Attributes:
        rows: examples of a cache of all pairs. pairs: (round from 0, example) of one of some pairs.
        targets: whose measurements without an example are gone. tokens: names of arrays of token counts.
    """

    rows: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def needs_model(self) -> bool:
        """Is there anything to compute?"""
        return bool(self.rows or self.pairs or self.targets or self.tokens)


def repairable(path: Path, damages: Sequence[Damage]) -> Subject:
    """The cache at `path` with these damages.

    Raises:
        InputError: something of it cannot be computed again.
    """
    lost = [f"{damage.file}: {damage.what}" for damage in damages if damage.repair is None]
    if lost:
        raise InputError(
            f"{path}: {'; '.join(lost)}: that cannot be computed again; score the records into a new directory"
        )
    manifest = read_manifest(path)
    if manifest["version"] != VERSION:
        raise InputError(f"{path} is of an older format, which the next delift score makes anew; run it first")
    return Subject(path, manifest)


@contextmanager
def repaired(path: Path) -> Iterator[tuple[CacheWriter | SparseWriter, Lost]]:
    """A `repairable` cache opened for scoring, all of its files made such that they can be; and what is to be scored.

    Raises:
        RunError: another process writes to the cache, or the disk is full.
    """
    lock = take_lock(path)
    try:
        with disk(path):
            tidy(path, read_manifest(path))
            manifest = read_manifest(path)
            _mend_files(path, manifest)
        writer: CacheWriter | SparseWriter
        if manifest["layout"] == DENSE:
            writer = CacheWriter(path, lock)
        else:
            writer = SparseWriter(path, lock)
            writer.concludes = False
    except BaseException:
        lock.close()
        raise
    with writer:
        lost = _lost(writer)
        yield writer, lost
        if isinstance(writer, CacheWriter) and "known" in writer.damaged_shared():
            _drop_known(writer)


def write_tokens(cache: Stored, name: str, counts: Sequence[int]) -> None:
    """Put token counts that were made again in their place."""
    array = np.asarray(counts, np.int32)
    with disk(cache.path):
        replace_file(cache.folder / f"{name}.npy", array_content(array))
    setattr(cache, name, array)


def _mend_files(path: Path, manifest: dict[str, Any]) -> None:
    """Make every file one that can be opened. What it holds is checked after that."""
    folder = path / manifest["files"]
    arrays = expected_arrays(manifest)
    _salvage(folder, arrays)
    if manifest["layout"] == DENSE:
        _mark(folder, manifest)
    else:
        shape = manifest["examples"]["count"], manifest["targets"]["count"]
        whole = 0
        for name in round_names(folder):
            there = folder / name
            damage = damaged_round(there, manifest)
            if any(wrong.file == name for wrong in damage):
                os.rename(there, folder / f".{name}")  # what is called so is removed
                continue
            if damage:
                _salvage(there, expected_results(there, shape, VERSION))
                _mark(there, manifest)
            if f"{name}/ended" in [wrong.file for wrong in damage]:
                os.unlink(there / "ended")
            whole += 1
            if name != f"round-{whole}":
                os.rename(there, folder / f"round-{whole}")
    for kept in damaged_kept(path):
        os.unlink(kept)
    tidy(path, manifest)


def _salvage(folder: Path, arrays: Mapping[str, Expected]) -> None:
    """Make arrays that can be opened of what is left of those that cannot.

    Counts come first, while it still shows which of the arrays that they count are damaged too.
    """
    broken = {Path(damage.file).stem for damage in damaged_arrays(folder, arrays)}
    for name in sorted(broken, key=lambda name: name not in COUNTS):
        try:
            left = read_bytes(folder / f"{name}.npy")
        except InputError:
            left = b""
        whole = _salvaged(arrays[name], left)
        if name in COUNTS:
            others = {other: arrays[other] for other in COUNTS[name] if other not in broken}
            whole = _counted_anew(whole, arrays[name], _most(folder, arrays, name), folder, others)
        replace_file(folder / f"{name}.npy", Content.of(whole))


def _salvaged(array: Expected, data: bytes) -> bytes:
    """A whole file from what is left of one: behind the header what there is, then nothing."""
    head, size = header(array.shape, array.dtype), int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize
    left = data[len(head) : len(head) + size]
    whole = len(left) - len(left) % array.dtype.itemsize
    missing = (size - whole) // array.dtype.itemsize
    empty = np.zeros(missing, array.dtype)
    if array.dtype.names is None:
        empty[:] = array.nothing
    return head + left[:whole] + empty.tobytes()


def _most(folder: Path, arrays: Mapping[str, Expected], name: str) -> npt.NDArray[np.int64]:
    """int64: what each of the counts called `name` comes to when all is there."""
    if ROUND.fullmatch(folder.name):
        return np.diff(open_array(folder / "indptr.npy", (arrays[name].shape[0] + 1,), np.int64))
    each = arrays["distance"].shape[-1] if name == "rows" else 1
    return np.full(arrays[name].shape, each, np.int64)


def _counted_anew(
    whole: bytes, array: Expected, most: npt.NDArray[np.int64], folder: Path, others: Mapping[str, Expected]
) -> bytes:
    """A file of counts in which all that is there, by the arrays that can be opened (`others`), counts with a checksum
    that does not match, unless it has one: so it is measured again."""
    head = len(header(array.shape, array.dtype))
    counts = np.frombuffer(whole, array.dtype, offset=head).copy()
    some = np.flatnonzero(most)
    starts, there = (np.cumsum(most) - most)[some], most > 0
    for name, other in others.items():
        values = open_array(folder / f"{name}.npy", other.shape, other.dtype).reshape(-1)
        there[some] &= np.logical_and.reduceat(np.isfinite(values), starts)
    first, second = array.dtype.names or ()
    again = there & ((counts[first] < most) | (counts[second] == 0))
    counts[first][again], counts[second][again] = most[again], 1
    return whole[:head] + counts.tobytes()


def _mark(folder: Path, manifest: dict[str, Any]) -> None:
    """Make counts of what there is not such that their checksums do not match, so that they are forgotten."""
    wrong = unsound(folder, manifest)
    if wrong.any():
        rows = np.array(open_array(folder / "rows.npy", wrong.shape, ROW))
        rows[wrong] = 0, 1
        replace_file(folder / "rows.npy", array_content(rows))


def _lost(writer: CacheWriter | SparseWriter) -> Lost:
    """What does not match its checksum."""
    lost = Lost(tokens=[name for name in writer.damaged_shared() if name in TOKENS])
    lost.targets = np.flatnonzero(writer.damaged_bases(BASES[0]) | writer.damaged_bases(BASES[1])).tolist()
    if isinstance(writer, CacheWriter):
        rows = {*writer.damaged_rows()}
        if "known" in writer.damaged_shared():
            rows |= {row for row, done in enumerate(writer.rows["done"].tolist()) if 0 < done < writer.shape[1]}
        lost.rows = sorted(rows)
    else:
        for number, part in enumerate(writer.rounds):
            again = {*part.damaged_examples(), *(part.todo.tolist() if to_be_whole(writer, part) else ())}
            lost.pairs += [(number, example) for example in sorted(again)]
    return lost


def _drop_known(writer: CacheWriter) -> None:
    """A cache whose rows are complete or empty need not say which targets the others have."""
    if not np.isin(writer.rows["done"], (0, writer.shape[1])).all():
        return
    del writer.manifest["checksums"]["known"]
    with disk(writer.path):
        write_manifest(writer.path, writer.manifest)
        os.unlink(writer.folder / "known.npy")

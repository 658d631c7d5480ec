"""Every byte of a cache against its checksum: all that is damaged by name, and what can be mended is made so.

What does not match its checksum stays as it is, and is named so, until what was computed again takes its place: who is
killed meanwhile leaves a cache that says that it is damaged. What cannot be computed (the records, the manifest) is
named and left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..amount import parse_budget
from ..errors import DamagedError, InputError
from .dense import ROW, Cache, CacheWriter
from .files import Content, disk, header, is_folder, open_array, read_bytes, replace_file, take_lock
from .growing import tidy
from .manifest import BASE_CRC, BASES, DENSE, TOKENS, VERSION, read_manifest, write_manifest
from .sidecar import intact, kept_arrays
from .sparse import SparseCache, SparseWriter, open_cache
from .stored import Stored
from .stored_round import StoredRound

_FLOAT = np.dtype(np.float32)
COUNTS = {"rows": ("distance", "logprob"), "base_crc": BASES}  # what says that these are measured
_ROUND = re.compile(r"round-[1-9]\d{0,8}")
_IS_REMOVED, _ROUND_IS_REMOVED = "it is removed", "the round is removed: which pairs it had cannot be told"
_MOVES_UP = "the later ones take its place"
_MISMATCH = "it does not match its checksum"


class Damage(NamedTuple):
    """What is wrong with a file of a cache, and what `--repair` does about it; None: nothing can be done."""

    file: str
    what: str
    repair: str | None

    @property
    def needs_model(self) -> bool:
        """Is something to be computed for it?"""
        return self.repair not in (_IS_REMOVED, _ROUND_IS_REMOVED, _MOVES_UP)


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
        return bool(self.rows or self.pairs or self.targets or self.tokens)


class _Array(NamedTuple):
    """What an array of a cache must be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nothing: float | int = 0

    def salvaged(self, data: bytes) -> bytes:
        """A whole file from what is left of one: behind the header what there is, then nothing."""
        head, size = header(self.shape, self.dtype), int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        left = data[len(head) : len(head) + size]
        whole = len(left) - len(left) % self.dtype.itemsize
        missing = (size - whole) // self.dtype.itemsize
        empty = (
            np.full(missing, self.nothing, self.dtype) if self.dtype.names is None else np.zeros(missing, self.dtype)
        )
        return head + left[:whole] + empty.tobytes()


_COUNTS = Damage("rows.npy", "it counts what there is not", "the rows are scored again")


def examine(path: Path) -> list[Damage]:
    """All that is wrong with the cache at `path`; of one without a manifest nothing else can be told.

    Raises:
        InputError: there is no cache.
        RunError: this process may not read all of it.
    """
    try:
        manifest = read_manifest(path)
    except DamagedError as error:
        what = str(error).split("manifest.json", 1)[-1].split("; score")[0]
        return [Damage("manifest.json", what.lstrip(": "), None)]
    folder = path / manifest["files"]
    if not is_folder(folder):
        return [Damage(folder.name, "it is missing", None)]
    found = [*_records(folder, manifest)]
    unread = any(damage.what != _MISMATCH for damage in found)
    broken = [*_arrays(folder, _expected(manifest))]
    if manifest["layout"] != DENSE:
        for place, (name, there) in enumerate(_round_names(folder), start=1):
            if name != f"round-{place}":
                broken.append(Damage(f"round-{place}", "it is missing", _MOVES_UP))
                break
            broken += _round(there, manifest)
    elif not broken and _unsound(folder, manifest).any():
        broken.append(_COUNTS)
    found += broken
    if not broken and not unread:
        cache = SparseCache(path) if manifest["layout"] != DENSE else Cache(path)
        found += _shared(cache)
        found += _rows(cache) if isinstance(cache, Cache) else _pairs(cache)
    for kept in kept_arrays(path):
        if not _intact(kept):
            found.append(Damage(f"{kept.parent.name}/{kept.name}", _MISMATCH, _IS_REMOVED))
    return found


def unfinished(path: Path) -> str | None:
    """What a sound cache has not scored yet; None where it has all that was asked for."""
    cache = open_cache(path)
    if cache.complete:
        return None
    if isinstance(cache, SparseCache):
        return f"{cache.pairs_done:,} of {cache.planned:,} planned pairs are scored"
    return f"{int((cache.rows['done'] == cache.shape[1]).sum()):,} of {cache.shape[0]:,} rows are scored"


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
        replace_file(cache.folder / f"{name}.npy", Content.of_array(array))
    setattr(cache, name, array)


# ---- what is wrong


def _expected(manifest: dict[str, Any]) -> dict[str, _Array]:
    n, m = manifest["examples"]["count"], manifest["targets"]["count"]
    arrays = {name: _Array((m,), _FLOAT, np.nan) for name in BASES}
    arrays |= {name: _Array((size,), np.dtype(np.int32)) for name, size in zip(TOKENS, (n, m), strict=True)}
    if manifest["version"] == VERSION:
        arrays["base_crc"] = _Array((m,), BASE_CRC)
    if manifest["layout"] == DENSE:
        arrays["rows"] = _Array((n,), ROW)
        arrays |= {name: _Array((n, m), _FLOAT, np.nan) for name in ("distance", "logprob")}
        if "known" in manifest.get("checksums", {}):
            arrays["known"] = _Array((n, -(-m // 8)), np.dtype(np.uint8))
    return arrays


def _arrays(folder: Path, arrays: dict[str, _Array], repair: str = "what is left of it is checked") -> Iterator[Damage]:
    for name, array in arrays.items():
        try:
            open_array(folder / f"{name}.npy", array.shape, array.dtype)
        except InputError as error:
            yield Damage(_shown(folder, f"{name}.npy"), str(error).split(f"{name}.npy", 1)[-1].lstrip(": "), repair)


def _records(folder: Path, manifest: dict[str, Any]) -> Iterator[Damage]:
    roles = ("examples",) if manifest["targets"]["same_as_examples"] else ("examples", "targets")
    for role in roles:
        for name, key in ((f"{role}.jsonl", "sha256"), (f"{role}.ids.json", "ids")):
            try:
                data = read_bytes(folder / name)
            except DamagedError as error:
                yield Damage(name, str(error).split(f"{name}: ", 1)[-1], None)
                continue
            if key in manifest[role] and hashlib.sha256(data).hexdigest() != manifest[role][key]:
                yield Damage(name, _MISMATCH, None)


def _intact(kept: Path) -> bool:
    try:
        return intact(read_bytes(kept))
    except DamagedError:
        return False


def _round_names(folder: Path) -> list[tuple[str, Path]]:
    names = [name for name in os.listdir(folder) if _ROUND.fullmatch(name) and is_folder(folder / name)]
    return [(name, folder / name) for name in sorted(names, key=lambda name: int(name[6:]))]


def _round(folder: Path, manifest: dict[str, Any]) -> list[Damage]:
    shape = manifest["examples"]["count"], manifest["targets"]["count"]
    try:
        part = StoredRound(folder, shape, manifest["version"])
        damaged = part.damaged_plan()
        what = f"{damaged[0]}.npy does not match its checksum" if damaged else ""
    except InputError as error:
        expected = _results(folder, shape, manifest["version"])
        if expected:
            results = [*_arrays(folder, expected)]
            return results or [_COUNTS._replace(file=f"{folder.name}/rows.npy")]
        damaged, what = ["plan"], str(error).split("damaged: ", 1)[-1].split("; see delift")[0]
    if damaged:
        return [Damage(folder.name, what, _ROUND_IS_REMOVED)]
    try:
        _ = part.ended
    except InputError:
        return [Damage(f"{folder.name}/ended", "it does not hold what was written", _IS_REMOVED)]
    return []


def _unsound(folder: Path, manifest: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [example]: does rows.npy count what a row of the cache or round at `folder` cannot have?"""
    n, m = manifest["examples"]["count"], manifest["targets"]["count"]
    least, most, only = 0, np.full(n, m), False
    if _ROUND.fullmatch(folder.name):
        most, only = np.diff(StoredRound(folder, (n, m), manifest["version"], results=False).indptr), True
    done = open_array(folder / "rows.npy", (len(most),), ROW)["done"]
    return np.asarray((done != 0) & (done != most) if only else (done < least) | (done > most))


def _results(folder: Path, shape: tuple[int, int], version: int) -> dict[str, _Array]:
    """What the arrays of a round's results must be; none where its plan cannot be told."""
    try:
        planned = StoredRound(folder, shape, version, results=False)
    except InputError:
        return {}
    count = _Array((len(planned),), _FLOAT, np.nan)
    return {"distance": count, "logprob": count, "rows": _Array((planned.shape[0],), ROW)}


def _shared(cache: Stored) -> Iterator[Damage]:
    for name in cache.damaged_shared():
        if name in BASES:
            targets = np.flatnonzero(cache.damaged_bases(name))
            what = f"{len(targets):,} targets do not match their checksums or have none, the first is {targets[0]}"
            yield Damage(f"{name}.npy", what, "they are measured again")
        elif name in TOKENS:
            yield Damage(f"{name}.npy", _MISMATCH, "tokens are counted again")
        else:
            yield Damage(f"{name}.npy", _MISMATCH, "rows that are not complete are scored again")


def _rows(cache: Cache) -> Iterator[Damage]:
    rows = [*cache.damaged_rows()]
    if rows:
        what = f"{len(rows):,} rows do not match their checksums, the first is {rows[0]}"
        yield Damage("distance.npy, logprob.npy", what, "they are scored again")


def _whole(cache: SparseCache, part: StoredRound) -> bool:
    """Is a round to have all of its pairs? Not while it may still be gone on with, nor where its time was up."""
    return part is not cache.rounds[-1] or (part.ended and parse_budget(part.asked.budget).seconds is None)


def _pairs(cache: SparseCache) -> Iterator[Damage]:
    for part in cache.rounds:
        examples = part.damaged_examples()
        if examples:
            what = f"the pairs of {len(examples):,} examples do not match their checksums, the first is {examples[0]}"
            yield Damage(part.path.name, what, "they are scored again")
        elif _whole(cache, part) and len(part.todo):
            yield Damage(
                part.path.name, f"{len(part) - part.pairs_done:,} of its pairs are lost", "they are scored again"
            )


def _shown(folder: Path, name: str) -> str:
    return f"{folder.name}/{name}" if _ROUND.fullmatch(folder.name) else name


# ---- mending


def _mend_files(path: Path, manifest: dict[str, Any]) -> None:
    """Make every file one that can be opened. What it holds is checked after that."""
    folder = path / manifest["files"]
    arrays = _expected(manifest)
    _salvage(folder, arrays)
    if manifest["layout"] == DENSE:
        _mark(folder, manifest)
    else:
        shape = manifest["examples"]["count"], manifest["targets"]["count"]
        kept = 0
        for name, there in _round_names(folder):
            damage = _round(there, manifest)
            if any(wrong.file == name for wrong in damage):
                os.rename(there, folder / f".{name}")  # what is called so is removed
                continue
            if damage:
                _salvage(there, _results(there, shape, VERSION))
                _mark(there, manifest)
            if f"{name}/ended" in [wrong.file for wrong in damage]:
                os.unlink(there / "ended")
            kept += 1
            if name != f"round-{kept}":
                os.rename(there, folder / f"round-{kept}")
    for damaged in kept_arrays(path):
        if not _intact(damaged):
            os.unlink(damaged)
    tidy(path, manifest)


def _salvage(folder: Path, arrays: dict[str, _Array]) -> None:
    """Make arrays that can be opened of what is left of those that cannot.

    Counts come first, while it still shows which of the arrays that they count are damaged too.
    """
    broken = {Path(damage.file).stem for damage in _arrays(folder, arrays)}
    for name in sorted(broken, key=lambda name: name not in COUNTS):
        try:
            left = read_bytes(folder / f"{name}.npy")
        except InputError:
            left = b""
        whole = arrays[name].salvaged(left)
        if name in COUNTS:
            others = {other: arrays[other] for other in COUNTS[name] if other not in broken}
            whole = _counted_anew(whole, arrays[name], _most(folder, arrays, name), folder, others)
        replace_file(folder / f"{name}.npy", Content.of(whole))


def _most(folder: Path, arrays: dict[str, _Array], name: str) -> npt.NDArray[np.int64]:
    """int64: what each of the counts called `name` comes to when all is there."""
    if _ROUND.fullmatch(folder.name):
        return np.diff(open_array(folder / "indptr.npy", (arrays[name].shape[0] + 1,), np.int64))
    each = arrays["distance"].shape[-1] if name == "rows" else 1
    return np.full(arrays[name].shape, each, np.int64)


def _counted_anew(
    whole: bytes, array: _Array, most: npt.NDArray[np.int64], folder: Path, others: dict[str, _Array]
) -> bytes:
    """A file of counts in which all that is there, by the arrays that can be opened (`others`), counts with a checksum
    that does not match, unless it has one: so it is measured again."""
    head = len(header(array.shape, array.dtype))
    counts = np.frombuffer(whole, array.dtype, offset=head).copy()
    some = np.flatnonzero(most)
    starts, there = (np.cumsum(most) - most)[some], most > 0
    for name, other in others.items():
        values = open_array(folder / f"{name}.npy", other.shape, _FLOAT).reshape(-1)
        there[some] &= np.logical_and.reduceat(np.isfinite(values), starts)
    first, second = array.dtype.names or ()
    again = there & ((counts[first] < most) | (counts[second] == 0))
    counts[first][again], counts[second][again] = most[again], 1
    return whole[:head] + counts.tobytes()


def _mark(folder: Path, manifest: dict[str, Any]) -> None:
    """Make counts of what there is not such that their checksums do not match, so that they are forgotten."""
    unsound = _unsound(folder, manifest)
    if unsound.any():
        rows = np.array(open_array(folder / "rows.npy", unsound.shape, ROW))
        rows[unsound] = 0, 1
        replace_file(folder / "rows.npy", Content.of_array(rows))


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
            again = {*part.damaged_examples(), *(part.todo.tolist() if _whole(writer, part) else ())}
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

"""Every byte of a cache against its checksum: all that is damaged, by name. `repair` makes what can be mended so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..amount import parse_budget
from ..errors import DamagedError
from .dense import ROW, Cache
from .files import is_folder, read_bytes
from .manifest import BASE_CRC, BASES, DENSE, MISMATCH, TOKENS, VERSION, read_manifest
from .npy import open_array
from .sidecar import damaged_kept
from .sparse import SparseCache, open_cache
from .stored import Stored
from .stored_round import ROUND, StoredRound, round_names

_FLOAT = np.dtype(np.float32)
_IS_REMOVED, _ROUND_IS_REMOVED = "it is removed", "the round is removed: which pairs it had cannot be told"
_MOVES_UP = "the later ones take its place"
_MISMATCH = f"it {MISMATCH}"


class Damage(NamedTuple):
    """What is wrong with a file of a cache, and what `--repair` does about it; None: nothing can be done."""

    file: str
    what: str
    repair: str | None

    @property
    def needs_model(self) -> bool:
        """Is something to be computed for it?"""
        return self.repair not in (_IS_REMOVED, _ROUND_IS_REMOVED, _MOVES_UP)


class Expected(NamedTuple):
    """What an array of a cache must be, and what stands in it where nothing is measured."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nothing: float | int = 0


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
        return [Damage(error.part, f"it {error.fault}", None)]
    folder = path / manifest["files"]
    if not is_folder(folder):
        return [Damage(folder.name, "it is missing", None)]
    found = [*_records(folder, manifest)]
    unread = any(damage.what != _MISMATCH for damage in found)
    broken = [*damaged_arrays(folder, expected_arrays(manifest))]
    if manifest["layout"] != DENSE:
        for place, name in enumerate(round_names(folder), start=1):
            if name != f"round-{place}":
                broken.append(Damage(f"round-{place}", "it is missing", _MOVES_UP))
                break
            broken += damaged_round(folder / name, manifest)
    elif not broken and unsound(folder, manifest).any():
        broken.append(_COUNTS)
    found += broken
    if not broken and not unread:
        cache = SparseCache(path) if manifest["layout"] != DENSE else Cache(path)
        found += _shared(cache)
        found += _rows(cache) if isinstance(cache, Cache) else _pairs(cache)
    found += [Damage(f"{kept.parent.name}/{kept.name}", _MISMATCH, _IS_REMOVED) for kept in damaged_kept(path)]
    return found


def unfinished(path: Path) -> str | None:
    """What a sound cache has not scored yet; None where it has all that was asked for."""
    cache = open_cache(path)
    if cache.complete:
        return None
    if isinstance(cache, SparseCache):
        return f"{cache.pairs_done:,} of {cache.planned:,} planned pairs are scored"
    return f"{cache.rows_done:,} of {cache.shape[0]:,} rows are scored"


def expected_arrays(manifest: dict[str, Any]) -> dict[str, Expected]:
    """What the arrays of a cache must be, but for those of its rounds."""
    n, m = manifest["examples"]["count"], manifest["targets"]["count"]
    arrays = {name: Expected((m,), _FLOAT, np.nan) for name in BASES}
    arrays |= {name: Expected((size,), np.dtype(np.int32)) for name, size in zip(TOKENS, (n, m), strict=True)}
    if manifest["version"] == VERSION:
        arrays["base_crc"] = Expected((m,), BASE_CRC)
    if manifest["layout"] == DENSE:
        arrays["rows"] = Expected((n,), ROW)
        arrays |= {name: Expected((n, m), _FLOAT, np.nan) for name in ("distance", "logprob")}
        if "known" in manifest.get("checksums", {}):
            arrays["known"] = Expected((n, -(-m // 8)), np.dtype(np.uint8))
    return arrays


def damaged_arrays(folder: Path, arrays: Mapping[str, Expected]) -> Iterator[Damage]:
    """Those that cannot be opened as what they must be."""
    for name, array in arrays.items():
        try:
            open_array(folder / f"{name}.npy", array.shape, array.dtype)
        except DamagedError as error:
            yield Damage(_shown(folder, error.part), f"it {error.fault}", "what is left of it is checked")


def _records(folder: Path, manifest: dict[str, Any]) -> Iterator[Damage]:
    roles = ("examples",) if manifest["targets"]["same_as_examples"] else ("examples", "targets")
    for role in roles:
        for name, key in ((f"{role}.jsonl", "sha256"), (f"{role}.ids.json", "ids")):
            try:
                data = read_bytes(folder / name)
            except DamagedError as error:
                yield Damage(name, f"it {error.fault}", None)
                continue
            if key in manifest[role] and hashlib.sha256(data).hexdigest() != manifest[role][key]:
                yield Damage(name, _MISMATCH, None)


def damaged_round(folder: Path, manifest: dict[str, Any]) -> list[Damage]:
    """What is wrong with a round but for the pairs of single examples."""
    if not is_folder(folder):
        return [Damage(folder.name, "it is a file or a link, not a folder", _ROUND_IS_REMOVED)]
    shape = manifest["examples"]["count"], manifest["targets"]["count"]
    try:
        part = StoredRound(folder, shape, manifest["version"])
    except DamagedError as error:
        if expected := expected_results(folder, shape, manifest["version"]):
            return [*damaged_arrays(folder, expected)] or [_COUNTS._replace(file=f"{folder.name}/rows.npy")]
        return [Damage(folder.name, f"{error.part} {error.fault}", _ROUND_IS_REMOVED)]
    if damaged := part.damaged_plan():
        return [Damage(folder.name, f"{damaged[0]}.npy {MISMATCH}", _ROUND_IS_REMOVED)]
    try:
        _ = part.ended
    except DamagedError:
        return [Damage(f"{folder.name}/ended", "it does not hold what was written", _IS_REMOVED)]
    return []


def unsound(folder: Path, manifest: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [example]: does rows.npy count what a row of the cache or round at `folder` cannot have?"""
    n, m = manifest["examples"]["count"], manifest["targets"]["count"]
    if ROUND.fullmatch(folder.name):
        planned = np.diff(StoredRound(folder, (n, m), manifest["version"], results=False).indptr)
        done = open_array(folder / "rows.npy", planned.shape, ROW)["done"]
        return np.asarray((done != 0) & (done != planned))
    done = open_array(folder / "rows.npy", (n,), ROW)["done"]
    return np.asarray((done < 0) | (done > m))


def expected_results(folder: Path, shape: tuple[int, int], version: int) -> dict[str, Expected]:
    """What the arrays of a round's results must be; none where its plan cannot be told."""
    try:
        planned = StoredRound(folder, shape, version, results=False)
    except DamagedError:
        return {}
    count = Expected((len(planned),), _FLOAT, np.nan)
    return {"distance": count, "logprob": count, "rows": Expected((planned.shape[0],), ROW)}


def _shared(cache: Stored) -> Iterator[Damage]:
    for name in cache.damaged_shared():
        if name in BASES:
            targets = np.flatnonzero(cache.damaged_bases(name)).tolist()
            what = _unmatched("target", targets, " or has none", " or have none")
            yield Damage(f"{name}.npy", what, "they are measured again")
        elif name in TOKENS:
            yield Damage(f"{name}.npy", _MISMATCH, "tokens are counted again")
        else:
            yield Damage(f"{name}.npy", _MISMATCH, "rows that are not complete are scored again")


def _unmatched(thing: str, places: Sequence[int], one: str = "", several: str = "") -> str:
    """Which do not match their checksums; `one`, `several`: what else may be true of it, or of them."""
    if len(places) == 1:
        return f"{thing} {places[0]} {MISMATCH}{one}"
    return f"{len(places):,} {thing}s do not match their checksums{several}, the first is {places[0]}"


def _rows(cache: Cache) -> Iterator[Damage]:
    rows = [*cache.damaged_rows()]
    if rows:
        yield Damage("distance.npy, logprob.npy", _unmatched("row", rows), "they are scored again")


def to_be_whole(cache: SparseCache, part: StoredRound) -> bool:
    """Is a round to have all of its pairs? Not while it may still be gone on with, nor where its time was up."""
    return part is not cache.rounds[-1] or (part.ended and parse_budget(part.asked.budget).seconds is None)


def _pairs(cache: SparseCache) -> Iterator[Damage]:
    for part in cache.rounds:
        examples = part.damaged_examples()
        if examples:
            what = f"the pairs of example {examples[0]} do not match their checksum"
            if len(examples) > 1:
                what = (
                    f"the pairs of {len(examples):,} examples do not match their checksums, the first is {examples[0]}"
                )
            yield Damage(part.path.name, what, "they are scored again")
        elif to_be_whole(cache, part) and len(part.todo):
            yield Damage(
                part.path.name, f"{len(part) - part.pairs_done:,} of its pairs are lost", "they are scored again"
            )


def _shown(folder: Path, name: str) -> str:
    return f"{folder.name}/{name}" if ROUND.fullmatch(folder.name) else name

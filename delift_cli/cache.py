"""A cache directory: one rectangular block of measurements, examples × targets, and what they were measured with.

    manifest.json          what the numbers are: format, layout, model, template, settings, records
    examples.jsonl         the example records as they came in, one a line
    examples.ids.json      their ids and line numbers in the source
    targets.jsonl, targets.ids.json    the same for targets; absent when the pool is scored against itself
    distance.npy           float32 [example, target], NaN where not scored
    logprob.npy            float32 [example, target], NaN where not scored
    base_distance.npy      float32 [target], without an example
    base_logprob.npy       float32 [target]
    example_tokens.npy     int32 [example], tokens of the record in the chat template
    response_tokens.npy    int32 [target], scored tokens of the response
    rows.npy               {done: int32, crc: uint32} [example]: leading targets scored, and their checksum

This is the layout `dense`. A cache of some of the pairs has another one in place of the two matrices and rows.npy: see
`sparse_cache`. A row is written, synced, and only then counted in rows.npy.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from .cache_files import (
    array_file,
    checksum,
    disk,
    header,
    open_array,
    read_bytes,
    sync,
    sync_directory,
    take_lock,
    write_all,
    write_file,
)
from .errors import InputError
from .records import RecordSet, parse_records

FORMAT = "delift-cache"
VERSION = 1
ROW = np.dtype([("done", "<i4"), ("crc", "<u4")])
_MATRICES = ("distance", "logprob")
BASES = ("base_distance", "base_logprob")
_TOKENS = ("example_tokens", "response_tokens")
_FIELDS: dict[str, Any] = {  # what every manifest has, and what kind of value
    **{f"{role}.{name}": str for role in ("examples", "targets") for name in ("source", "form", "sha256")},
    **{f"{role}.count": int for role in ("examples", "targets")},
    **{f"model.{name}": str for name in ("name", "sha256")},
    **{f"template.{name}": str for name in ("name", "text")},
    **{f"fields.{name}": (str, type(None)) for name in ("prompt", "response")},
    "targets.same_as_examples": bool,
    "weights.type": str,
    "run.batch": int,
    "settings": dict,
    "fields": dict,
    "pending": list,
}


Held = TypeVar("Held", bound="Writing")


class Stored:
    """What a cache holds in any layout: its manifest, its records, and the measurements without an example.

    Raises:
        InputError: there is no cache of this layout at `path`, or it is damaged, of a newer version, or not delift's.
    """

    layout: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        if self.manifest["layout"] != self.layout:
            raise InputError(f"{self.path} has the layout {self.manifest['layout']}, not {self.layout}")
        _finish_growing(self.path, self.manifest)
        n, m = self.shape
        self.base_distance = self._array("base_distance", (m,), np.float32)
        self.base_logprob = self._array("base_logprob", (m,), np.float32)
        self.example_tokens = self._array("example_tokens", (n,), np.int32)
        self.response_tokens = self._array("response_tokens", (m,), np.int32)

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, targets)."""
        return self.manifest["examples"]["count"], self.manifest["targets"]["count"]

    @property
    def square(self) -> bool:
        """Is a pool scored against itself?"""
        return bool(self.manifest["targets"]["same_as_examples"])

    @property
    def base_complete(self) -> bool:
        """Is every target measured without an example?"""
        return not np.isnan((self.base_distance, self.base_logprob)).any()

    def examples(self) -> RecordSet:
        """The example records, read again from what the cache keeps of them."""
        return self._records("examples")

    def targets(self) -> RecordSet:
        """The target records."""
        return self._records("examples" if self.square else "targets")

    def check_shared(self) -> None:
        """Compare the arrays that all rows share with their checksums.

        Raises:
            InputError: one does not hold what was written to it.
        """
        for name, crc in self.manifest.get("checksums", {}).items():
            if name in (*_TOKENS, *BASES) and checksum([getattr(self, name)]) != crc:
                raise InputError(
                    f"{self.path} is damaged: {name}.npy does not match its checksum; score into a new directory"
                )

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return open_array(self.path / f"{name}.npy", shape, np.dtype(dtype))

    def record_bytes(self, role: str) -> bytes:
        """What the cache keeps of the `examples` or `targets`, one a line."""
        data = read_bytes(self.path / f"{role}.jsonl")
        if hashlib.sha256(data).hexdigest() != self.manifest[role]["sha256"]:
            raise InputError(f"{self.path} is damaged: {role}.jsonl is not what was scored")
        return data

    def _records(self, role: str) -> RecordSet:
        entry, fields = self.manifest[role], self.manifest["fields"]
        data = self.record_bytes(role)
        read = parse_records(data, entry["source"], prompt_field=fields["prompt"], response_field=fields["response"])
        try:
            origins = orjson.loads(read_bytes(self.path / f"{role}.ids.json"))
            records = [
                replace(record, id=str(id_), line=int(line))
                for record, (id_, line) in zip(read.records, origins, strict=True)
            ]
        except (ValueError, TypeError):
            raise InputError(f"{self.path} is damaged: {role}.ids.json does not name each record") from None
        return replace(read, records=records, form=entry["form"])


class Cache(Stored):
    """A cache of all pairs, opened for reading; see `Stored` for what is raised."""

    layout = "dense"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        n, m = self.shape
        self.distance = self._array("distance", (n, m), np.float32)
        self.logprob = self._array("logprob", (n, m), np.float32)
        self.rows = self._array("rows", (n,), ROW)
        if n and not (self.rows["done"].min() >= 0 and self.rows["done"].max() <= m):
            raise InputError(f"{self.path} is damaged: rows.npy counts more targets than there are")

    @property
    def complete(self) -> bool:
        """Is every pair scored?"""
        return bool((self.rows["done"] == self.shape[1]).all() and self.base_complete)

    @property
    def state(self) -> bytes:
        """Changes with what is scored."""
        return self.rows.tobytes()

    def measured(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Of each example its scored targets and their distances."""
        for example, done in enumerate(self.rows["done"].tolist()):
            yield example, np.arange(done), self.distance[example, :done]

    def check_rows(self) -> None:
        """Compare every finished row, and the arrays that all rows share, with their checksums.

        Raises:
            InputError: something does not hold what was written to it.
        """
        self.check_shared()

        def intact(example: int) -> bool:
            done = int(self.rows["done"][example])
            rows = [self.distance[example, :done], self.logprob[example, :done]]
            return checksum(rows) == self.rows["crc"][example]

        with ThreadPoolExecutor() as threads:
            for example, good in enumerate(threads.map(intact, range(self.shape[0]), chunksize=64)):
                if not good:
                    raise InputError(
                        f"{self.path} is damaged: row {example} of distance.npy or logprob.npy does not match "
                        "its checksum; score into a new directory"
                    )


class Writing(Stored):
    """What a cache opened for scoring does in any layout: it is locked against every other process until closed."""

    def _hold(self, lock: io.BufferedRandom, names: Sequence[str]) -> None:
        """Keep the lock, and these arrays' files open for writing."""
        self._lock = lock
        self._files = {name: os.open(self.path / f"{name}.npy", os.O_RDWR) for name in names}

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(self, *_exception: object) -> None:
        for file in self._files.values():
            os.close(file)
        self._lock.close()

    def write_base(self, first: int, distance: npt.NDArray[np.float32], logprob: npt.NDArray[np.float32]) -> None:
        """Store the measurements without an example for targets `first`, `first` + 1, …"""
        with disk(self.path):
            # the distance last: it is what says that a target was measured
            for name, values in zip(reversed(BASES), (logprob, distance), strict=True):
                self._write(name, first, values)

    def sync(self) -> None:
        """Wait until everything written is on disk; a complete base gets its checksums in the manifest."""
        with disk(self.path):
            for file in self._files.values():
                sync(file)
            if self.base_complete:
                kept = self.manifest.get("checksums", {})
                sums = {**kept, **{name: checksum([getattr(self, name)]) for name in BASES}}
                if sums != kept:
                    self.manifest["checksums"] = sums
                    _write_manifest(self.path, self.manifest)

    def _write(self, name: str, element: int, values: npt.NDArray[Any]) -> None:
        write_values(self._files[name], getattr(self, name), element, values)


class CacheWriter(Cache, Writing):
    """A cache of all pairs, opened for scoring."""

    def __init__(self, path: Path, lock: io.BufferedRandom) -> None:
        super().__init__(path)
        self._hold(lock, (*_MATRICES, *BASES, "rows"))

    def write_row(self, example: int, distance: npt.NDArray[np.float32], logprob: npt.NDArray[np.float32]) -> None:
        """Store what is missing of one example's row: the targets from rows.done on to the last.

        Args:
            example: the row.
            distance, logprob: float32 [targets - rows["done"][example]].
        """
        n_targets = self.shape[1]
        done = int(self.rows["done"][example])
        with disk(self.path):
            for name, values in zip(_MATRICES, (distance, logprob), strict=True):
                self._write(name, example * n_targets + done, values)
            for name in _MATRICES:
                sync(self._files[name])
            crc = checksum([self.distance[example], self.logprob[example]])
            self._write("rows", example, np.array([(n_targets, crc)], ROW))


def write_values(file: int, array: npt.NDArray[Any], element: int, values: npt.NDArray[Any]) -> None:
    """Write `values` into an open .npy file from the array's element `element` (in C order) on."""
    data = np.ascontiguousarray(values, array.dtype).tobytes()
    write_all(file, data, array.offset + element * array.itemsize)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- opening for scoring


def open_for_scoring(
    path: Path,
    description: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    *,
    example_tokens: Sequence[int],
    response_tokens: Sequence[int],
) -> CacheWriter:
    """Create the cache at `path`, or go on with the one that is there.

    An existing cache must have been made with the same `description`; its records must be the first of the ones
    given now. Records that are new get their rows and columns.

    Args:
        description: model, template, metric, settings and the records' field names: all that a number
            depends on.
        targets: None when the pool is scored against itself.
        example_tokens, response_tokens: lengths for every example and target.

    Raises:
        InputError: something else is at `path`, or it was made with something else; the fields are named.
        RunError: another process writes to it, or the disk is full.
    """
    arrays = {**empty_arrays(example_tokens, response_tokens), "rows": np.zeros(len(example_tokens), ROW)}
    manifest = describe(Cache.layout, description, examples, targets, arrays)
    with claim(path, manifest, examples, targets, arrays, _MATRICES) as lock:
        present = Cache(path)
        drop_grown(path)
        compare(present, manifest, examples, targets)
        present.check_rows()
        if present.shape != (len(examples.records), len(targets.records if targets else examples.records)):
            grow(present, manifest, examples, targets, arrays, _MATRICES)
        return CacheWriter(path, lock)


def describe(
    layout: str,
    description: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: dict[str, npt.NDArray[Any]],
) -> dict[str, Any]:
    """The manifest of a cache that begins with these records and arrays."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        **description,
        "examples": _describe(examples),
        "targets": {**_describe(targets or examples), "same_as_examples": targets is None},
        "pending": [],
        "checksums": {name: checksum([arrays[name]]) for name in _TOKENS},
    }


@contextlib.contextmanager
def claim(
    path: Path,
    manifest: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: dict[str, npt.NDArray[Any]],
    matrices: Sequence[str] = (),
) -> Iterator[io.BufferedRandom]:
    """The lock of the cache at `path`, which is made if there is none; an error inside gives the lock back.

    Args:
        arrays: what the new cache begins with; the names in `matrices` are float32 [example, target] beside them.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        _create(path, manifest, examples, targets, arrays, matrices)
    elif not path.is_dir():
        raise InputError(f"{path} is a file; give a directory for the cache with -o")
    read_manifest(path)  # a directory that is not a cache does not even get a lock file
    lock = take_lock(path)
    try:
        yield lock
    except BaseException:
        lock.close()
        raise


def _create(
    path: Path,
    manifest: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: dict[str, npt.NDArray[Any]],
    matrices: Sequence[str],
) -> None:
    """Make the whole directory under another name first, so that there is never half a cache at `path`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir()
            for name, content in _record_files(examples, targets).items():
                write_file(draft / name, [content])
            shape = (len(arrays["example_tokens"]), len(arrays["response_tokens"]))
            for name in matrices:
                _write_matrix(draft / f"{name}.npy", shape, np.empty((0, 0), np.float32))
            for name, array in arrays.items():
                write_file(draft / f"{name}.npy", array_file(array))
            _write_manifest(draft, manifest)
            draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def compare(present: Stored, manifest: dict[str, Any], examples: RecordSet, targets: RecordSet | None) -> None:
    """Refuse a cache that was made with something else, naming the fields that differ."""
    different = list(_differences(present.manifest, manifest))
    if present.square != (targets is None):
        different.append("targets: the pool itself in one, a set of its own in the other")
    pairs = [("examples", examples)] + ([("targets", targets)] if targets is not None else [])
    if not different:
        for role, records in pairs:
            different += _changed_records(present.record_bytes(role), role, records)
    if different:
        raise InputError(
            f"{present.path} was made with something else: {'; '.join(different)}. "
            "Score into another directory with -o, or remove this one"
        )


# records are compared one by one; a model may have moved, its deviation may have been measured again
_NOT_COMPARED = {"run", "examples", "targets", "pending", "checksums", "file", "name", "deviation"}


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here} - _NOT_COMPARED):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} (there {_brief(there)}, now {_brief(here)})"


def _brief(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else orjson.dumps(value).decode()).split())
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def _changed_records(data: bytes, role: str, records: RecordSet) -> Iterator[str]:
    there = data.split(b"\n")[:-1]
    if len(there) > len(records.records):
        yield f"{role} (there {len(there)} records, now {len(records.records)})"
        return
    for at, (line, record) in enumerate(zip(there, records.records, strict=False)):
        if line != record.raw:
            yield f"{role} (record {at + 1}, now {record.id}, was another one)"
            return


# ---------------------------------------------------------------------- growing


def grow(
    present: Stored,
    manifest: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: dict[str, npt.NDArray[Any]],
    matrices: Sequence[str] = (),
) -> None:
    """Make room for new records. Arguments as for `claim`; `manifest` and `arrays` are those of the larger cache.

    The larger files are written beside the old ones; the manifest, replaced in one step, then says that they are
    to take their places, and whoever opens the cache next does what is left of that.
    """
    path = present.path
    with disk(path):
        shape = (len(arrays["example_tokens"]), len(arrays["response_tokens"]))
        try:
            for name in matrices:
                _write_matrix(path / f"{name}.npy.grown", shape, getattr(present, name))
            for name, array in arrays.items():
                old = getattr(present, name)
                array[: len(old)] = old
                write_file(path / f"{name}.npy.grown", array_file(array))
            for name, content in _record_files(examples, targets).items():
                write_file(path / f"{name}.grown", [content])
        except BaseException:
            drop_grown(path)
            raise
        manifest = {**manifest, "pending": sorted(file.name[:-6] for file in path.glob("*.grown"))}
        _write_manifest(path, manifest)
        _finish_growing(path, manifest)


def drop_grown(path: Path) -> None:
    """Remove larger files that never took their places."""
    for file in path.glob("*.grown"):
        file.unlink()


def _finish_growing(path: Path, manifest: dict[str, Any]) -> None:
    if not manifest["pending"]:
        return
    for name in manifest["pending"]:
        with contextlib.suppress(FileNotFoundError):
            (path / f"{name}.grown").replace(path / name)
    sync_directory(path)
    manifest["pending"] = []
    _write_manifest(path, manifest)


# ---------------------------------------------------------------------- files


def _describe(records: RecordSet) -> dict[str, Any]:
    return {
        "source": os.fsencode(records.source).decode("utf-8", "replace"),  # file names may be any bytes
        "form": records.form,
        "count": len(records.records),
        "sha256": hashlib.sha256(_lines(records)).hexdigest(),
        "layouts": records.layouts,
    }


def _record_files(examples: RecordSet, targets: RecordSet | None) -> dict[str, bytes]:
    sets = {"examples": examples} if targets is None else {"examples": examples, "targets": targets}
    files = {}
    for role, records in sets.items():
        files[f"{role}.jsonl"] = _lines(records)
        files[f"{role}.ids.json"] = orjson.dumps([(record.id, record.line) for record in records.records])
    return files


def _lines(records: RecordSet) -> bytes:
    return b"".join(record.raw + b"\n" for record in records.records)


def empty_arrays(example_tokens: Sequence[int], response_tokens: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a cache has in any layout, with nothing scored."""
    nothing = np.full(len(response_tokens), np.nan, np.float32)
    return {
        "base_distance": nothing,
        "base_logprob": nothing.copy(),
        "example_tokens": np.asarray(example_tokens, np.int32),
        "response_tokens": np.asarray(response_tokens, np.int32),
    }


def _write_matrix(path: Path, shape: tuple[int, int], old: npt.NDArray[np.float32]) -> None:
    """A float32 matrix of NaN with `old` in its first rows and columns: the disk space is taken now."""

    def rows() -> Iterator[bytes]:
        yield header(shape, np.dtype(np.float32))
        nothing = np.full(shape[1], np.nan, np.float32)
        for example in range(shape[0]):
            if example < old.shape[0]:
                row = nothing.copy()
                row[: old.shape[1]] = old[example]
                yield row.tobytes()
            else:
                yield nothing.tobytes()

    write_file(path, rows())


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    draft = path / "manifest.json.new"
    write_file(draft, [orjson.dumps(manifest, option=orjson.OPT_INDENT_2), b"\n"])
    draft.replace(path / "manifest.json")
    sync_directory(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the cache at `path`; InputError where there is none, or not one of this version."""
    if path.is_file():
        raise InputError(f"{path} is a file, not a cache; make one with: delift score {path}")
    if not path.is_dir():
        raise InputError(f"{path}: no such cache; make it with: delift score … -o {path}")
    file = path / "manifest.json"
    if not file.exists():
        raise InputError(f"{path} is not a delift cache (it has no manifest.json); nothing was touched")
    try:
        manifest = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: manifest.json: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not a delift cache (manifest.json is something else's)")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path} has cache format {manifest.get('version')}, this delift reads {VERSION}; "
            "update delift or score again"
        )
    lacking = next((name for name, kind in _FIELDS.items() if not isinstance(field(manifest, name), kind)), None)
    if lacking:
        raise InputError(f"{path} is damaged: manifest.json has no proper {lacking}")
    return {"layout": Cache.layout, **manifest}  # caches from before there were two layouts do not name theirs


def field(manifest: Any, name: str) -> Any:
    """A manifest's value by its dotted name, None where there is none."""
    for part in name.split("."):
        manifest = manifest.get(part) if isinstance(manifest, dict) else None
    return manifest

"""What a cache holds in any layout, read and written: manifest, records, and the measurements without an example."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from ..data.options import Reading
from ..data.reading import parse_lines
from ..data.record import RecordSet
from ..errors import InputError
from .files import (
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
from .manifest import BASES, TOKENS, changed_records, differences, read_manifest, record_files, write_manifest

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
        finish_growing(self.path, self.manifest)
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
            if name in (*TOKENS, *BASES) and checksum([getattr(self, name)]) != crc:
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
        entry = self.manifest[role]
        read = parse_lines(self.record_bytes(role), entry["source"], Reading.from_fields(self.manifest["fields"]))
        try:
            origins = orjson.loads(read_bytes(self.path / f"{role}.ids.json"))
            records = [
                record.renamed(str(id_), int(line)) for record, (id_, line) in zip(read.records, origins, strict=True)
            ]
        except (ValueError, TypeError):
            raise InputError(f"{self.path} is damaged: {role}.ids.json does not name each record") from None
        return replace(read, records=records, form=entry["form"])


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
                    write_manifest(self.path, self.manifest)

    def _write(self, name: str, element: int, values: npt.NDArray[Any]) -> None:
        write_values(self._files[name], getattr(self, name), element, values)


def write_values(file: int, array: npt.NDArray[Any], element: int, values: npt.NDArray[Any]) -> None:
    """Write `values` into an open .npy file from the array's element `element` (in C order) on."""
    data = np.ascontiguousarray(values, array.dtype).tobytes()
    write_all(file, data, array.offset + element * array.itemsize)  # type: ignore[attr-defined]


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
            for name, content in record_files(examples, targets).items():
                write_file(draft / name, [content])
            shape = (len(arrays["example_tokens"]), len(arrays["response_tokens"]))
            for name in matrices:
                _write_matrix(draft / f"{name}.npy", shape, np.empty((0, 0), np.float32))
            for name, array in arrays.items():
                write_file(draft / f"{name}.npy", array_file(array))
            write_manifest(draft, manifest)
            draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def compare(present: Stored, manifest: dict[str, Any], examples: RecordSet, targets: RecordSet | None) -> None:
    """Refuse a cache that was made with something else, naming the fields that differ."""
    different = list(differences(present.manifest, manifest))
    if present.square != (targets is None):
        different.append("targets: the pool itself in one, a set of its own in the other")
    pairs = [("examples", examples)] + ([("targets", targets)] if targets is not None else [])
    if not different:
        for role, records in pairs:
            different += changed_records(present.record_bytes(role), role, records)
    if different:
        raise InputError(
            f"{present.path} was made with something else: {'; '.join(different)}. "
            "Score into another directory with -o, or remove this one"
        )


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
            for name, content in record_files(examples, targets).items():
                write_file(path / f"{name}.grown", [content])
        except BaseException:
            drop_grown(path)
            raise
        manifest = {**manifest, "pending": sorted(file.name[:-6] for file in path.glob("*.grown"))}
        write_manifest(path, manifest)
        finish_growing(path, manifest)


def drop_grown(path: Path) -> None:
    """Remove larger files that never took their places."""
    for file in path.glob("*.grown"):
        file.unlink()


def finish_growing(path: Path, manifest: dict[str, Any]) -> None:
    """Let larger files take the places that the manifest says."""
    if not manifest["pending"]:
        return
    for name in manifest["pending"]:
        with contextlib.suppress(FileNotFoundError):
            (path / f"{name}.grown").replace(path / name)
    sync_directory(path)
    manifest["pending"] = []
    write_manifest(path, manifest)


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

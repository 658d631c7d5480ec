"""What a cache holds in any layout, read and written: manifest, records, and the measurements without an example."""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from ..data.options import Reading
from ..data.reading import parse_lines
from ..data.record import RecordSet
from ..errors import DamagedError, InputError, RunError
from .files import disk, is_folder, not_opened, open_file
from .manifest import BASE_CRC, BASES, HERE, MISMATCH, TOKENS, differences, read_manifest, write_manifest
from .npy import ArrayFile, checksum, open_array, settled

Held = TypeVar("Held", bound="Writing")


class Stored:
    """What a cache holds in any layout: its manifest, its records, and the measurements without an example.

    Opening takes the state of that moment: what counts as scored, and the measurements without an example, are copied,
    and what a writer adds later does not show. A writer that makes the cache larger meanwhile is no harm: the manifest
    names the files, and they are opened again if it has changed. Nothing is ever written.

    Attributes:
        folder: where the files are, by the manifest.
        base_distance, base_logprob: float32 [target], NaN where not measured.
        example_tokens, response_tokens: int32 [example], [target].

    Raises:
        InputError: there is no cache of this layout at `path`, or it is damaged, of a newer version, or not delift's.
        RunError: this process may not read it.
    """

    layout: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        while True:
            self.manifest = read_manifest(self.path)
            try:
                self._open()
            except InputError:
                if read_manifest(self.path) == self.manifest:
                    raise
            else:
                if read_manifest(self.path) == self.manifest:
                    return

    def _open(self) -> None:
        """Open the files that the manifest names."""
        if self.manifest["layout"] != self.layout:
            raise InputError(f"{self.path} has the layout {self.manifest['layout']}, not {self.layout}")
        self.folder = self.path / self.manifest["files"]
        if self.manifest["files"] != HERE and not is_folder(self.folder):
            raise DamagedError(self.path, self.folder.name, "is missing")
        self._open_scored()  # before what was written before it, so that a writer never seems to have lost that
        n, m = self.shape
        self._texts = {
            f"{role}.{kind}": self._map(f"{role}.{kind}")
            for role in (("examples",) if self.square else ("examples", "targets"))
            for kind in ("jsonl", "ids.json")
        }
        self._base_crc = None if self.version == 1 else settled(self._array("base_crc", (m,), BASE_CRC))
        self.base_distance = np.array(self._array("base_distance", (m,), np.float32))
        self.base_logprob = np.array(self._array("base_logprob", (m,), np.float32))
        unknown = np.isnan(self.base_distance) | np.isnan(self.base_logprob)
        if self._base_crc is not None:  # what was not counted as measured may be half of it
            unknown = (self._base_crc["distance"] == 0) | (self._base_crc["logprob"] == 0)
        self.base_distance[unknown] = self.base_logprob[unknown] = np.nan
        self.example_tokens = np.array(self._array("example_tokens", (n,), np.int32))
        self.response_tokens = np.array(self._array("response_tokens", (m,), np.int32))

    def _open_scored(self) -> None:
        """Open what counts as scored."""
        raise NotImplementedError

    def scored_targets(self) -> npt.NDArray[np.bool_]:
        """bool [target]: is it scored behind any example?"""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """Of the format."""
        return int(self.manifest["version"])

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
        for name in self.damaged_shared():
            raise self._damaged(f"{name}.npy", MISMATCH)

    def damaged_shared(self) -> list[str]:
        """Names of the arrays that all rows share and that do not match their checksums."""
        sums = self.manifest.get("checksums", {})
        found = [name for name in TOKENS if name in sums and checksum([getattr(self, name)]) != sums[name]]
        return found + [name for name in BASES if self.damaged_bases(name).any()]

    def damaged_bases(self, name: str) -> npt.NDArray[np.bool_]:
        """bool [target]: is a measurement (`base_distance` or `base_logprob`) not what was written?

        All are measured before the first pair is, so that a scored target without one has lost it.
        """
        values: npt.NDArray[np.float32] = getattr(self, name)
        if self._base_crc is None:
            crc = self.manifest.get("checksums", {}).get(name)
            return np.full(len(values), crc is not None and checksum([values]) != crc)
        written = self._base_crc[name.removeprefix("base_")]
        unknown = np.isnan(values)
        wrong = np.where(unknown, written != 0, fingerprints(values) != written)
        return wrong | unknown & self.scored_targets() if unknown.any() else wrong

    def record_bytes(self, role: str) -> bytes:
        """What the cache keeps of the `examples` or `targets`, one a line."""
        return self._text(f"{role}.jsonl", self.manifest[role]["sha256"], "is not what was scored")

    def id_bytes(self, role: str) -> bytes:
        """Their ids and line numbers, as JSON."""
        return self._text(f"{role}.ids.json", self.manifest[role].get("ids"), MISMATCH)

    def _records(self, role: str) -> RecordSet:
        entry = self.manifest[role]
        content, reading = self.record_bytes(role), Reading.from_fields(self.manifest["fields"])
        try:
            origins = [(str(id_), int(line)) for id_, line in orjson.loads(self.id_bytes(role))]
            read = parse_lines(content, entry["source"], reading, origins)
        except (ValueError, TypeError, OverflowError):
            raise self._damaged(f"{role}.ids.json", "does not name each record") from None
        if len(read.records) != entry["count"]:
            fault = f"does not hold the {entry['count']:,} records that manifest.json says"
            raise self._damaged(f"{role}.jsonl", fault)
        return replace(read, form=entry["form"])

    def _text(self, name: str, sha256: str | None, wrong: str) -> bytes:
        data = bytes(self._texts[name])
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise self._damaged(name, wrong)
        return data

    def _map(self, name: str) -> mmap.mmap | bytes:
        """A file's bytes, of this moment's file even if another takes its place."""
        try:
            file = open_file(self._file(name))
        except OSError as error:
            raise not_opened(self._file(name), error) from None
        try:
            return mmap.mmap(file, 0, access=mmap.ACCESS_READ) if os.fstat(file).st_size else b""
        finally:
            os.close(file)

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return open_array(self._file(f"{name}.npy"), shape, np.dtype(dtype))

    def _file(self, name: str) -> Path:
        """Where a file is. Format 1 made larger files take their places one by one; its manifest says which."""
        grown = self.folder / f"{name}.grown"
        return grown if name in self.manifest.get("pending", ()) and os.path.lexists(grown) else self.folder / name

    def _damaged(self, part: str, fault: str) -> DamagedError:
        return DamagedError(self.path, part, fault, f"see delift verify {self.path}")


class Writing(Stored):
    """What a cache opened for scoring does in any layout: it is locked against every other process until closed.

    Attributes:
        reused: what of an edited file's scores still applies, in one line; None where nothing was edited.
    """

    reused: str | None = None

    def __init__(self, path: Path, lock: io.BufferedRandom) -> None:
        super().__init__(path)
        self._lock = lock
        self._later: list[tuple[Sequence[ArrayFile], Callable[[], None]]] | None = None
        m = self.shape[1]
        self._files = {
            **{name: self._for_writing(name, (m,), np.float32) for name in BASES},
            "base_crc": self._for_writing("base_crc", (m,), BASE_CRC),
        }

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(self, kind: object, *_exception: object) -> None:
        try:
            with contextlib.suppress(*((RunError,) if kind else ())):  # a full disk has been told already
                self.finish(normally=kind is None)
        finally:
            for file in self._files.values():
                file.close()
            self._lock.close()

    def finish(self, *, normally: bool) -> None:
        """The last of the work, before the files are closed; `normally`: without an exception."""
        self.sync()

    def write_base(self, first: int, distance: npt.NDArray[np.float32], logprob: npt.NDArray[np.float32]) -> None:
        """Store the measurements without an example for targets `first`, `first` + 1, …; NaN where there is none."""
        with disk(self.path):
            for name, values in zip(BASES, (distance, logprob), strict=True):
                self._files[name].write(first, values)
            for name in BASES:
                self._files[name].sync()
            # the checksums last: they are what says that a target was measured
            known = ~(np.isnan(distance) | np.isnan(logprob))
            self._files["base_crc"].write(first, base_crc(distance, logprob, known, first))
            self._files["base_crc"].sync()
        at = slice(first, first + len(distance))
        self.base_distance[at] = np.where(known, distance, np.nan)
        self.base_logprob[at] = np.where(known, logprob, np.nan)

    def check_place(self) -> None:
        """What is written to files that have gone is written for nobody.

        Raises:
            RunError: the cache is no longer at its path.
        """
        if not os.path.lexists(self.path / "lock"):
            raise RunError(
                f"{self.path} is gone: it was moved or removed while this run wrote to it; put it back, and the same "
                "command goes on with what is in it"
            )

    def sync(self) -> None:
        """Wait until everything written is on disk; see `check_place`."""
        self.check_place()
        with disk(self.path):
            for file in self._files.values():
                file.sync()

    def took_part(self, machine: str, off: float | None = None) -> None:
        """Note in the manifest that a kind of machine measures, before anything of it is written.

        `off`: how far its distances were off those of the machine that writes at most; None if they were not compared.
        """
        machines = self.manifest["run"].setdefault("machines", {})
        known = machines.get(machine)
        if machine not in machines or (off is not None and (known is None or off > known)):
            machines[machine] = off
            with disk(self.path):
                write_manifest(self.path, self.manifest)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Rows that are written inside are waited for and counted together, when it ends: one wait for all of them."""
        self._later = []
        try:
            yield
        finally:
            later, self._later = self._later, None
            with disk(self.path):
                for file in {id(file): file for files, _ in later for file in files}.values():
                    file.sync()
            for _, count in later:
                count()

    def _settle(self, files: Sequence[ArrayFile], count: Callable[[], None]) -> None:
        """Wait until `files` are on disk, then `count` what was written: now, or at the end of `together`."""
        if self._later is not None:
            self._later.append((files, count))
            return
        with disk(self.path):
            for file in files:
                file.sync()
        count()

    def _for_writing(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ArrayFile:
        return ArrayFile(self.folder / f"{name}.npy", shape, dtype)


def base_crc(
    distance: npt.NDArray[np.float32],
    logprob: npt.NDArray[np.float32],
    known: npt.NDArray[np.bool_] | None = None,
    first: int = 0,
) -> npt.NDArray[Any]:
    """BASE_CRC [target] of measurements without an example; 0 where they are not `known` (default: not NaN)."""
    if known is None:
        known = ~(np.isnan(distance) | np.isnan(logprob))
    sums = np.zeros(len(distance), BASE_CRC)
    for name, values in (("distance", distance), ("logprob", logprob)):
        sums[name] = np.where(known, fingerprints(values, first), 0)
    return sums


def fingerprints(values: npt.NDArray[np.float32], first: int = 0) -> npt.NDArray[np.uint32]:
    """uint32, never 0, for each of the values at places `first`, `first` + 1, …: another one for another value."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    place = np.arange(first, first + len(bits), dtype=np.uint32)
    mixed = (bits ^ (place * np.uint32(0x9E3779B1))) * np.uint32(0x85EBCA6B)
    return np.maximum(mixed ^ (mixed >> np.uint32(15)), np.uint32(1))


def compare(present: Stored, manifest: dict[str, Any]) -> None:
    """Refuse a cache that was made with something else than `manifest` says, naming the fields that differ."""
    different: Sequence[str] = list(differences(present.manifest, manifest))
    if present.square != manifest["targets"]["same_as_examples"]:
        different = [*different, "targets: the pool itself in one, a set of its own in the other"]
    if different:
        raise other_cache(present.path, "; ".join(different))


def other_cache(path: Path, different: str) -> InputError:
    """That the cache was made with something else."""
    return InputError(
        f"{path} was made with something else: {different}. Score into another directory with -o, or remove this one"
    )

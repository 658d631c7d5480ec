"""A cache of some of the pairs: rounds of pairs, each written down as a plan first and scored then.

Manifest, records and the measurements without an example are those of every cache (see `cache`). Beside them:

    round-1/plan.json       what was asked for: budget, pairs in all to reach, rounds to come, seed, records then
    round-1/indptr.npy      int64 [example + 1]: example j is shown to targets[indptr[j]:indptr[j + 1]]
    round-1/targets.npy     int32 [pair], ascending for each example
    round-1/source.npy      uint8 [pair], why the pair was chosen: scored.SELF, NEIGHBOUR, RANDOM, HELD_OUT, …
    round-1/distance.npy    float32 [pair], NaN where not scored
    round-1/logprob.npy     float32 [pair]
    round-1/rows.npy        {done: int32, crc: uint32} [example]: pairs scored, all or none, and a checksum over them
    round-2/…

A round appears whole, with room for its results, in one rename. An example's pairs are written, synced, and only then
counted. What is written once is never changed: a later budget adds rounds. Rounds that were planned before records
were appended know nothing of these.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from ..data.record import RecordSet
from ..errors import InputError
from .dense import ROW, Cache
from .files import array_file, checksum, disk, open_array, read_bytes, sync, sync_directory, write_file
from .manifest import BASES, describe, empty_arrays, read_manifest
from .stored import Stored, Writing, claim, compare, drop_grown, grow, write_values

_RESULTS = ("distance", "logprob")


@dataclass(frozen=True)
class Asked:
    """What a round was planned for: the budget as it was written, the pairs in all that it comes to, how many rounds
    (this one included) were to spend it, the seed, how many records there were (None: as many as now), and whether it
    was to find each example's best targets or each target's best examples."""

    budget: str
    goal: int
    rounds_left: int
    seed: int
    examples: int | None = None
    targets: int | None = None
    for_examples: bool = False


class Pairs(NamedTuple):
    """Scored pairs, arrays of one length in the order of rounds and, within these, of examples."""

    example: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    distance: npt.NDArray[np.float32]
    logprob: npt.NDArray[np.float32]
    source: npt.NDArray[np.uint8]


class StoredRound:
    """One round of a cache, opened for reading. `len` is how many pairs it plans, `shape` the block it was planned for:
    records may have come since."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self.asked = self._asked()
        n, m = self.shape = self.asked.examples or shape[0], self.asked.targets or shape[1]
        if n > shape[0] or m > shape[1]:
            raise self._damaged("plan.json", "it is for more records than the cache has")
        self.indptr = self._array("indptr", n + 1, np.int64)
        count = int(self.indptr[-1])
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any():
            raise self._damaged("indptr.npy", "it does not divide the pairs among the examples")
        self.targets = self._array("targets", count, np.int32)
        self.source = self._array("source", count, np.uint8)
        self.distance = self._array("distance", count, np.float32)
        self.logprob = self._array("logprob", count, np.float32)
        self.rows = self._array("rows", n, ROW)
        if count and not (self.targets.min() >= 0 and self.targets.max() < m):
            raise self._damaged("targets.npy", "it names a target that there is not")
        if ((self.rows["done"] != 0) & (self.rows["done"] != np.diff(self.indptr))).any():
            raise self._damaged("rows.npy", "it counts other pairs than were planned")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def todo(self) -> npt.NDArray[np.int64]:
        """Examples with pairs that are not scored."""
        return np.flatnonzero(self.rows["done"] != np.diff(self.indptr))

    @property
    def pairs_done(self) -> int:
        return int(self.rows["done"].sum())

    def pairs_of(self, example: int) -> slice:
        """Where an example's pairs stand in the arrays."""
        return slice(int(self.indptr[example]), int(self.indptr[example + 1]))

    def checksum(self, example: int) -> int:
        """Of an example's pairs as planned and as scored."""
        at = self.pairs_of(example)
        return checksum([self.targets[at], self.source[at], self.distance[at], self.logprob[at]])

    def pairs(self) -> Pairs:
        """What is scored."""
        degree = np.diff(self.indptr)
        scored = np.repeat(self.rows["done"] == degree, degree)
        example = np.repeat(np.arange(len(degree), dtype=np.int32), degree)
        return Pairs(*(array[scored] for array in (example, self.targets, self.distance, self.logprob, self.source)))

    def check(self) -> None:
        """InputError where an example's pairs do not match their checksum."""
        for example in np.flatnonzero(self.rows["done"]).tolist():
            if self.checksum(example) != self.rows["crc"][example]:
                raise self._damaged("arrays", f"the pairs of example {example} do not match their checksum")

    def _asked(self) -> Asked:
        try:
            return Asked(**orjson.loads(read_bytes(self.path / "plan.json")))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise self._damaged("plan.json", str(error)) from None

    def _array(self, name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return open_array(self.path / f"{name}.npy", (count,), np.dtype(dtype))

    def _damaged(self, name: str, reason: str) -> InputError:
        return InputError(f"{self.path} is damaged: {name}: {reason}; score into a new directory")


class SparseCache(Stored):
    """A cache of some of the pairs, opened for reading; see `Stored` for what is raised."""

    layout = "sparse"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        numbers = itertools.takewhile(lambda number: self._folder(number).exists(), itertools.count(1))
        self.rounds = [StoredRound(self._folder(number), self.shape) for number in numbers]

    @property
    def known(self) -> tuple[int, int]:
        """Examples and targets when the last round was planned; later ones are in no pair."""
        return self.rounds[-1].shape if self.rounds else (0, 0)

    @property
    def planned(self) -> int:
        """Pairs of all rounds, scored or not."""
        return sum(map(len, self.rounds))

    @property
    def pairs_done(self) -> int:
        return sum(part.pairs_done for part in self.rounds)

    @property
    def complete(self) -> bool:
        """Is every pair scored that was planned?"""
        return self.base_complete and self.pairs_done == self.planned > 0

    @property
    def state(self) -> bytes:
        """Changes with what is scored."""
        return b"".join(part.rows.tobytes() for part in self.rounds)

    def pairs(self) -> Pairs:
        """What is scored, of all rounds."""
        rounds = [part.pairs() for part in self.rounds]
        if not rounds:
            integers, numbers = np.empty(0, np.int32), np.empty(0, np.float32)
            return Pairs(integers, integers, numbers, numbers, np.empty(0, np.uint8))
        return Pairs(*map(np.concatenate, zip(*rounds, strict=True)))

    def measured(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Of each example its scored targets and their distances."""
        pairs = self.pairs()
        order = np.argsort(pairs.example, kind="stable")
        bounds = np.searchsorted(pairs.example[order], np.arange(self.shape[0] + 1))
        for example in range(self.shape[0]):
            own = order[bounds[example] : bounds[example + 1]]
            yield example, pairs.target[own].astype(np.int64), pairs.distance[own]

    def check_rows(self) -> None:
        """Compare everything that is scored with its checksum; InputError where it differs."""
        self.check_shared()
        for part in self.rounds:
            part.check()

    def _folder(self, number: int) -> Path:
        return self.path / f"round-{number}"


class SparseWriter(SparseCache, Writing):
    """A cache of some of the pairs, opened for scoring."""

    def __init__(self, path: Path, lock: io.BufferedRandom) -> None:
        super().__init__(path)
        self._hold(lock, BASES)
        self._open: tuple[StoredRound, dict[str, int]] | None = None

    def __exit__(self, *exception: object) -> None:
        self._close_round()
        super().__exit__(*exception)

    def begin_round(
        self,
        asked: Asked,
        indptr: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        source: npt.NDArray[np.uint8],
    ) -> StoredRound:
        """Write down a plan, with room for its results, as the next round."""
        folder = self._folder(len(self.rounds) + 1)
        draft = self.path / f".{folder.name}"
        nothing = np.full(len(targets), np.nan, np.float32)
        arrays: dict[str, npt.NDArray[Any]] = {"indptr": indptr, "targets": targets, "source": source}
        arrays |= {**dict.fromkeys(_RESULTS, nothing), "rows": np.zeros(len(indptr) - 1, ROW)}
        try:
            with disk(self.path):
                draft.mkdir()
                write_file(draft / "plan.json", [orjson.dumps(asdict(asked)), b"\n"])
                for name, array in arrays.items():
                    write_file(draft / f"{name}.npy", array_file(array))
                sync_directory(draft)
                draft.rename(folder)
                sync_directory(self.path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self.rounds.append(StoredRound(folder, self.shape))
        return self.rounds[-1]

    def write_pairs(
        self,
        part: StoredRound,
        example: int,
        distance: npt.NDArray[np.float32],
        logprob: npt.NDArray[np.float32],
    ) -> None:
        """Store an example's results of one round, in the order of its targets there."""
        files = self._files_of(part)
        at = part.pairs_of(example)
        with disk(self.path):
            for name, values in zip(_RESULTS, (distance, logprob), strict=True):
                write_values(files[name], getattr(part, name), at.start, values)
            for name in _RESULTS:
                sync(files[name])
            row = np.array([(at.stop - at.start, part.checksum(example))], ROW)
            write_values(files["rows"], part.rows, example, row)

    def sync(self) -> None:
        super().sync()
        if self._open is not None:
            with disk(self.path):
                for file in self._open[1].values():
                    sync(file)

    def _files_of(self, part: StoredRound) -> dict[str, int]:
        """One round at a time is open for writing."""
        if self._open is None or self._open[0] is not part:
            self._close_round()
            self._open = part, {name: os.open(part.path / f"{name}.npy", os.O_RDWR) for name in (*_RESULTS, "rows")}
        return self._open[1]

    def _close_round(self) -> None:
        if self._open is not None:
            for file in self._open[1].values():
                os.close(file)
            self._open = None


def open_sparse_for_scoring(
    path: Path,
    description: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    *,
    example_tokens: Sequence[int],
    response_tokens: Sequence[int],
) -> SparseWriter:
    """Create the sparse cache at `path`, or go on with the one that is there.

    Arguments and errors as for `cache.open_for_scoring`; new records have no pairs until a round is planned for them.
    """
    arrays = empty_arrays(example_tokens, response_tokens)
    manifest = describe(SparseCache.layout, description, examples, targets, arrays)
    with claim(path, manifest, examples, targets, arrays) as lock:
        present = SparseCache(path)
        drop_grown(path)
        compare(present, manifest, examples, targets)
        present.check_rows()
        if present.shape != (len(example_tokens), len(response_tokens)):
            grow(present, manifest, examples, targets, arrays)
        for debris in path.glob(".round-*"):
            shutil.rmtree(debris)
        return SparseWriter(path, lock)


def layout_of(path: Path) -> str | None:
    """`dense` or `sparse`; None where there is nothing yet. InputError where there is something else."""
    if not path.is_dir() or not any(path.iterdir()):
        return None
    return str(read_manifest(path)["layout"])


def open_cache(path: Path) -> Cache | SparseCache:
    """The cache at `path`, whatever its layout, for reading."""
    return SparseCache(path) if read_manifest(path)["layout"] == SparseCache.layout else Cache(path)

"""A cache of some of the pairs: rounds of pairs, each written down as a plan first and scored then.

Manifest, records and the measurements without an example are those of every cache (see `dense`). Beside them:

    round-1/plan.json       what was asked for: budget, pairs in all to reach, rounds to come, seed, records then; and
                            checksums of itself and of the three arrays that follow
    round-1/indptr.npy      int64 [example + 1]: example j is shown to targets[indptr[j]:indptr[j + 1]]
    round-1/targets.npy     int32 [pair], ascending for each example
    round-1/source.npy      uint8 [pair], why the pair was chosen: measured.SELF, NEIGHBOUR, RANDOM, HELD_OUT, …
    round-1/distance.npy    float32 [pair], NaN where not scored
    round-1/logprob.npy     float32 [pair]
    round-1/rows.npy        {done: int32, crc: uint32} [example]: pairs scored, all or none, and a checksum over them
    round-1/ended           there once the run that planned the round came to its end
    round-2/…

A round appears whole, with room for its results, in one rename. An example's pairs are written, synced, and only then
counted. What is written once is never changed: a later budget adds rounds. Rounds that were planned before records
were added know nothing of these.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.record import RecordSet
from ..errors import InputError, RunError
from .dense import ROW, SYNC_SECONDS, Cache, bases
from .files import Content, disk, is_folder, replace_file, sync_directory, take_room, write_files
from .growing import Contents, Reuse, claim, record_contents, renew, reuse, said
from .manifest import describe, empty_arrays, read_manifest
from .npy import ArrayFile, array_contents, checksum
from .stored import Stored, Writing
from .stored_round import ENDED, PLANNED, RESULTS, Asked, Pairs, StoredRound, round_contents, round_names

BYTES_PER_PAIR = 13  # target, source and two float32
ROOM = ".room.draft"  # a file that holds the room for pairs to come


class SparseCache(Stored):
    """A cache of some of the pairs, opened for reading; see `Stored` for what is raised."""

    layout = "sparse"

    def _open_scored(self) -> None:
        names = round_names(self.folder)
        for place, name in enumerate(names, start=1):
            if name != f"round-{place}" or not is_folder(self.folder / name):
                raise self._damaged(f"round-{place}", "is missing")
        self.rounds = [StoredRound(self.folder / name, self.shape, self.version) for name in names]

    @property
    def later(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Places of the examples and targets that came after the last round was planned; they are in no pair."""
        if not self.rounds:
            n, m = self.shape
            return np.arange(n), np.arange(m)
        return self.rounds[-1].later(self.shape)

    @property
    def known(self) -> tuple[int, int]:
        """How many of the examples and targets there were when the last round was planned."""
        n, m = self.shape
        examples, targets = self.later
        return n - len(examples), m - len(targets)

    @property
    def planned(self) -> int:
        """Pairs of all rounds, scored or not."""
        return sum(map(len, self.rounds))

    @property
    def pairs_done(self) -> int:
        """Pairs of all rounds that are scored."""
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

    def scored_targets(self) -> npt.NDArray[np.bool_]:
        """bool [target]: is it scored behind any example?"""
        found = np.zeros(self.shape[1], bool)
        found[self.pairs().target] = True
        return found

    def measured(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Of each example its scored targets and their distances."""
        pairs = self.pairs()
        order = np.argsort(pairs.example, kind="stable")
        bounds = np.searchsorted(pairs.example[order], np.arange(self.shape[0] + 1))
        for example in range(self.shape[0]):
            own = order[bounds[example] : bounds[example + 1]]
            yield example, pairs.target[own].astype(np.int64), pairs.distance[own]

    def check_rows(self) -> None:
        """Compare everything that is scored with its checksum.

        Raises:
            InputError: something does not hold what was written to it, or an earlier round lost pairs.
        """
        self.check_scored()
        for number, part in enumerate(self.rounds[:-1], start=1):
            if lost := len(part) - part.pairs_done:
                raise InputError(
                    f"{self.path} lost {lost:,} pairs of round {number}, perhaps in a power cut; run the same delift "
                    "score command again, it scores them again"
                )

    def check_scored(self) -> None:
        """`check_rows` for a writer, which scores again what an earlier round lost."""
        self.check_shared()
        for part in self.rounds:
            part.check()

    def _folder(self, number: int) -> Path:
        return self.folder / f"round-{number}"


class SparseWriter(SparseCache, Writing):
    """A cache of some of the pairs, opened for scoring.

    Attributes:
        concludes: does a normal end mean that what the last round was planned for is done?
    """

    concludes = True

    def __init__(self, path: Path, lock: io.BufferedRandom) -> None:
        super().__init__(path, lock)
        self._open_round: tuple[StoredRound, dict[str, ArrayFile]] | None = None
        self._reserved = 0
        self._synced = time.monotonic()

    def finish(self, *, normally: bool) -> None:
        """A run that ends normally has done what it was asked for: its last round says so."""
        try:
            super().finish(normally=normally)
            self.reserve(0)
            if normally and self.concludes and self.rounds and not self.rounds[-1].ended:
                with disk(self.path):
                    replace_file(self.rounds[-1].path / "ended", Content.of(ENDED))
        finally:
            self._close_round()

    def reserve(self, pairs: int) -> None:
        """Take the room for so many more pairs now, so that a run ends before it begins where there is none.

        Raises:
            RunError: there is not so much room.
        """
        room = self.folder / ROOM
        with disk(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(room)
            self._reserved = max(0, pairs)
            if self._reserved:
                take_room(room, self._reserved * BYTES_PER_PAIR, self.path)

    def begin_round(
        self,
        asked: Asked,
        indptr: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        source: npt.NDArray[np.uint8],
    ) -> StoredRound:
        """Write down a plan, with room for its results, as the next round."""
        self.sync()  # what was scored is on disk before anything is planned from it
        left = self._reserved - len(targets)
        self.reserve(0)
        folder = self._folder(len(self.rounds) + 1)
        draft = self.folder / f".{folder.name}"
        try:
            with disk(self.path):
                os.mkdir(draft)
                planned: dict[str, npt.NDArray[Any]] = {"indptr": indptr, "targets": targets, "source": source}
                write_files(draft, round_contents(asked, planned), self.path)
                os.rename(draft, folder)
                sync_directory(self.folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self.reserve(left)
        self.rounds.append(StoredRound(folder, self.shape))
        return self.rounds[-1]

    def write_pairs(
        self,
        part: StoredRound,
        example: int,
        distance: npt.NDArray[np.float32],
        logprob: npt.NDArray[np.float32],
    ) -> None:
        """Store an example's results of one round, in the order of its targets there.

        Raises:
            RunError: one of them is not a number, or the disk is full.
        """
        files = self._files_of(part)
        at = part.pairs_of(example)
        with disk(self.path):
            for name, values in zip(RESULTS, (distance, logprob), strict=True):
                if not np.isfinite(values).all():
                    wrong = int(part.targets[at][~np.isfinite(values)][0])
                    raise RunError(f"{self.path}: {name} of example {example} before target {wrong} is not a number")
                files[name].write(at.start, values)
        results = [np.ascontiguousarray(values, np.float32) for values in (distance, logprob)]
        row = np.array([(at.stop - at.start, checksum([part.targets[at], part.source[at], *results]))], ROW)
        self._settle([files[name] for name in RESULTS], partial(self._count, part, files["rows"], example, row))

    def _count(self, part: StoredRound, rows: ArrayFile, example: int, row: npt.NDArray[Any]) -> None:
        with disk(self.path):
            rows.write(example, row)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.check_place()
                rows.sync()
                self._synced = time.monotonic()
        part.rows[example] = row[0]

    def sync(self) -> None:
        super().sync()
        if self._open_round is not None:
            with disk(self.path):
                for file in self._open_round[1].values():
                    file.sync()

    def _files_of(self, part: StoredRound) -> dict[str, ArrayFile]:
        """One round at a time is open for writing."""
        if self._open_round is None or self._open_round[0] is not part:
            self.sync()
            self._close_round()
            kinds = {**dict.fromkeys(RESULTS, (len(part), np.dtype(np.float32))), "rows": (part.shape[0], ROW)}
            self._open_round = (
                part,
                {name: ArrayFile(part.path / f"{name}.npy", (count,), dtype) for name, (count, dtype) in kinds.items()},
            )
        return self._open_round[1]

    def _close_round(self) -> None:
        if self._open_round is not None:
            for file in self._open_round[1].values():
                file.close()
            self._open_round = None


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

    Arguments and errors as for `dense.open_for_scoring`; new records have no pairs until a round is planned for them,
    and pairs of records that are no longer there go.
    """
    arrays = empty_arrays(example_tokens, response_tokens)
    manifest = describe(SparseCache.layout, description, examples, targets, arrays)

    def contents() -> Contents:
        return {**record_contents(examples, targets), **array_contents(arrays)}

    with claim(path, manifest, contents) as lock:
        present = SparseCache(path)
        found = reuse(present, manifest, examples, targets, arrays)
        present.check_scored()
        line = None
        if found is not None:
            rounds, kept = _changed_rounds(present, found)
            measured = array_contents(bases(present, found, arrays))
            renew(present, manifest, {**record_contents(examples, targets), **measured, **rounds}, found)
            line = said(path, present, found, kept, present.pairs_done)
        writer = SparseWriter(path, lock)
        writer.reused = line
        return writer


def _changed_rounds(present: SparseCache, found: Reuse) -> tuple[dict[str, Content], int]:
    """The files of all rounds for the records given now, and how many scored pairs are left.

    A record that was only added at the end changes nothing in them.
    """
    contents: dict[str, Content] = {}
    extended, kept = found.extends(present.shape), 0
    places = [_places(old, count) for old, count in zip(found, present.shape, strict=True)]
    for part in present.rounds:
        planned: dict[str, npt.NDArray[Any]] = {name: np.array(getattr(part, name)) for name in PLANNED}
        results = {name: np.array(getattr(part, name)) for name in RESULTS}
        asked, rows = part.asked, part.rows
        if extended:
            asked = replace(asked, examples=part.shape[0], targets=part.shape[1])
        else:
            degree = np.diff(part.indptr)
            example = places[0][np.repeat(np.arange(part.shape[0]), degree)]
            target = places[1][part.targets]
            order = np.lexsort((target, example))
            order = order[(example[order] >= 0) & (target[order] >= 0)]
            done = np.repeat(rows["done"] > 0, degree)[order]
            n = len(found.examples)
            planned = {
                "indptr": np.searchsorted(example[order], np.arange(n + 1)).astype(np.int64),
                "targets": target[order].astype(np.int32),
                "source": part.source[order],
            }
            results = {name: np.where(done, values[order], np.float32(np.nan)) for name, values in results.items()}
            later = [
                tuple(np.flatnonzero((old < 0) | np.isin(old, before)).tolist())
                for old, before in zip(found, part.later(present.shape), strict=True)
            ]
            asked = replace(
                asked, examples=n, targets=len(found.targets), later_examples=later[0], later_targets=later[1]
            )
            rows = np.zeros(n, ROW)
            rows["done"] = np.bincount(example[order][done], minlength=n)
        for row in np.flatnonzero(rows["done"]).tolist():
            at = slice(int(planned["indptr"][row]), int(planned["indptr"][row + 1]))
            values = [planned["targets"], planned["source"], *results.values()]
            rows["crc"][row] = checksum([array[at] for array in values])
        kept += int(rows["done"].sum())
        files = round_contents(asked, planned) | array_contents({**results, "rows": rows})
        if part.ended or (present.version == 1 and not len(part.todo)):
            files["ended"] = Content.of(ENDED)
        contents |= {f"{part.path.name}/{name}": content for name, content in files.items()}
    return contents, kept


def _places(old: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """int64 [count]: where each of the cache's records stands now, -1 for none."""
    places = np.full(count, -1, np.int64)
    known = np.flatnonzero(old >= 0)
    places[old[known]] = known
    return places


def layout_of(path: Path) -> str | None:
    """`dense` or `sparse`; None where there is nothing yet. InputError where there is something else."""
    if not path.is_dir() or not any(path.iterdir()):
        return None
    return str(read_manifest(path)["layout"])


def open_cache(path: str | Path) -> Cache | SparseCache:
    """The cache at `path`, whatever its layout, for reading."""
    path = Path(path)
    return SparseCache(path) if read_manifest(path)["layout"] == SparseCache.layout else Cache(path)

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

import hashlib
import io
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from ..data.record import RecordSet
from ..errors import InputError, RunError
from .dense import ROW, SYNC_SECONDS, Cache, bases
from .files import (
    ArrayFile,
    Content,
    checksum,
    disk,
    is_folder,
    open_array,
    read_bytes,
    replace_file,
    sync_directory,
    write_files,
)
from .growing import Contents, Reuse, claim, record_contents, renew, reuse, said
from .manifest import MAX_RECORDS, VERSION, describe, empty_arrays, read_manifest
from .stored import Stored, Writing

_RESULTS = ("distance", "logprob")
_PLANNED = ("indptr", "targets", "source")
_ENDED = b"the run that planned this round came to its end\n"


@dataclass(frozen=True)
class Asked:
    """What a round was planned for: the budget as it was written, the pairs in all that it comes to, how many rounds
    (this one included) were to spend it, the seed, how many records there were (None: as many as now), whether it
    was to find each example's best targets or each target's best examples, and which of the records, by their places
    now, came after it all the same (a file that was edited in its middle)."""

    budget: str
    goal: int
    rounds_left: int
    seed: int
    examples: int | None = None
    targets: int | None = None
    for_examples: bool = False
    later_examples: tuple[int, ...] = ()
    later_targets: tuple[int, ...] = ()

    @classmethod
    def read(cls, plan: dict[str, Any]) -> Asked:
        """From a plan's fields; ValueError where one lacks or is not what it must be."""
        fields = {**plan}
        for name in ("later_examples", "later_targets"):
            fields[name] = tuple(fields.get(name, ()))
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"it has the unknown field {min(unknown)[:40]!r}")
        for name in ("budget", "goal", "rounds_left", "seed"):
            if name not in fields:
                raise ValueError(f"it has no {name}")
        asked = cls(**fields)
        if not isinstance(asked.budget, str) or not isinstance(asked.for_examples, bool):
            raise ValueError("it has no proper budget or for_examples")
        numbers = [asked.goal, asked.rounds_left, asked.seed, *asked.later_examples, *asked.later_targets]
        numbers += [count for count in (asked.examples, asked.targets) if count is not None]
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError("one of its numbers is none, or out of range")
        if not all(count is None or 0 < count <= MAX_RECORDS for count in (asked.examples, asked.targets)):
            raise ValueError("it is for no proper number of records")
        return asked


class Pairs(NamedTuple):
    """Scored pairs, arrays of one length in the order of rounds and, within these, of examples."""

    example: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    distance: npt.NDArray[np.float32]
    logprob: npt.NDArray[np.float32]
    source: npt.NDArray[np.uint8]


class StoredRound:
    """One round of a cache, opened for reading. `len` is how many pairs it plans, `shape` the block it was planned for:
    records may have come since.

    Attributes:
        rows: ROW [example], as it was when the round was opened; only what it counts is to be used of the results.
    """

    def __init__(self, path: Path, shape: tuple[int, int], version: int = VERSION, *, results: bool = True) -> None:
        """results: False opens the plan alone."""
        self.path = path
        self.asked, self._sums = self._plan(version)
        n, m = self.shape = self.asked.examples or shape[0], self.asked.targets or shape[1]
        if n > shape[0] or m > shape[1]:
            raise self._damaged("plan.json", "it is for more records than the cache has")
        self.indptr = self._array("indptr", n + 1, np.int64)
        count = int(self.indptr[-1])
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any() or np.diff(self.indptr).max() > m:
            raise self._damaged("indptr.npy", "it does not divide the pairs among the examples")
        self.targets = self._array("targets", count, np.int32)
        self.source = self._array("source", count, np.uint8)
        if count and not (self.targets.min() >= 0 and self.targets.max() < m):
            raise self._damaged("targets.npy", "it names a target that there is not")
        if results:
            self._open_results()

    def _open_results(self) -> None:
        n, count = self.shape[0], len(self.targets)
        self.rows = np.array(self._array("rows", n, ROW))
        self.distance = self._array("distance", count, np.float32)
        self.logprob = self._array("logprob", count, np.float32)
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

    @property
    def ended(self) -> bool:
        """Did the run that planned it come to its end?"""
        file = self.path / "ended"
        if not os.path.lexists(file):
            return False
        if read_bytes(file) != _ENDED:
            raise self._damaged("ended", "it does not hold what was written")
        return True

    def later(self, shape: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Places of the examples and targets, in a block of this shape, that came after it was planned."""
        examples, targets = self.asked.later_examples, self.asked.later_targets
        return (
            np.concatenate([np.array(sorted(examples), np.int64), np.arange(self.shape[0], shape[0])]),
            np.concatenate([np.array(sorted(targets), np.int64), np.arange(self.shape[1], shape[1])]),
        )

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
        """InputError where the plan or an example's pairs do not match their checksum."""
        for name in self.damaged_plan():
            raise self._damaged(f"{name}.npy", "it does not match its checksum")
        for example in self.damaged_examples():
            raise self._damaged("arrays", f"the pairs of example {example} do not match their checksum")

    def damaged_plan(self) -> list[str]:
        """Names of the planned arrays that do not match their checksums."""
        return [name for name, crc in self._sums.items() if checksum([getattr(self, name)]) != crc]

    def damaged_examples(self) -> list[int]:
        """Examples whose pairs are not what was written, or no numbers."""
        found = []
        for example, (done, crc) in enumerate(self.rows.tolist()):
            at = self.pairs_of(example)
            good = not crc
            if done:
                numbers = np.isfinite(self.distance[at]).all() and np.isfinite(self.logprob[at]).all()
                good = numbers and self.checksum(example) == crc
            if not good:
                found.append(example)
        return found

    def _plan(self, version: int) -> tuple[Asked, dict[str, int]]:
        try:
            plan = orjson.loads(read_bytes(self.path / "plan.json"))
            if not isinstance(plan, dict):
                raise ValueError("it is no object")
            if version == 1:
                return Asked.read(plan), {}
            written = plan.pop("checksum", None)
            if written != _digest(plan):
                raise ValueError("it does not match its checksum")
            sums = plan.pop("arrays")
            return Asked.read(plan), {name: sums[name] for name in _PLANNED}
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged("plan.json", str(error)) from None

    def _array(self, name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        if count < 0 or count > 2**48:
            raise self._damaged(f"{name}.npy", f"it cannot hold {count:,} pairs")
        return open_array(self.path / f"{name}.npy", (count,), np.dtype(dtype))

    def _damaged(self, name: str, reason: str) -> InputError:
        return InputError(f"{self.path} is damaged: {name}: {reason}; see delift verify {self.path.parent}")


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)).hexdigest()


def round_contents(asked: Asked, planned: dict[str, npt.NDArray[Any]]) -> dict[str, Content]:
    """The files of a round with nothing scored; `planned`: indptr, targets and source."""
    count = len(planned["targets"])
    plan: dict[str, Any] = asdict(asked) | {"arrays": {name: checksum([planned[name]]) for name in _PLANNED}}
    arrays = {
        **planned,
        **dict.fromkeys(_RESULTS, np.full(count, np.nan, np.float32)),
        "rows": np.zeros(len(planned["indptr"]) - 1, ROW),
    }
    return {
        "plan.json": Content.of(orjson.dumps(plan | {"checksum": _digest(plan)}) + b"\n"),
        **{f"{name}.npy": Content.of_array(array) for name, array in arrays.items()},
    }


class SparseCache(Stored):
    """A cache of some of the pairs, opened for reading; see `Stored` for what is raised."""

    layout = "sparse"

    def _open(self) -> None:
        super()._open()
        names = [name for name in os.listdir(self.folder) if name.startswith("round-")]
        numbers = sorted(int(name[6:]) for name in names if name[6:].isdecimal() and len(name) < 16)
        for place, number in enumerate(numbers, start=1):
            if number != place or not is_folder(self._folder(number)):
                raise self._damaged(f"round-{place} is missing")
        self.rounds = [StoredRound(self._folder(number), self.shape, self.version) for number in numbers]

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
        self._synced = time.monotonic()

    def finish(self, *, normally: bool) -> None:
        """A run that ends normally has done what it was asked for: its last round says so."""
        try:
            super().finish(normally=normally)
            if normally and self.concludes and self.rounds and not self.rounds[-1].ended:
                with disk(self.path):
                    replace_file(self.rounds[-1].path / "ended", Content.of(_ENDED))
        finally:
            self._close_round()

    def begin_round(
        self,
        asked: Asked,
        indptr: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        source: npt.NDArray[np.uint8],
    ) -> StoredRound:
        """Write down a plan, with room for its results, as the next round."""
        self.sync()  # what was scored is on disk before anything is planned from it
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
            for name, values in zip(_RESULTS, (distance, logprob), strict=True):
                if not np.isfinite(values).all():
                    wrong = int(part.targets[at][~np.isfinite(values)][0])
                    raise RunError(f"{self.path}: {name} of example {example} before target {wrong} is not a number")
                files[name].write(at.start, values)
            for name in _RESULTS:
                files[name].sync()
            results = [np.ascontiguousarray(values, np.float32) for values in (distance, logprob)]
            row = np.array([(at.stop - at.start, checksum([part.targets[at], part.source[at], *results]))], ROW)
            files["rows"].write(example, row)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                files["rows"].sync()
                self._synced = time.monotonic()
        part.rows[example] = row[0]

    def forget_pairs(self, part: StoredRound, example: int) -> None:
        """Let an example's pairs of one round count as not scored."""
        self._files_of(part)["rows"].write(example, np.zeros(1, ROW))
        part.rows[example] = 0, 0

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
            kinds = {**dict.fromkeys(_RESULTS, (len(part), np.dtype(np.float32))), "rows": (part.shape[0], ROW)}
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
        new = {f"{name}.npy": Content.of_array(array) for name, array in arrays.items()}
        return {**record_contents(examples, targets), **new}

    with claim(path, manifest, contents) as lock:
        present = SparseCache(path)
        found = reuse(present, manifest, examples, targets, arrays)
        present.check_scored()
        line = None
        if found is not None:
            rounds, kept = _changed_rounds(present, found)
            measured = {f"{name}.npy": Content.of_array(a) for name, a in bases(present, found, arrays).items()}
            renew(present, manifest, {**record_contents(examples, targets), **measured, **rounds})
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
        planned: dict[str, npt.NDArray[Any]] = {name: np.array(getattr(part, name)) for name in _PLANNED}
        results = {name: np.array(getattr(part, name)) for name in _RESULTS}
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
        files = round_contents(asked, planned)
        arrays = {**results, "rows": rows}
        files |= {f"{name}.npy": Content.of_array(array) for name, array in arrays.items()}
        if part.ended or (present.version == 1 and not len(part.todo)):
            files["ended"] = Content.of(_ENDED)
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


def open_cache(path: Path) -> Cache | SparseCache:
    """The cache at `path`, whatever its layout, for reading."""
    return SparseCache(path) if read_manifest(path)["layout"] == SparseCache.layout else Cache(path)

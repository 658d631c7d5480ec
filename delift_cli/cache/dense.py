"""A cache directory: one rectangular block of measurements, examples × targets, and what they were measured with.

    manifest.json          what the numbers are: format, layout, model, template, settings, records, checksums
    examples.jsonl         the example records as they came in, one a line
    examples.ids.json      their ids and line numbers in the source
    targets.jsonl, targets.ids.json    the same for targets; absent when the pool is scored against itself
    distance.npy           float32 [example, target], NaN where not scored
    logprob.npy            float32 [example, target], NaN where not scored
    base_distance.npy      float32 [target], without an example
    base_logprob.npy       float32 [target]
    base_crc.npy           {distance: uint32, logprob: uint32} [target]: checksums of the two, 0: not measured
    example_tokens.npy     int32 [example], tokens of the record in the chat template
    response_tokens.npy    int32 [target], scored tokens of the response
    rows.npy               {done: int32, crc: uint32} [example]: how many targets are scored, and their checksum
    known.npy              uint8 [example, ⌈target / 8⌉], only where records were inserted, moved or removed: bits of
                           the targets that a row which is not complete has; without it they are its first `done`

This is the layout `dense`. A cache of some of the pairs has another one in place of the matrices and rows.npy: see
`sparse`. A row is written, synced, and only then counted in rows.npy.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.record import RecordSet
from ..errors import RunError
from .files import Content, disk
from .growing import Contents, Reuse, claim, record_contents, renew, reuse, said, scattered
from .manifest import BASES, DENSE, MISMATCH, TOKENS, describe, empty_arrays
from .npy import array_contents, array_size, checksum, header, settled
from .stored import Stored, Writing, base_crc

ROW = np.dtype([("done", "<i4"), ("crc", "<u4")])
SYNC_SECONDS = 1.0  # how often the count of finished rows is synced, beside the rows themselves
_MATRICES = ("distance", "logprob")
_FLOAT = np.dtype(np.float32)


class Cache(Stored):
    """A cache of all pairs, opened for reading; see `Stored` for what is raised.

    Attributes:
        rows: ROW [example], as it was when the cache was opened; of `distance` and `logprob` only what it counts is
            to be used.
    """

    layout = DENSE

    def _open_scored(self) -> None:
        n, m = self.shape
        self.rows = settled(self._array("rows", (n,), ROW))
        self.distance = self._array("distance", (n, m), np.float32)
        self.logprob = self._array("logprob", (n, m), np.float32)
        self._known = None
        if "known" in self.manifest.get("checksums", {}):
            self._known = self._array("known", (n, -(-m // 8)), np.uint8)
        if n and not (self.rows["done"].min() >= 0 and self.rows["done"].max() <= m):
            raise self._damaged("rows.npy", "counts more targets than there are")

    @property
    def complete(self) -> bool:
        """Is every pair scored?"""
        return self.rows_done == self.shape[0] and self.base_complete

    @property
    def rows_done(self) -> int:
        """How many examples have all of their targets scored."""
        return int((self.rows["done"] == self.shape[1]).sum())

    @property
    def state(self) -> bytes:
        """Changes with what is scored."""
        return self.rows.tobytes()

    def scored(self, example: int) -> npt.NDArray[np.int64]:
        """int64, ascending: the targets that an example's row has."""
        done, m = int(self.rows["done"][example]), self.shape[1]
        if self._known is None or done in (0, m):
            return np.arange(done)
        return np.flatnonzero(np.unpackbits(self._known[example], count=m))

    def scored_targets(self) -> npt.NDArray[np.bool_]:
        """bool [target]: is it scored behind any example?"""
        done, m = self.rows["done"], self.shape[1]
        if self._known is None or done.max(initial=0) == m:
            return np.arange(m) < done.max(initial=0)
        return np.unpackbits(np.bitwise_or.reduce(self._known[done > 0], axis=0), count=m).astype(bool)

    def missing(self, example: int) -> npt.NDArray[np.int64]:
        """int64, ascending: the targets that an example's row lacks."""
        lacks = np.ones(self.shape[1], bool)
        lacks[self.scored(example)] = False
        return np.flatnonzero(lacks)

    def measured(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Of each example its scored targets and their distances."""
        for example in range(self.shape[0]):
            targets = self.scored(example)
            whole = not len(targets) or int(targets[-1]) == len(targets) - 1  # a part of the row needs no copy
            yield example, targets, self.distance[example, : len(targets)] if whole else self.distance[example, targets]

    def check_rows(self) -> None:
        """Compare every finished row, and the arrays that all rows share, with their checksums.

        Raises:
            InputError: something does not hold what was written to it.
        """
        self.check_shared()
        for example in self.damaged_rows():
            raise self._damaged(f"row {example} of distance.npy or logprob.npy", MISMATCH)

    def damaged_shared(self) -> list[str]:
        found = super().damaged_shared()
        if self._known is not None and checksum([self._known]) != self.manifest["checksums"]["known"]:
            found.append("known")
        return found

    def damaged_rows(self) -> Iterator[int]:
        """Examples whose row is not what was written, or not a number."""
        with ThreadPoolExecutor() as threads:
            for example, good in enumerate(threads.map(self._intact, range(self.shape[0]))):
                if not good:
                    yield example

    def _intact(self, example: int) -> bool:
        done, crc = (int(self.rows[name][example]) for name in ("done", "crc"))
        targets = self.scored(example)
        if not done or len(targets) != done:
            return not done and not crc
        whole = done == targets[-1] + 1
        rows = [
            matrix[example, :done] if whole else matrix[example, targets] for matrix in (self.distance, self.logprob)
        ]
        return checksum(rows) == crc and all(np.isfinite(row).all() for row in rows)


class CacheWriter(Cache, Writing):
    """A cache of all pairs, opened for scoring."""

    def __init__(self, path: Path, lock: io.BufferedRandom) -> None:
        super().__init__(path, lock)
        n, m = self.shape
        self._files |= {name: self._for_writing(name, (n, m), np.float32) for name in _MATRICES}
        self._files["rows"] = self._for_writing("rows", (n,), ROW)
        self._synced = time.monotonic()

    def write_row(self, example: int, distance: npt.NDArray[np.float32], logprob: npt.NDArray[np.float32]) -> None:
        """Store what is missing of one example's row.

        Args:
            example: the row.
            distance, logprob: float32 [targets that `missing` names].

        Raises:
            RunError: one of them is not a number, or the disk is full.
        """
        m, missing = self.shape[1], self.missing(example)
        whole = []
        with disk(self.path):
            for name, values in zip(_MATRICES, (distance, logprob), strict=True):
                if not np.isfinite(values).all():
                    wrong = int(missing[np.flatnonzero(~np.isfinite(values))[0]])
                    raise RunError(f"{self.path}: {name} of example {example} before target {wrong} is not a number")
                row = np.array(getattr(self, name)[example])
                row[missing] = values
                whole.append(row)
                first, last = int(missing[0]), int(missing[-1]) + 1
                self._files[name].write(example * m + first, row[first:last])
        counted = np.array([(m, checksum(whole))], ROW)
        self._settle([self._files[name] for name in _MATRICES], partial(self._count, example, counted))

    def _count(self, example: int, counted: npt.NDArray[Any]) -> None:
        with disk(self.path):
            self._files["rows"].write(example, counted)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.check_place()
                self._files["rows"].sync()
                self._synced = time.monotonic()
        self.rows[example] = counted[0]

    def forget_row(self, example: int) -> None:
        """Let a row count as not scored for this writer: on disk it is what it was until it is written again."""
        self.rows[example] = 0, 0


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

    An existing cache must have been made with the same `description`. Its records are recognised among those given
    now, wherever they stand; the others get rows and columns of their own, and rows and columns of records that are no
    longer there go.

    Args:
        description: model, template, metric, settings and the records' field names: all that a number
            depends on.
        targets: None when the pool is scored against itself.
        example_tokens, response_tokens: lengths for every example and target.

    Raises:
        InputError: something else is at `path`, or it was made with something else; the fields are named.
        RunError: another process writes to it, or the disk is full.
    """
    arrays = empty_arrays(example_tokens, response_tokens)
    manifest = describe(Cache.layout, description, examples, targets, arrays)
    shape = len(example_tokens), len(response_tokens)

    def contents() -> Contents:
        return {
            **record_contents(examples, targets),
            **{f"{name}.npy": _matrix(shape, lambda example: None) for name in _MATRICES},
            **array_contents({**arrays, "rows": np.zeros(shape[0], ROW)}),
        }

    with claim(path, manifest, contents) as lock:
        present = Cache(path)
        found = reuse(present, manifest, examples, targets, arrays)
        present.check_rows()
        line = None
        if found is not None:
            changed = _Changed(present, found)
            if changed.known is not None:
                manifest["checksums"]["known"] = checksum([changed.known])
            renew(present, manifest, {**record_contents(examples, targets), **changed.contents(arrays)}, found)
            line = said(path, present, found, int(changed.rows["done"].sum()), int(present.rows["done"].sum()))
        writer = CacheWriter(path, lock)
        writer.reused = line
        return writer


class _Changed:
    """The rows and columns of a cache that still apply, in the places of the records given now.

    Attributes:
        rows: ROW [example].
        known: as known.npy, None where every row has its first targets.
    """

    def __init__(self, present: Cache, found: Reuse) -> None:
        self._present, self._found = present, found
        self.rows = np.zeros(len(found.examples), ROW)
        m = len(found.targets)
        known = np.zeros((len(found.examples), -(-m // 8)), np.uint8)
        leading = True
        for example in np.flatnonzero(found.examples >= 0).tolist():
            targets = self._targets(example)
            if len(targets):
                values = [self._values(name, example, targets) for name in _MATRICES]
                self.rows[example] = len(targets), checksum(values)
                leading = leading and int(targets[-1]) == len(targets) - 1
                known[example] = np.packbits(np.isin(np.arange(m), targets))
        self.known = None if leading else known

    def contents(self, arrays: dict[str, npt.NDArray[Any]]) -> Contents:
        """The new files; `arrays` are those of a cache with nothing scored."""
        present, found = self._present, self._found
        same = found.extends(present.shape) and (len(found.examples), len(found.targets)) == present.shape
        if present.manifest.get("pending"):  # while format 1 waits for a larger file its bytes are others
            same = False
        made = {
            "rows": self.rows,
            **({} if self.known is None else {"known": self.known}),
            **bases(present, found, arrays),
        }
        contents: dict[str, Content | Path] = {**array_contents(made)}
        for name in _MATRICES:
            contents[f"{name}.npy"] = present.folder / f"{name}.npy" if same else self._matrix(name)
        return contents

    def _targets(self, example: int) -> npt.NDArray[np.int64]:
        """New places of the targets that a new row has."""
        old = self._present.scored(int(self._found.examples[example]))
        has = np.zeros(self._present.shape[1] + 1, bool)  # the last for targets that are new
        has[old] = True
        return np.flatnonzero(has[self._found.targets])

    def _values(self, name: str, example: int, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        matrix: npt.NDArray[np.float32] = getattr(self._present, name)
        return matrix[self._found.examples[example], self._found.targets[targets]]

    def _matrix(self, name: str) -> Content:
        def row(example: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
            if not self.rows["done"][example]:
                return None
            targets = self._targets(example)
            return targets, self._values(name, example, targets)

        return _matrix((len(self._found.examples), len(self._found.targets)), row)


def bases(present: Stored, found: Reuse, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Tokens, and what was measured without an example, in the places of the records given now."""
    made = {name: arrays[name] for name in TOKENS}
    for name in BASES:
        made[name] = scattered(getattr(present, name), found.targets, arrays[name].copy())
    made["base_crc"] = base_crc(made["base_distance"], made["base_logprob"])
    return made


def _matrix(shape: tuple[int, int], row_of: Any) -> Content:
    """A float32 matrix, NaN but for what `row_of` gives of a row: the places of some targets and their values."""

    def chunks() -> Iterator[bytes]:
        yield header(shape, _FLOAT)
        nothing = np.full(shape[1], np.nan, np.float32)
        for example in range(shape[0]):
            filled = row_of(example)
            if filled is None:
                yield nothing.tobytes()
            else:
                row = nothing.copy()
                row[filled[0]] = filled[1]
                yield row.tobytes()

    return Content(array_size(shape, _FLOAT), chunks())

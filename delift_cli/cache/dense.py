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

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.record import RecordSet
from ..errors import InputError
from .files import checksum, disk, sync
from .manifest import BASES, DENSE, describe, empty_arrays
from .stored import Stored, Writing, claim, compare, drop_grown, grow

ROW = np.dtype([("done", "<i4"), ("crc", "<u4")])
_MATRICES = ("distance", "logprob")


class Cache(Stored):
    """A cache of all pairs, opened for reading; see `Stored` for what is raised."""

    layout = DENSE

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

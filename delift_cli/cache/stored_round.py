"""One round of a cache of some of the pairs: its plan, and what is scored of it. `sparse` describes the files."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from ..errors import DamagedError
from .dense import ROW
from .files import Content, read_bytes
from .manifest import MAX_RECORDS, MISMATCH, VERSION
from .npy import array_contents, checksum, open_array, settled

ROUND = re.compile(r"round-[1-9][0-9]{0,8}")
RESULTS = ("distance", "logprob")
PLANNED = ("indptr", "targets", "source")
ENDED = b"the run that planned this round came to its end\n"


def round_names(folder: Path) -> list[str]:
    """What is called as the rounds of a cache are, by number; `round-01` is none of delift's, as any other name."""
    return sorted(filter(ROUND.fullmatch, os.listdir(folder)), key=lambda name: int(name[6:]))


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
            raise self._damaged("plan.json", "is for more records than the cache has")
        self.indptr = self._array("indptr", n + 1, np.int64)
        count = int(self.indptr[-1])
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any() or np.diff(self.indptr).max() > m:
            raise self._damaged("indptr.npy", "does not divide the pairs among the examples")
        self.targets = self._array("targets", count, np.int32)
        self.source = self._array("source", count, np.uint8)
        if count and not (self.targets.min() >= 0 and self.targets.max() < m):
            raise self._damaged("targets.npy", "names a target that there is not")
        if results:
            self._open_results()

    def _open_results(self) -> None:
        n, count = self.shape[0], len(self.targets)
        self.rows = settled(self._array("rows", n, ROW))
        self.distance = self._array("distance", count, np.float32)
        self.logprob = self._array("logprob", count, np.float32)
        if ((self.rows["done"] != 0) & (self.rows["done"] != np.diff(self.indptr))).any():
            raise self._damaged("rows.npy", "counts other pairs than were planned")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def todo(self) -> npt.NDArray[np.int64]:
        """Examples with pairs that are not scored."""
        return np.flatnonzero(self.rows["done"] != np.diff(self.indptr))

    @property
    def pairs_done(self) -> int:
        """How many of its pairs are scored."""
        return int(self.rows["done"].sum())

    @property
    def ended(self) -> bool:
        """Did the run that planned it come to its end?"""
        file = self.path / "ended"
        if not os.path.lexists(file):
            return False
        if read_bytes(file) != ENDED:
            raise self._damaged("ended", "does not hold what was written")
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
        """DamagedError where the plan or an example's pairs do not match their checksum."""
        for name in self.damaged_plan():
            raise self._damaged(f"{name}.npy", MISMATCH)
        for example in self.damaged_examples():
            raise self._damaged(f"the pairs of example {example}", "do not match their checksum")

    def damaged_plan(self) -> list[str]:
        """Names of the planned arrays that do not match their checksums."""
        return [name for name, crc in self._sums.items() if checksum([getattr(self, name)]) != crc]

    def damaged_examples(self) -> list[int]:
        """Examples whose pairs are not what was written, or no numbers."""
        done, crc = self.rows["done"] > 0, self.rows["crc"]
        bad = ~done & (crc != 0)
        wrong = ~(np.isfinite(self.distance) & np.isfinite(self.logprob))
        owner = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))[wrong]
        bad[owner] |= done[owner]
        for example in np.flatnonzero(done & ~bad).tolist():
            bad[example] = self.checksum(example) != crc[example]
        return np.flatnonzero(bad).tolist()

    def _plan(self, version: int) -> tuple[Asked, dict[str, int]]:
        try:
            plan = orjson.loads(read_bytes(self.path / "plan.json"))
            if not isinstance(plan, dict):
                raise ValueError("it is no object")
            if version == 1:
                return Asked.read(plan), {}
            written = plan.pop("checksum", None)
            if written != plan_digest(plan):
                raise ValueError(f"it {MISMATCH}")
            sums = plan.pop("arrays")
            return Asked.read(plan), {name: sums[name] for name in PLANNED}
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged("plan.json", f"is no plan: {error}") from None

    def _array(self, name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        if count < 0 or count > 2**48:
            raise self._damaged(f"{name}.npy", f"cannot hold {count:,} pairs")
        return open_array(self.path / f"{name}.npy", (count,), np.dtype(dtype))

    def _damaged(self, part: str, fault: str) -> DamagedError:
        return DamagedError(self.path, part, fault, f"see delift verify {self.path.parent}")


def plan_digest(plan: dict[str, Any]) -> str:
    """SHA-256 of all that a plan says, but for this."""
    return hashlib.sha256(orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)).hexdigest()


def round_contents(asked: Asked, planned: dict[str, npt.NDArray[Any]]) -> dict[str, Content]:
    """The files of a round with nothing scored, by name; `planned`: the arrays that PLANNED names."""
    count = len(planned["targets"])
    plan: dict[str, Any] = asdict(asked) | {"arrays": {name: checksum([planned[name]]) for name in PLANNED}}
    arrays = {
        **planned,
        **dict.fromkeys(RESULTS, np.full(count, np.nan, np.float32)),
        "rows": np.zeros(len(planned["indptr"]) - 1, ROW),
    }
    return {
        "plan.json": Content.of(orjson.dumps(plan | {"checksum": plan_digest(plan)}) + b"\n"),
        **array_contents(arrays),
    }

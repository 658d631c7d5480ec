"""Held-out records behind examples of a subset: join the sets, find the examples, measure the responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..budget.sources import Source, files_of, listed, read_source
from ..cache.sparse import open_cache
from ..data.options import Reading
from ..data.record import Conversation, Record, RecordSet, copy_groups
from ..errors import InputError
from ..prompt.encoding import EncodedTargets, encode_rows_of_examples, encode_targets
from ..prompt.template import ChatTemplate
from ..scoring.embeddings import MEAN, embed_texts
from ..scoring.job import Engine, Inputs, at_work
from ..scoring.measures import Measures
from ..scoring.pairs import Scoring, Unit
from .intervals import Ints, Measured, best_matches

Report = Callable[[int], None]


def read_set(source: Source, reading: Reading) -> RecordSet:
    """The records of a source, or the examples of a cache."""
    given = listed(source)
    if len(given) == 1 and (files := files_of(given)) and (Path(files[0]) / "manifest.json").exists():
        return open_cache(Path(files[0])).examples()
    return read_source(given, reading)


class Joined(NamedTuple):
    """Several sets of records as one without repetitions; `members[s]` are the places of set s, int64 ascending."""

    records: RecordSet
    members: list[Ints]


def join(sets: Sequence[RecordSet]) -> Joined:
    """Records with the same conversation are one."""
    places: dict[Conversation, int] = {}
    records: list[Record] = []
    members = []
    for each in sets:
        for record in each.records:
            if record.conversation not in places:
                places[record.conversation] = len(records)
                records.append(record)
        members.append(np.unique([places[record.conversation] for record in each.records]).astype(np.int64))
    sources = ", ".join(each.source for each in sets)
    return Joined(replace(sets[0], records=records, source=sources), members)


@dataclass
class HeldOut:
    """Held-out records, and records to show in front of them.

    Args:
        held_out: what is predicted.
        candidates: what may be shown.
        limit: tokens of a record at most, its prompt losing its middle; None: as it is.
    """

    held_out: RecordSet
    candidates: RecordSet
    template: ChatTemplate
    limit: int | None

    def __post_init__(self) -> None:
        self.targets: EncodedTargets = encode_targets(self.held_out, self.template, limit=self.limit)

    def embed_prompts(self, engine: Engine, report: Report) -> None:
        """Where the prompts lie: what `nearest` compares."""
        candidates = encode_targets(self.candidates, self.template, limit=self.limit).targets
        prompts = [target.alone for target in (*self.targets.targets, *candidates)]
        points = embed_texts(engine, prompts, report)[MEAN]
        groups = copy_groups([*self.held_out.records, *self.candidates.records])
        m = len(self.held_out.records)
        self._target_points, self._points = points[:m], points[m:]
        self._target_groups, self._groups = groups[:m], groups[m:]

    def nearest(self, subset: Ints, shots: int, name: str) -> Ints:
        """int64 [held-out, shots]: the candidates of a subset to show in front of each record, the best match last.

        Raises:
            InputError: the subset, called `name`, has too few records besides copies of a held-out one.
        """
        found = best_matches(
            self._target_points, self._points[subset], shots, self._target_groups, self._groups[subset]
        )
        if (found < 0).any():
            record = self.held_out.records[int(np.flatnonzero((found < 0).any(axis=1))[0])]
            raise InputError(f"{name} has fewer than {shots} records besides copies of the held-out record {record.id}")
        return subset[found]

    def measure(self, engine: Engine, context: int, shown: Ints, report: Report) -> list[Measured]:
        """What the model says of each held-out response: first with nothing in context, then as shown.

        What several arrangements show in front of the same record is measured once.

        Args:
            context: tokens that the model takes.
            shown: int64 [arrangements, held-out, shots], candidates.
            report: is told now and then how many of the distinct rows of examples are done.

        Raises:
            InputError: a row of examples and its record exceed the context.
        """
        arrangements, m, shots = shown.shape
        rows, row_of = np.unique(shown.reshape(-1, shots), axis=0, return_inverse=True)
        pairs, pair_of = np.unique(row_of.reshape(-1) * m + np.tile(np.arange(m), arrangements), return_inverse=True)
        examples = encode_rows_of_examples(self.candidates, rows.tolist(), self.template, limit=self.limit)
        row, target = pairs // m, pairs % m
        self._check_length(context, np.array([len(prefix) for prefix in examples.prefixes])[row], row, target, rows)
        bounds = np.searchsorted(row, np.arange(len(rows) + 1))
        units = [Unit(at, target[bounds[at] : bounds[at + 1]]) for at in range(len(rows))]
        found = Measures(np.empty(len(pairs), np.float32), np.empty(len(pairs), np.float32))
        inputs = Inputs(self.candidates, self.held_out, examples, self.targets)

        def write(unit: Unit, measured: Measures) -> None:
            for values, part in zip(found, measured, strict=True):
                values[bounds[unit.example] : bounds[unit.example + 1]] = part

        with at_work(engine, inputs, inputs.target_tokens) as models:
            scoring = Scoring(models, examples, inputs.target_tokens)
            alone = list(scoring.alone())
            for work in scoring.units(units, write):
                report(work.rows)
        behind = [values[pair_of].reshape(arrangements, m).astype(np.float64) for values in found]
        nothing = (np.concatenate(parts).astype(np.float64) for parts in zip(*alone, strict=True))
        return [Measured(*nothing), *(Measured(*both) for both in zip(*behind, strict=True))]

    def _check_length(self, context: int, prefixes: Ints, row: Ints, target: Ints, rows: Ints) -> None:
        tokens = prefixes + self.targets.lengths()[target]
        if tokens.size and tokens.max() > context:
            at = int(tokens.argmax())
            record = self.held_out.records[target[at]]
            shown = ", ".join(self.candidates.records[place].id for place in rows[row[at]].tolist())
            raise InputError(
                f"the held-out record {record.id} (line {record.line}) behind {shown} has {tokens[at]:,} tokens, more "
                f"than the context of {context:,}; use --truncate or fewer --shots"
            )

"""Records × template to the tokens that scoring needs, within the context that the model has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..data.record import Record, RecordSet, Rejected
from ..errors import InputError
from .template import ChatTemplate, Target, Tokens

Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class EncodedExamples:
    """Examples as prefixes.

    Attributes:
        prefixes: token ids up to the last of the example's response, one array for each.
        systems: what opens each record, or None: the text of its system message, and of its tools.
    """

    prefixes: list[Tokens]
    systems: list[str | None]


@dataclass(frozen=True)
class EncodedTargets:
    """Targets as contexts and responses; `systems` as for examples."""

    targets: list[Target]
    systems: list[str | None]

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each target behind an example, int64 [targets]."""
        return np.array([max(len(t.after), len(t.after_system)) + len(t.response) for t in self.targets])


def encode_examples(
    records: RecordSet, template: ChatTemplate, *, limit: int | None, most: int | None = None
) -> EncodedExamples:
    """Every record as an example; with `limit`, prompts are shortened until the record has no more tokens.

    Raises:
        InputError: a record that the template refuses, that cannot be shortened or is far above `most`, named.
    """
    return EncodedExamples(
        _encode(records, lambda record: template.example(record, limit=limit, most=most)),
        [_system(record) for record in records.records],
    )


def encode_rows_of_examples(
    records: RecordSet, rows: Sequence[Sequence[int]], template: ChatTemplate, *, limit: int | None
) -> EncodedExamples:
    """Several examples one after the other as one prefix; `rows` names them by their places in `records`.

    `systems` has the system message that is in force behind them: the last that any of them brings. An example
    repeats its own one where another is in force. The same limit, for each example, and errors as for
    `encode_examples`.
    """
    prefixes: list[Tokens] = []
    systems: list[str | None] = []
    for row in rows:
        parts: list[Tokens] = []
        in_force: str | None = None
        for place in row:
            record = records.records[place]
            own = _system(record)
            with _named(records, record):
                if parts:
                    parts.append(template.further_example(record, system=own != in_force, limit=limit))
                else:
                    parts.append(template.example(record, limit=limit))
            in_force = own if own is not None else in_force
        prefixes.append(np.concatenate(parts))
        systems.append(in_force)
    return EncodedExamples(prefixes, systems)


def encode_targets(
    records: RecordSet,
    template: ChatTemplate,
    *,
    limit: int | None,
    most: int | None = None,
    response_tokens: int | None = None,
) -> EncodedTargets:
    """Every record as a target, of whose scored tokens the first `response_tokens` count (default: all of them).

    The same limits and errors as for `encode_examples`.
    """

    def encode(record: Record) -> Target:
        return template.target(record, limit=limit, most=most).first_scored(response_tokens)

    return EncodedTargets(
        _encode(records, encode),
        [_system(record) for record in records.records],
    )


def without_refused(records: RecordSet, encode: Callable[[Record], object]) -> RecordSet:
    """`records` less those that `encode` refuses."""
    refused = []
    for record in records.records:
        try:
            encode(record)
        except InputError as error:
            refused.append(Rejected(record.line, record.id, str(error)))
    return without(records, refused) if refused else records


class TooLong(NamedTuple):
    """Records behind pairs that exceed the context, by role."""

    examples: list[Rejected]
    targets: list[Rejected]


def too_long(
    examples: RecordSet,
    targets: RecordSet,
    prefixes: Sequence[Tokens],
    lengths: npt.NDArray[np.int64],
    context: int,
) -> TooLong:
    """The longest records of either role, until the others fit `context` in every pair."""
    sizes = np.array([len(prefix) for prefix in prefixes])
    by_size, by_length = np.argsort(-sizes, kind="stable"), np.argsort(-lengths, kind="stable")
    long = TooLong([], [])
    a = b = 0
    while a < len(sizes) and b < len(lengths) and sizes[by_size[a]] + lengths[by_length[b]] > context:
        if sizes[by_size[a]] >= lengths[by_length[b]]:
            record, tokens = examples.records[by_size[a]], sizes[by_size[a]]
            long.examples.append(Rejected(record.line, record.id, f"{tokens:,} tokens as an example"))
            a += 1
        else:
            record, tokens = targets.records[by_length[b]], lengths[by_length[b]]
            long.targets.append(Rejected(record.line, record.id, f"{tokens:,} tokens as a target"))
            b += 1
    return long


def without(records: RecordSet, left_out: Sequence[Rejected]) -> RecordSet:
    """`records` less the ones named, which join those that were rejected when reading."""
    gone = {record.id: record for record in left_out}
    kept = [record for record in records.records if record.id not in gone]
    if not kept:
        raise InputError(f"{records.source}: no record is left that can be scored")
    return replace(records, records=kept, rejected=[*records.rejected, *gone.values()])


def _encode(records: RecordSet, encode: Callable[[Record], Encoded]) -> list[Encoded]:
    encoded = []
    for record in records.records:
        with _named(records, record):
            encoded.append(encode(record))
    return encoded


@contextmanager
def _named(records: RecordSet, record: Record) -> Iterator[None]:
    """An error says which record it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{records.source}:{record.line} (id {record.id}): {error}") from None


def _system(record: Record) -> str | None:
    system = record.turns[0].content if record.turns[0].role == "system" else None
    return f"{system or ''}\0{record.tools}" if record.tools else system

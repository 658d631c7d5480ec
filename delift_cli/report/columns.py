"""Figures of each record as columns, with the pairs of it that are worth seeing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.record import Record
from ..selection.blocks import AnyBlock
from ..visible import one_line
from .document import Column, Pairs, RecordColumns
from .pool import Pool
from .reach import Reach

SUSPICION = {
    True: "mean loss behind its prompt and behind kin, over the loss without to the power of 0.8",
    False: "loss behind kin",
}
SHORT = (90, 60)  # characters of a prompt and of a response that a table shows


def record_columns(pool: Pool) -> RecordColumns:
    """The pool's records."""
    reach, cache = pool.reach, pool.block.cache
    columns = [*said(pool.records)]
    if pool.field is not None:
        columns.insert(1, Column("group", pool.field, "text", [one_line(label, 60) for label in pool.labels]))
    columns += [
        Column.figures("tokens", "tokens", "count", cache.example_tokens, "of the whole record in the chat template"),
        Column.figures("mean", "mean utility", "signed", reach.mean, "to the targets that it was shown in front of"),
        Column.figures("harmful", "harms", "share", reach.harmful, "share of these whose answers it makes less likely"),
        Column.figures("gives", "helps most", "signed", reach.helped.utility[:, 0], "its largest utility"),
        Column.figures("pairs", "pairs", "count", reach.pairs, "targets that it was shown in front of"),
    ]
    ends = [Pairs("helps most", pool.targets_are, reach.helped), Pairs("harms most", pool.targets_are, reach.harmed)]
    if pool.square:
        columns += _as_target(reach, cache.base_logprob)
        ends.insert(0, Pairs("is helped most by", "records", reach.helpers))
    if pool.aims_reach is not None and pool.aims is not pool.block:
        ends.append(Pairs("helps most of the target set", "targets", pool.aims_reach.helped))
    if pool.suspects is not None:
        found = pool.suspects
        columns += [
            Column.figures("suspicion", "suspicion", "number", found.score, SUSPICION[found.alone is not None]),
            Column.figures("behind", "loss behind kin", "number", found.behind, "behind the nearest prompts"),
        ]
        if found.alone is not None:
            columns.append(Column.figures("alone", "loss without prompt", "number", found.alone, "nats per token"))
    if pool.apart is not None:
        columns.append(Column.figures("apart", "apart", "number", pool.apart, "1: helps and is helped least of all"))
    for number, subset in enumerate(pool.subsets):
        rank = np.zeros(len(pool), np.int64)
        rank[subset.places] = np.arange(1, len(subset) + 1)
        ranks = [place or None for place in rank.tolist()]
        columns.append(
            Column(
                "rank" if number == 0 else f"rank{number}", f"place in {subset.name}", "count", ranks, "empty: left out"
            )
        )
    return RecordColumns("records", pool.records, {column.key: column for column in columns}, ends)


def target_columns(name: str, block: AnyBlock, reach: Reach) -> RecordColumns:
    """The targets of a block whose examples are the pool."""
    columns = [*said(block.targets), *_as_target(reach, block.cache.base_logprob)]
    ends = [Pairs("is helped most by", "records", reach.helpers)]
    return RecordColumns(name, block.targets, {column.key: column for column in columns}, ends)


def said(records: Sequence[Record]) -> list[Column]:
    """Id, prompt and response in short."""
    return [
        Column("id", "id", "id", [record.id for record in records]),
        Column("prompt", "prompt", "text", [one_line(record.asked, SHORT[0]) for record in records]),
        Column("response", "response", "text", [one_line(record.response, SHORT[1]) for record in records]),
    ]


def _as_target(reach: Reach, base_logprob: np.ndarray) -> list[Column]:
    return [
        Column.figures("loss", "loss", "number", -base_logprob, "without an example, nats per token"),
        Column.figures(
            "covered", "helped most", "signed", reach.covered, "the largest utility that any record has to it"
        ),
        Column.figures("offered", "shown behind", "count", reach.offered, "records that it was measured behind"),
    ]

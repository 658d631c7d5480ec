"""Records whose texts are nearly the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..compressed import by_row
from .ngrams import Grams, grams, neighbours
from .record import Record, plain

COPIES = 0.9  # cosine of two prompts with one answer from which on they ask the same
TOGETHER = 2_000  # records with an answer that another has: as many answers as make so many are looked at in one go
NEIGHBOURS = 32, 1024  # so many of a record are looked at, then so many of one that has no fewer
PAIRS = 16_000_000  # of records that have even more: all of them, unless these would be more pairs


class Near(NamedTuple):
    """Records' near-duplicates in compressed rows: those of record j are indices[indptr[j]:indptr[j + 1]]."""

    indptr: npt.NDArray[np.int64]  # [n + 1]
    indices: npt.NDArray[np.int32]


class Found(NamedTuple):
    """What a search found, and how many records have more near-duplicates, of which the nearest were taken."""

    near: Near
    cut: int


def near_duplicates(records: Sequence[Record], similarity: float) -> Found:
    """Pairs of records at least this similar: half the cosine of their prompts' n-grams and half their responses'."""
    rows, columns, cut = _alike(_vectors(records), similarity)
    return Found(_compressed(rows, columns, len(records)), cut)


def near_copies(records: Sequence[Record]) -> Found:
    """Pairs of records with one answer, up to case and white space, to nearly the same prompt (`COPIES`).

    Other questions about one long passage are nearly the same prompts, too, but have other answers. Only records whose
    answer another one has are compared, with those of the same answer.
    """
    answers = [plain(record.response_text) for record in records]
    number = {answer: at for at, answer in enumerate(dict.fromkeys(answers))}
    label = np.array([number[answer] for answer in answers], np.int64)
    shared = np.flatnonzero(np.bincount(label)[label] > 1)
    places = shared[np.argsort(label[shared], kind="stable")]
    if not len(places):
        return Found(_compressed(label[:0], label[:0], len(records)), 0)
    vectors = _vectors(records).take(places)  # how rare a gram is, the whole pool says
    ends = np.flatnonzero(np.diff(label[places], append=-1)) + 1  # of the records of one answer
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    start = cut = 0
    for end in ends.tolist():
        if end - start < TOGETHER and end < len(places):
            continue
        found = _alike(vectors.rows(start, end), (1 + COPIES) / 2)
        row, near = (places[start:end][side] for side in found[:2])
        cut += found[2]
        same = label[row] == label[near]
        rows.append(row[same])
        columns.append(near[same])
        start = end
    return Found(_compressed(np.concatenate(rows), np.concatenate(columns), len(records)), cut)


def joined(near: Near) -> npt.NDArray[np.int64]:
    """int64 [records]: the lowest record that each is near to, directly or through others; itself where to none."""
    indptr, indices = near
    owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    lowest, before = np.arange(len(indptr) - 1), None
    while before is None or (lowest != before).any():
        before = lowest.copy()
        np.minimum.at(lowest, owner, before[indices])
        np.minimum.at(lowest, indices, before[owner])
        lowest = lowest[lowest]  # of what it is near to, too: a chain is walked in jumps
    return lowest


def groups_of(near: Near) -> list[list[int]]:
    """Records that are near to each other, directly or through others: groups of two and more, the largest first."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, first in enumerate(joined(near).tolist()):
        members[first].append(place)
    return sorted((group for group in members.values() if len(group) > 1), key=lambda group: (-len(group), group))


def _vectors(records: Sequence[Record]) -> Grams:
    prompts = [plain(record.prompt_text) for record in records]
    return grams(prompts, [plain(record.response_text) for record in records], every=True)


def _alike(vectors: Grams, similarity: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
    """Rows and columns of the pairs, a row's nearest first; and how many rows have more, see `PAIRS`."""
    n = len(vectors)
    own, left = np.arange(n), np.arange(n)
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    most = 0
    while len(left):
        larger = [few for few in NEIGHBOURS if few > most]
        most = min(larger[0] if larger else max(PAIRS // len(left), most), n - 1)
        near, cosines = neighbours(vectors.take(left), vectors, most, own[left], own)
        close = (cosines >= similarity - 1e-6) & (near >= 0)
        full = close.all(axis=1) & (most < n - 1)
        settled = ~full | (not larger)
        rows.append(np.repeat(left[settled], close[settled].sum(axis=1)))
        columns.append(near[settled][close[settled]])
        left = left[~settled]
        if not larger:
            return np.concatenate(rows), np.concatenate(columns), int(full.sum())
    return np.concatenate(rows), np.concatenate(columns), 0


def _compressed(rows: npt.NDArray[np.int64], columns: npt.NDArray[Any], n: int) -> Near:
    order, start = by_row(rows, n)
    return Near(start, columns[order].astype(np.int32))

"""Anchors: a few hundred of the pool's own records that stand for all of it as targets, each for so many.

The pool against its anchors is a rectangular block, fully measured, at a cost of records × anchors instead of records².
Anchors are the records that stand for the others best: facility location over similarities of texts and embeddings,
so that every task has its share of them. Each record then belongs to the anchor most similar to it, and an anchor's
weight is how many belong to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..amount import counted, parse_share
from ..cache.stored import Stored
from ..compressed import by_row
from ..data.limits import named_indices
from ..data.ngrams import grams, neighbours
from ..data.record import Record
from ..errors import InputError
from ..progress import Say, silent
from ..prompt.encoding import EncodedTargets
from ..scoring.job import Inputs
from .measured import coverers, sparse_greedy
from .partial_block import texts_of
from .proposals import points_of

KIN = 4  # times the records that an anchor stands for on average: how many of each record's neighbours are looked at


@dataclass(frozen=True)
class Anchors:
    """places: int64[m], records of the pool, ascending; weights: float64[m], how many each stands for, n in all."""

    places: NDArray[np.int64]
    weights: NDArray[np.float64]


def choose_anchors(
    texts: tuple[Sequence[str], Sequence[str]],
    embeddings: NDArray[np.float32] | None,
    count: int,
    named: Sequence[int] = (),
) -> Anchors:
    """The `count` records that represent all of them best, with the number of records that each stands for.

    Args:
        texts: the records' prompts and responses.
        embeddings: float32 [e, n, d], rows of length 1; None: similarity of texts alone.
        named: these records in place of the best ones; only their weights are found.

    Deterministic. Time and memory as for the neighbours of every record.
    """
    n = len(texts[0])
    vectors = grams(*texts)
    points = None if embeddings is None else points_of(embeddings)
    width = min(n, max(32, KIN * math.ceil(n / max(count, 1))))
    near, similarity = neighbours(vectors, vectors, width, points=points)
    # As compressed rows by the one that would stand for the others; every record is nearest to itself.
    served = np.repeat(np.arange(n, dtype=np.int32), near.shape[1])[near.ravel() >= 0]
    standing, values = near[near >= 0], similarity[near >= 0]
    order, indptr = by_row(standing, n)
    columns, values = served[order], values[order].clip(0)
    if len(named):
        chosen = np.unique(np.asarray(named, np.int64))
    else:
        chosen, _ = sparse_greedy(indptr, columns, values, count, n)
        if len(chosen) < count:  # all records have one at hand that is the same: any others will do
            chosen = np.concatenate([chosen, np.setdiff1d(np.arange(n), chosen)[: count - len(chosen)]])
        chosen = np.sort(chosen)
    entry = coverers(indptr, columns, values, chosen, n)
    standing = standing[order]
    found = entry >= 0
    places = np.searchsorted(chosen, standing[entry[found]])
    weights = np.bincount(places, minlength=len(chosen)).astype(np.float64)
    # Records near to no anchor at all count with each of them.
    return Anchors(chosen, weights + (n - found.sum()) / len(chosen))


def parse_anchors(text: str, records: Sequence[Record]) -> tuple[int, list[int]]:
    """`200` records, `5%` of them, or a file of ids: how many anchors, and which where they are named.

    Raises:
        InputError: none of these, or not fewer than the records.
    """
    n, named = len(records), list[int]()
    if re.fullmatch(r"[0-9]{1,12}", text):
        count = int(text)
    elif text.endswith("%"):
        count = round(parse_share(text, "--anchors") * n)
    else:
        named = named_indices(Path(text), records)
        count = len(named)
    if not 0 < count < n:
        raise InputError(f"--anchors {text} comes to {count:,} of {n:,} records: give at least 1 and fewer than all")
    return count, named


def anchored(
    inputs: Inputs, asked: str, embed: Callable[[], NDArray[np.float32]], kept: Stored | None, say: Say = silent
) -> tuple[Inputs, dict[str, Any]]:
    """The pool against its anchors in place of the pool against itself, and what its cache says of them.

    Args:
        inputs: a pool against itself.
        asked: see `parse_anchors`.
        embed: makes the records' embeddings, float32 [e, n, d], where anchors are to be chosen.
        kept: a cache that was begun; its anchors are taken.
        say: is told where these are not what is asked for, or do not stand for all records.
    """
    records = inputs.examples.records
    count, named = parse_anchors(asked, records)
    if kept is not None and (said := kept.manifest.get("anchors")):
        place = {record.raw: at for at, record in reversed([*enumerate(records)])}
        raws = [record.raw for record in kept.targets().records]
        if not all(raw in place for raw in raws):
            raise InputError(f"{kept.path} has anchors that are not in this pool; score into another directory with -o")
        places, described = [place[raw] for raw in raws], dict(said)
        if set(named) != set(places) if named else count != len(places):
            say(
                f"{kept.path} keeps the {counted(len(places), 'anchor')} that it was begun with, whatever --anchors "
                f"{asked} comes to now; for others score into another directory with -o"
            )
        if (stood_for := described["stand_for"]) < len(records):
            say(f"the anchors of {kept.path} stand for its first {stood_for:,} records, not for those that are new")
    else:
        chosen = choose_anchors(texts_of(records), embed(), count, named)
        places = chosen.places.tolist()
        described = {"stand_for": len(records), "weights": chosen.weights.tolist()}
    targets = replace(
        inputs.examples, records=[records[at] for at in places], rejected=[], duplicates=0, repeated_ids=0, files=()
    )
    encoded = inputs.encoded_targets
    subset = EncodedTargets([encoded.targets[at] for at in places], [encoded.systems[at] for at in places])
    return replace(inputs, targets=targets, encoded_targets=subset), described

"""What is known of a block before a pair is scored: which examples are near to which targets, which records alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..compiled import jit
from ..data.large_pools import nearest, nearest_by_each
from ..data.ngrams import grams
from .estimate import Factors, Graph, graph

# Of a budget without self-pairs, for the nearest examples, by pairs for each target: all of few pairs, for what is
# learned from so little knows less than the neighbours do, and random pairs cost more than they bring; from there
# falling to half of many.
FEW_PAIRS, MANY_PAIRS = 10.0, 19.0
FEW_OF_ALL = 0.1  # of a target's pairs: more of them are not few in a small pool
NEIGHBOURS_OF_FEW, NEIGHBOURS_OF_MANY = 0.75, 0.5
RANDOM_OF_FEW, RANDOM_OF_MANY = 0.04, 0.07
DEGREE = 10
BLOCK = 512  # rows at a time
EMBEDDED_WEIGHT = 0.5  # of the cosine of two embeddings beside that of two texts


def shares(pairs: float, targets: int, examples: int) -> tuple[float, float]:
    """The shares of so many pairs that go to the nearest examples and to random ones; the rest is for later rounds."""
    each, few = pairs / max(targets, 1), min(FEW_PAIRS, FEW_OF_ALL * examples)
    many = min(max((each - few) / (MANY_PAIRS - few), 0.0), 1.0)
    if each <= few:
        return 1.0, 0.0
    random = RANDOM_OF_FEW + many * (RANDOM_OF_MANY - RANDOM_OF_FEW)
    return NEIGHBOURS_OF_FEW + many * (NEIGHBOURS_OF_MANY - NEIGHBOURS_OF_FEW), random


def near_alone(pairs: float, targets: int, examples: int) -> bool:
    """Do so many pairs all go to the nearest examples, so that none are held out to judge estimates by?"""
    return shares(pairs, targets, examples)[1] == 0


NEAR_ALONE = (
    f"up to {FEW_PAIRS:.0f} pairs for each record, but {FEW_OF_ALL:.0%} of all at most, "
    "go to its nearest neighbours alone"
)


@dataclass(frozen=True)
class Proposals:
    """What is known of a block of n examples x m targets before anything is scored.

    `for_examples`: it is for finding each example's best targets (a pool to be chosen from, before a target set), not
    each target's best examples.
    `nearest` int32 [m, q]: examples by falling similarity to the target, -1 where there are none left; `for_examples`
    [n, q]: the targets of each example.
    `proxy`: factors of examples and targets by which another model's utilities are known; see `budget.proxy`.
    `example_key` int64 [n], `target_key` int64 [m]: equal keys mark a record and its copies (self-pairs).
    """

    nearest: NDArray[np.int32]
    example_graph: Graph
    target_graph: Graph
    example_key: NDArray[np.int64]
    target_key: NDArray[np.int64]
    example_features: NDArray[np.float32]
    target_features: NDArray[np.float32]
    for_examples: bool = False
    proxy: Factors | None = None

    def turned(self) -> Proposals:
        """The same with the roles of examples and targets exchanged."""
        return Proposals(
            self.nearest,
            self.target_graph,
            self.example_graph,
            self.target_key,
            self.example_key,
            self.target_features,
            self.example_features,
            not self.for_examples,
            self.proxy and self.proxy[::-1],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, targets)."""
        return len(self.example_key), len(self.target_key)


def propose(
    examples: tuple[Sequence[str], Sequence[str]],
    targets: tuple[Sequence[str], Sequence[str]] | None,
    budget: int,
    example_key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    embeddings: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    base: NDArray[np.floating] | None = None,
    *,
    for_examples: bool = False,
    proxy: Factors | None = None,
) -> Proposals:
    """Neighbours by text and embedding. `examples`, `targets`: (prompts, responses); targets None: the same records.

    `budget` (pairs) decides how many neighbours are looked up. With several embeddings of a record there is a list by
    text and each of them, and the lists take turns: what one does not see, another may. The graphs, along which
    estimates are smoothed, are by text alone: with embeddings in them the estimates were worse.

    Args:
        embeddings: of examples and targets, float32 [e, n, d] and [e, m, d], rows of length 1; None: text alone.
        base: what the model said of the targets without an example, a column each [m, c]; None: not known.
        proxy: another model's utilities, whose best examples of a target are a list of their own; see `Proposals`.
    """
    n, m = len(example_key), len(target_key)
    served, found = (n, m) if for_examples else (m, n)
    width = min(found, math.ceil(1.5 * shares(budget, served, found)[0] * budget / max(served, 1)) + DEGREE)
    features = (
        _features(examples, example_key, target_key, base),
        _features(targets or examples, target_key, target_key, base),
    )
    if targets is None:
        ours = theirs = grams(*examples)
    else:
        vectors = grams([*examples[0], *targets[0]], [*examples[1], *targets[1]])
        ours, theirs = vectors.rows(0, n), vectors.rows(n, n + m)
    turn = 1 if for_examples else -1  # (examples, targets) to (asking, found)
    asking, among = (ours, theirs)[::turn]
    asking_key, among_key = (example_key, target_key)[::turn]
    points = [] if embeddings is None else [_points(*both) for both in zip(*embeddings[::turn], strict=True)]
    # The graph of the records among themselves is by text alone: with the others it costs next to nothing.
    text_alone = [None] if targets is None or not points else []
    near = nearest_by_each([*text_alone, *points], asking, among, width, asking_key, among_key)
    lists = [records for records, _ in near[-len(points) :]]  # without embeddings that of the texts
    if proxy is not None:
        # its factors as the embeddings' sides: of those that ask, of those among which is looked
        asking_said, among_said = proxy[::turn]
        lists.append(_best_by(asking_said, among_said, width, asking_key, among_key))
    in_turn = _in_turn(np.stack(lists), found)
    alike = near[0] if targets is None else nearest(ours, ours, DEGREE, example_key, example_key)
    example_graph = target_graph = graph(*alike, DEGREE)
    if targets is not None:
        target_graph = graph(*nearest(theirs, theirs, DEGREE, target_key, target_key), DEGREE)
    return Proposals(in_turn, example_graph, target_graph, example_key, target_key, *features, for_examples, proxy)


def _best_by(
    asking: NDArray[np.float32],
    among: NDArray[np.float32],
    width: int,
    asking_key: NDArray[np.int64],
    among_key: NDArray[np.int64],
) -> NDArray[np.int32]:
    """The `width` records of `among` whose products with each of `asking` are largest, best first; copies (equal keys)
    stand last, as -1."""
    best = np.full((len(asking), width), -1, np.int32)
    for start in range(0, len(asking), BLOCK):
        rows = slice(start, min(start + BLOCK, len(asking)))
        said = asking[rows] @ among.T
        said[asking_key[rows, None] == among_key] = -np.inf
        top = np.argpartition(-said, width - 1, axis=1)[:, :width]
        values = np.take_along_axis(said, top, axis=1)
        order = np.lexsort((top, -values), axis=1)
        top, values = np.take_along_axis(top, order, axis=1), np.take_along_axis(values, order, axis=1)
        best[rows] = np.where(np.isfinite(values), top, -1)
    return best


@jit()
def _in_turn(lists: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """Lists of records (of n; -1: no more) for each of m others, int32 [list, m, q], as one of the first q: the first
    of each list, then the second of each, and so on, none twice."""
    count, m, q = lists.shape
    merged = np.full((m, q), -1, np.int32)
    seen_for = np.full(n, -1, np.int64)
    for i in range(m):
        taken = 0
        for rank in range(q):
            for each in range(count):
                j = lists[each, i, rank]
                if j >= 0 and seen_for[j] != i and taken < q:
                    seen_for[j] = i
                    merged[i, taken] = j
                    taken += 1
    return merged


def _features(
    texts: tuple[Sequence[str], Sequence[str]],
    key: NDArray[np.int64],
    target_key: NDArray[np.int64],
    base: NDArray[np.floating] | None,
) -> NDArray[np.float32]:
    """What a record's utilities may depend on, float32 [records, 2 + c]: the lengths of its texts, and what the model
    said of it without an example (the targets' mean for a record that is no target)."""
    lengths = np.log1p([[len(text) for text in side] for side in texts]).T
    if base is None:
        return lengths.astype(np.float32)
    order = np.argsort(target_key, kind="stable")
    at = order[np.searchsorted(target_key[order], key).clip(max=len(order) - 1)]
    said = np.where((target_key[at] == key)[:, None], base[at], base.mean(axis=0))
    return np.concatenate([lengths, said], axis=1, dtype=np.float32)


def _points(asking: NDArray[np.float32], among: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors whose products are weighted cosines of what is not common to all records."""
    total = asking.sum(axis=0, dtype=np.float64) + among.sum(axis=0, dtype=np.float64)
    common = (total / (len(asking) + len(among))).astype(np.float32)

    def scaled(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        own = embeddings - common
        own *= EMBEDDED_WEIGHT**0.5 / np.linalg.norm(own, axis=1, keepdims=True).clip(1e-12)
        return own

    theirs = scaled(among)
    return (theirs if np.may_share_memory(asking, among) else scaled(asking)), theirs


def points_of(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of several embeddings [e, n, d] vectors whose products are the sum of all their weighted cosines."""
    each = [_points(one, one) for one in embeddings]
    return np.concatenate([asking for asking, _ in each], axis=1), np.concatenate([among for _, among in each], axis=1)


def self_pairs(
    example_key: NDArray[np.int64], target_key: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One pair for each record that is on both sides: the r-th example of a key with the r-th target of that key."""

    def occurrence(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        return order, np.arange(len(key)) - np.searchsorted(ordered, ordered)

    left, left_rank = occurrence(example_key)
    right, right_rank = occurrence(target_key)
    ranked = {
        (int(key), int(rank)): int(at) for key, rank, at in zip(target_key[right], right_rank, right, strict=True)
    }
    found = [
        (int(at), ranked[int(key), int(rank)])
        for key, rank, at in zip(example_key[left], left_rank, left, strict=True)
        if (int(key), int(rank)) in ranked
    ]
    pairs = np.array(sorted(found), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]

"""Token sequences to batches: a trie of what they share, laid out so that every shared token is decoded once.

Sequences in lexicographic order are the depth-first order of their trie: each one shares its first tokens with
the one before it and adds a *branch* of new ones. The branches in that order form one stream, and any slice of
the stream is a batch: what a branch shares with earlier batches is in the KV cache already, what it shares
inside the batch is a token that belongs to several sequences at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import jit

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class Sequences(NamedTuple):
    """Token sequences end to end.

    Attributes:
        tokens: int32 [total].
        bounds: int64 [s + 1]; sequence i is tokens[bounds[i]:bounds[i + 1]].
        response: int64 [s], the place within sequence i of its first scored token, at least 1.
        scored: bool [total], which tokens are scored; none in front of `response`.
    """

    tokens: Int32
    bounds: Int64
    response: Int64
    scored: Bool

    @classmethod
    def join(cls, pairs: Sequence[tuple[Int32, Int32]], scored: Sequence[Bool] | None = None) -> Sequences:
        """From (context, response) pairs, and which tokens of each response are scored (default: all)."""
        lengths = np.array([len(context) + len(response) for context, response in pairs], np.int64)
        parts = [part for pair in pairs for part in pair]
        return cls(
            np.concatenate(parts) if parts else np.empty(0, np.int32),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([len(context) for context, _ in pairs], np.int64),
            _joined_masks(pairs, scored),
        )

    def scored_places(self, sequence: int) -> Int64:
        """Where the scored tokens of a sequence stand in it."""
        return np.flatnonzero(self.scored[self.bounds[sequence] : self.bounds[sequence + 1]])

    def taken(self, order: Int64) -> Sequences:
        """Some of the sequences."""
        parts = [slice(*self.bounds[at : at + 2].tolist()) for at in order.tolist()]
        firsts = self.response[order].tolist()
        texts = [self.tokens[part] for part in parts]
        return Sequences.join(
            [(text[:first], text[first:]) for text, first in zip(texts, firsts, strict=True)],
            [self.scored[part][first:] for part, first in zip(parts, firsts, strict=True)],
        )

    def sorted_order(self) -> Int64:
        """Indices that put the sequences in lexicographic order; equal ones keep theirs."""
        keys = [
            self.tokens[start:stop].astype(">i4").tobytes()
            for start, stop in zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True)
        ]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _joined_masks(pairs: Sequence[tuple[Int32, Int32]], scored: Sequence[Bool] | None) -> Bool:
    masks = [np.ones(len(response), np.bool_) for _, response in pairs] if scored is None else scored
    parts = [part for (context, _), mask in zip(pairs, masks, strict=True) for part in (np.zeros(len(context)), mask)]
    return np.concatenate(parts).astype(np.bool_) if parts else np.empty(0, np.bool_)


class Trie(NamedTuple):
    """The stream of tokens to evaluate for some sequences, and where each scored token's probability is read.

    The last token of a sequence is never evaluated: nothing is predicted from it.

    Attributes:
        tokens, depth, branch: int32 [e], the evaluated tokens in stream order, their places in their sequences,
            and the branch that added them.
        attach: int32 [b], how many tokens branch b shares with branch b - 1.
        edge_source: int64 [c], nondecreasing; edge_token: int32 [c]: edge k asks for the log-probability of
            edge_token[k] after stream token edge_source[k].
        response_edge: int64 [scored]; response_bounds: int64 [s + 1]: the edges of the s sequences' scored tokens.
    """

    tokens: Int32
    depth: Int32
    branch: Int32
    attach: Int32
    edge_source: Int64
    edge_token: Int32
    response_edge: Int64
    response_bounds: Int64


def build_trie(sequences: Sequences, order: Int64) -> Trie:
    """The trie of `sequences` taken in `order` (lexicographic, see `Sequences.sorted_order`, or a part of it).

    `response_bounds` follows `order`.
    """
    token, depth, parent, scored, response_node, response_bounds = _nodes(*sequences, order)
    evaluated = np.zeros(len(token), np.bool_)
    evaluated[parent[parent >= 0]] = True
    stream = np.flatnonzero(evaluated)
    place = np.full(len(token), -1, np.int64)
    place[stream] = np.arange(len(stream))

    starts = np.ones(len(stream), np.bool_)
    starts[1:] = parent[stream[1:]] != stream[:-1]
    edges = np.flatnonzero(scored)
    edges = edges[np.argsort(place[parent[edges]], kind="stable")]
    edge_of = np.full(len(token), -1, np.int64)
    edge_of[edges] = np.arange(len(edges))
    return Trie(
        tokens=token[stream],
        depth=depth[stream],
        branch=(np.cumsum(starts) - 1).astype(np.int32),
        attach=depth[stream[starts]],
        edge_source=place[parent[edges]],
        edge_token=token[edges],
        response_edge=edge_of[response_node],
        response_bounds=response_bounds,
    )


@jit()
def _nodes(tokens, bounds, response, counts, order):  # type: ignore[no-untyped-def]
    """Trie nodes in depth-first order, and for each scored token the node that holds it."""
    room = 0
    longest = 0
    answers = 0
    for at in order:
        length = bounds[at + 1] - bounds[at]
        room += length
        longest = max(longest, length)
        answers += length - response[at]
    token = np.empty(room, np.int32)
    depth = np.empty(room, np.int32)
    parent = np.empty(room, np.int64)
    scored = np.zeros(room, np.bool_)
    response_node = np.empty(answers, np.int64)
    response_bounds = np.zeros(len(order) + 1, np.int64)
    path = np.empty(longest, np.int64)
    count = 0
    answer = 0
    before_start = 0
    before_length = 0
    for k in range(len(order)):
        start = bounds[order[k]]
        length = bounds[order[k] + 1] - start
        shared = 0
        while shared < length and shared < before_length and tokens[start + shared] == tokens[before_start + shared]:
            shared += 1
        for d in range(shared, length):
            token[count] = tokens[start + d]
            depth[count] = d
            parent[count] = path[d - 1] if d > 0 else -1
            path[d] = count
            count += 1
        for d in range(response[order[k]], length):
            if counts[start + d]:
                scored[path[d]] = True
                response_node[answer] = path[d]
                answer += 1
        response_bounds[k + 1] = answer
        before_start = start
        before_length = length
    return token[:count], depth[:count], parent[:count], scored[:count], response_node[:answer], response_bounds


class Batch(NamedTuple):
    """One slice of a stream, ready to decode.

    The KV cache holds the path of the branch before; branch number b of the batch (from 0) is sequence
    `first_slot + b` and begins with the first `kept[b]` tokens of that path.

    Attributes:
        tokens, positions: int32 [t].
        slot, slots: int32 [t]; token t belongs to slots[t] sequences from slot[t] on.
        outputs: bool [t], the tokens from which something is predicted.
        kept: int32 [branches].
        edges: the edges of the trie that this batch answers.
        edge_row: int64 [edges], the row of the logits that answers each.
    """

    tokens: Int32
    positions: Int32
    slot: Int32
    slots: Int32
    outputs: npt.NDArray[np.bool_]
    kept: Int32
    edges: slice
    edge_row: Int64


def batches(trie: Trie, prefix: Int32, known: int, *, size: int, first_slot: int, slots: int) -> Iterator[Batch]:
    """Cut the stream of `prefix` and, behind it, `trie` into batches.

    Args:
        prefix: int32 [p], tokens in front of every sequence.
        known: how many of them the KV cache holds already.
        size: tokens in a batch, at most.
        first_slot, slots: the sequence numbers that a batch may use.
    """
    head = len(prefix) - known
    tokens = np.concatenate([prefix[known:], trie.tokens])
    positions = np.concatenate([np.arange(known, len(prefix), dtype=np.int32), trie.depth + np.int32(len(prefix))])
    branch = np.concatenate([np.zeros(head, np.int32), trie.branch])
    attach = trie.attach + np.int32(len(prefix))
    start = 0
    while start < len(tokens):
        stop = min(start + size, len(tokens))
        first = int(branch[start])
        if branch[stop - 1] >= first + slots:
            stop = int(np.searchsorted(branch, first + slots))
        last = int(branch[stop - 1])
        kept = attach[first : last + 1].copy()
        kept[0] = positions[start]
        slot = branch[start:stop] - np.int32(first) + np.int32(first_slot)
        edges = slice(*np.searchsorted(trie.edge_source, [start - head, stop - head]).tolist())
        outputs = np.zeros(stop - start, np.bool_)
        sources = trie.edge_source[edges] + (head - start)
        outputs[sources] = True
        yield Batch(
            tokens[start:stop],
            positions[start:stop],
            slot,
            _sharers(positions[start:stop], branch[start:stop], attach, last),
            outputs,
            np.minimum.accumulate(kept),
            edges,
            (np.cumsum(outputs) - 1)[sources],
        )
        start = stop


@jit()
def _sharers(positions, branch, attach, last):  # type: ignore[no-untyped-def]
    """How many branches, from a token's own one on, pass through it."""
    shared = np.empty(len(positions), np.int32)
    for t in range(len(positions)):
        reach = branch[t]
        while reach < last and attach[reach + 1] > positions[t]:
            reach += 1
        shared[t] = reach - branch[t] + 1
    return shared

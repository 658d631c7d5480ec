"""Targets as rows of equal length, each behind a whole copy of the prefix's state.

What a recurrent or hybrid model remembers of a sequence is one state, without a place for each token: it can be copied
whole, but no part of it. So what all targets begin with joins the prefix, and the rest of each is evaluated in full.
llama.cpp evaluates sequences of unequal length in several passes over the weights; targets of about one length are
evaluated together, the shorter ones filled up behind their end, where nothing is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import jit
from ..model.llama import Model
from ..prompt.template import Tokens
from ..prompt.trie import Sequences
from .row_scorer import FIRST_BRANCH, HEAD, PATH, RowScorer

FILLED_SHARE = 0.04  # of the tokens, at most, may be filling
PASS_COSTS = (256.0, 64.0, 16.0, 4.0, 1.0, 0.0)  # tokens that one more pass is taken to cost


class Block(NamedTuple):
    """Targets that are evaluated together: tokens[start:] of the layout as `rows` rows of `length`."""

    start: int
    rows: int
    length: int


class Rows(NamedTuple):
    """Targets laid out for `WholeStates`; `edge_source` to `response_bounds` are as in `prompt.trie.Trie`.

    Attributes:
        tokens: int32 [e], what is evaluated behind a prefix: what all targets share, then the blocks.
        shared: how many tokens all targets share.
        blocks: in the order of `tokens`.
    """

    tokens: npt.NDArray[np.int32]
    shared: int
    blocks: list[Block]
    edge_source: npt.NDArray[np.int64]
    edge_token: npt.NDArray[np.int32]
    response_edge: npt.NDArray[np.int64]
    response_bounds: npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayOutRows:
    """Lays targets out as rows: at most `states` of them and `batch` tokens in a block, unless one row has more.

    `filling` is the share of their tokens that may be added, so that there are fewer blocks.
    """

    states: int
    batch: int
    filling: float = FILLED_SHARE

    def __call__(self, sequences: Sequences, order: npt.NDArray[np.int64]) -> Rows:
        texts = [sequences.tokens[sequences.bounds[at] : sequences.bounds[at + 1]] for at in order.tolist()]
        scored = [sequences.scored_places(at) for at in order.tolist()]
        limit = min(int(places[0]) for places in scored) - 1
        shared = _shared(texts[0], texts[-1], limit)  # they are sorted: all between them share it too
        lengths = np.array([len(text) for text in texts], np.int64) - 1 - shared  # nothing is predicted from the last
        by_length = np.argsort(lengths, kind="stable")
        parts, blocks, filled = [texts[0][:shared]], [], shared
        begins = [0] * len(texts)
        for group in self._groups(lengths[by_length]):
            members = by_length[group].tolist()
            length = int(lengths[members[-1]])
            block = np.empty((len(members), length), np.int32)
            for row, at in enumerate(members):
                block[row, : lengths[at]] = texts[at][shared:-1]
                block[row, lengths[at] :] = texts[at][-1]
                begins[at] = filled + row * length
            parts.append(block.ravel())
            blocks.append(Block(filled, len(members), length))
            filled += block.size
        source = np.concatenate([places - 1 - shared + begin for places, begin in zip(scored, begins, strict=True)])
        token = np.concatenate([text[places] for text, places in zip(texts, scored, strict=True)])
        edges = np.argsort(source)
        response_edge = np.empty(len(edges), np.int64)
        response_edge[edges] = np.arange(len(edges))
        bounds = np.concatenate([[0], np.cumsum([len(places) for places in scored])])
        return Rows(np.concatenate(parts), shared, blocks, source[edges], token[edges], response_edge, bounds)

    def _groups(self, lengths: npt.NDArray[np.int64]) -> Iterator[slice]:
        """Parts of ascending lengths, as few as the filling allows."""
        allowed = self.filling * lengths.sum()
        for cost in PASS_COSTS:
            stops, tokens = _partition(lengths, self.states, self.batch, cost)
            if tokens - lengths.sum() <= allowed:
                break
        start = 0
        while start < len(lengths):
            yield slice(start, int(stops[start]))
            start = int(stops[start])


def _shared(first: Tokens, last: Tokens, limit: int) -> int:
    different = np.flatnonzero(first[:limit] != last[:limit])
    return int(different[0]) if len(different) else limit


@jit()
def _partition(lengths, states, batch, cost):  # type: ignore[no-untyped-def]
    """Where the group that begins at each place stops, for the least tokens + cost × groups; and those tokens."""
    count = len(lengths)
    least = np.zeros(count + 1)
    tokens = np.zeros(count + 1)
    stops = np.zeros(count, np.int64)
    for start in range(count - 1, -1, -1):
        least[start] = np.inf
        for stop in range(start + 1, min(start + states, count) + 1):
            size = (stop - start) * lengths[stop - 1]
            if stop > start + 1 and size > batch:
                break
            if size + cost + least[stop] <= least[start]:
                least[start] = size + cost + least[stop]
                tokens[start] = size + tokens[stop]
                stops[start] = stop
    return stops, tokens[0]


class WholeStates(RowScorer):
    """For models whose state of a sequence can only be copied whole."""

    def __init__(self, model: Model, stop: threading.Event) -> None:
        super().__init__(model, stop)
        self.lay_out = LayOutRows(model.settings.states or 1, model.settings.batch)

    def _fill(self, answers: npt.NDArray[np.float64], prefix: Tokens, layout: Rows) -> None:
        model, known = self._model, len(self._head)
        model.drop_sequence(PATH)
        if known:
            model.copy_sequence(HEAD, PATH)
        self._feed(np.concatenate([prefix[known:], layout.tokens[: layout.shared]]), known, PATH)
        position = len(prefix) + layout.shared
        for block in layout.blocks:
            branches = range(FIRST_BRANCH, FIRST_BRANCH + block.rows)
            if position:
                for branch in branches:
                    model.copy_sequence(PATH, branch)
            places = np.arange(block.rows * block.length)
            slot = (places // block.length + FIRST_BRANCH).astype(np.int32)
            positions = (places % block.length + position).astype(np.int32)
            for start in range(0, len(places), model.settings.batch):  # one part, but for a row that exceeds a batch
                part = slice(start, start + model.settings.batch)
                stream = block.start + places[part]
                first, last = np.searchsorted(layout.edge_source, [stream[0], stream[-1] + 1])
                sources = layout.edge_source[first:last] - stream[0]
                outputs = np.zeros(len(stream), np.bool_)
                outputs[sources] = True
                one = np.ones(len(stream), np.int32)
                logits = self._decode(layout.tokens[stream], positions[part], slot[part], one, outputs)
                rows = (np.cumsum(outputs) - 1)[sources]
                if last > first:
                    answers[first:last] = self._reduce(logits, rows, layout.edge_token[first:last])
            for branch in branches:
                model.drop_sequence(branch)
        model.drop_sequence(PATH)

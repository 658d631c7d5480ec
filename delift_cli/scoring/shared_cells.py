"""Targets as branches of one tree behind a prefix: what they share is evaluated once, its KV cells belong to all."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from ..model.llama import MAX_SEQUENCES, Model
from ..prompt.template import Tokens
from ..prompt.trie import Trie, batches, build_trie
from .row_scorer import FIRST_BRANCH, HEAD, PATH, RowScorer


class SharedCells(RowScorer):
    """For models with a KV cache alone, where a sequence may begin with any part of another."""

    def __init__(self, model: Model, stop: threading.Event) -> None:
        super().__init__(model, stop)
        self.lay_out = build_trie

    def _fill(self, answers: npt.NDArray[np.float64], prefix: Tokens, layout: Trie) -> None:
        model = self._model
        model.drop_sequence(PATH)
        model.copy_sequence(HEAD, PATH, len(self._head))
        for batch in batches(
            layout,
            prefix,
            len(self._head),
            size=model.settings.batch,
            first_slot=FIRST_BRANCH,
            slots=MAX_SEQUENCES - FIRST_BRANCH,
        ):
            branches = range(FIRST_BRANCH, FIRST_BRANCH + len(batch.kept))
            for branch, kept in zip(branches, batch.kept.tolist(), strict=True):
                if kept:
                    model.copy_sequence(PATH, branch, kept)
            logits = self._decode(batch.tokens, batch.positions, batch.slot, batch.slots, batch.outputs)
            answers[batch.edges] = self._reduce(logits, batch.edge_row, layout.edge_token[batch.edges])
            model.drop_sequence(PATH)
            model.copy_sequence(branches[-1], PATH)
            for branch in branches:
                model.drop_sequence(branch)
        model.drop_sequence(PATH)

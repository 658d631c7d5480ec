"""What every way of running many targets behind one prefix has in common."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import RunError
from ..model.llama import Model
from ..model.logprob import token_logprobs
from ..prompt.template import Tokens
from ..prompt.trie import Sequences
from .measures import Measures, NotFiniteError, measures_of

HEAD, PATH, FIRST_BRANCH = 0, 1, 2  # sequence numbers: what all examples share, the path so far, branches
_reducing = threading.Lock()  # Numba's parallel loops may not be entered by two threads at once


class Layout(Protocol):
    """Some targets, laid out for one way: `tokens` are those that are evaluated behind each prefix."""

    @property
    def tokens(self) -> npt.NDArray[np.int32]: ...

    @property
    def edge_token(self) -> npt.NDArray[np.int32]: ...

    @property
    def response_edge(self) -> npt.NDArray[np.int64]: ...

    @property
    def response_bounds(self) -> npt.NDArray[np.int64]: ...


class LayOut(Protocol):
    """Lays out `sequences` taken in `order`, which is lexicographic; equal ones lay out alike."""

    def __call__(self, sequences: Sequences, order: npt.NDArray[np.int64]) -> Any: ...


class RowScorer(ABC):
    """Runs targets through a model behind a prefix.

    Attributes:
        lay_out: makes what `row` takes.
        tokens: evaluated so far; decode_seconds, reduce_seconds: what they took in llama.cpp and in log-softmax.
    """

    lay_out: LayOut

    def __init__(self, model: Model, stop: threading.Event) -> None:
        self._model = model
        self._stop = stop
        self._head = np.empty(0, np.int32)
        self.tokens = 0
        self.decode_seconds = self.reduce_seconds = 0.0

    def keep_head(self, head: Tokens) -> None:
        """Evaluate `head` once, for all prefixes begin with it."""
        self._model.clear()
        self._head = head
        self._feed(head, 0, HEAD)

    def alone(self, sequences: Sequences, chosen: npt.NDArray[np.int64]) -> Measures:
        """Measure targets without an example, in the order of `chosen`.

        Raises:
            NotFiniteError: with the one of `chosen` that shows it.
        """
        self._model.clear()
        self._head = np.empty(0, np.int32)
        place = np.argsort(sequences.sorted_order())
        order = np.argsort(place[chosen], kind="stable")
        try:
            measured = self.row(self._head, self.lay_out(sequences, chosen[order]))
        except NotFiniteError as error:
            raise NotFiniteError(int(chosen[order[error.target]])) from None
        return measured.taken(np.argsort(order))

    def row(self, prefix: Tokens, layout: Layout) -> Measures:
        """Measure every sequence of `layout` behind `prefix`, in the layout's order.

        Raises:
            NotFiniteError: the model gives no finite probability.
            RunError: llama.cpp fails.
        """
        answers = np.empty(len(layout.edge_token), np.float64)
        self._fill(answers, prefix, layout)
        return measures_of(answers[layout.response_edge], layout.response_bounds)

    @abstractmethod
    def _fill(self, answers: npt.NDArray[np.float64], prefix: Tokens, layout: Any) -> None:
        """Evaluate a layout; answers[k] becomes the log-probability of its edge k."""

    def _feed(self, tokens: Tokens, position: int, sequence: int) -> None:
        """Evaluate tokens from `position` on in one sequence, from which nothing is predicted."""
        size = self._model.settings.batch
        for start in range(0, len(tokens), size):
            part = tokens[start : start + size]
            one = np.ones(len(part), np.int32)
            positions = np.arange(position + start, position + start + len(part), dtype=np.int32)
            self._decode(part, positions, sequence * one, one, np.zeros(len(part), np.bool_))

    def _decode(
        self,
        tokens: Tokens,
        positions: npt.NDArray[np.int32],
        slot: npt.NDArray[np.int32],
        slots: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        if self._stop.is_set():
            raise RunError("stopped")
        begun = time.perf_counter()
        logits = self._model.decode(tokens, positions, slot, slots, outputs)
        self.decode_seconds += time.perf_counter() - begun
        self.tokens += len(tokens)
        return logits

    def _reduce(
        self, logits: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float64]:
        begun = time.perf_counter()
        with _reducing:
            found = token_logprobs(logits, rows, tokens)
        self.reduce_seconds += time.perf_counter() - begun
        return found

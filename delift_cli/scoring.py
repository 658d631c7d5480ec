"""Tokens × model to rows of distances and mean log-probabilities."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .cache import CacheWriter
from .encoding import EncodedExamples, EncodedTargets
from .errors import RunError
from .logprob import token_logprobs
from .model import MAX_SEQUENCES, Model
from .template import Tokens
from .trie import Sequences, Trie, batches, build_trie

HEAD, PATH, FIRST_BRANCH = 0, 1, 2  # sequence numbers: what all examples share, the path so far, branches
BASE_CHUNK = 256  # targets measured together without an example; fixed, so that a resumed run agrees


class Measures(NamedTuple):
    """What the model said of some targets: float32 [targets].

    With p the probabilities of a response's L tokens (the end of turn among them), distance is ‖1 − p‖₂ / √L
    (DELIFT, arXiv 2411.04425, section 3) and logprob the mean of ln p, in nats per token.
    """

    distance: npt.NDArray[np.float32]
    logprob: npt.NDArray[np.float32]


@dataclass
class Work:
    """What a run has done so far.

    Attributes:
        pairs: (example, target) pairs scored, not counting targets without an example.
        tokens: tokens evaluated; plain_tokens: those that evaluating every sequence alone would take.
        decode_seconds, reduce_seconds: time in llama.cpp and in log-softmax.
    """

    pairs: int = 0
    rows: int = 0
    tokens: int = 0
    plain_tokens: int = 0
    decode_seconds: float = 0.0
    reduce_seconds: float = 0.0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter, repr=False)

    def finish(self) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.started


class TargetTokens:
    """Targets prepared for scoring behind any example.

    A target's tokens depend on the example in one thing alone: whether its own system message must be repeated
    because the example brought another one.
    """

    def __init__(self, encoded: EncodedTargets) -> None:
        targets = encoded.targets
        self.count = len(targets)
        self.alone = Sequences.join([(target.alone, target.response) for target in targets])
        self._behind = Sequences.join(
            [(target.after, target.response) for target in targets]
            + [(target.after_system, target.response) for target in targets]
        )
        self._systems = np.array([_system_code(system) for system in encoded.systems], np.int64)
        self._sorted_place = np.empty(2 * self.count, np.int64)
        self._sorted_place[self._behind.sorted_order()] = np.arange(2 * self.count)
        self.lengths = encoded.lengths()
        self._tries: dict[tuple[int, int], tuple[Trie, npt.NDArray[np.int64]]] = {}

    def behind(self, system: str | None, first: int) -> tuple[Trie, npt.NDArray[np.int64]]:
        """The trie of targets `first` … behind an example with this system message, and their order in it."""
        key = (_system_code(system), first)
        if key not in self._tries:
            targets = np.arange(first, self.count)
            repeated = (self._systems[first:] != 0) & (self._systems[first:] != key[0])
            sequences = targets + self.count * repeated
            order = np.argsort(self._sorted_place[sequences], kind="stable")
            if len(self._tries) >= 4:
                self._tries.clear()
            self._tries[key] = (build_trie(self._behind, sequences[order]), targets[order])
        return self._tries[key]


def _system_code(system: str | None) -> int:
    return 0 if system is None else hash(system) or 1


def cells_needed(prefixes: Sequence[Tokens], targets: TargetTokens, batch: int) -> int:
    """KV cells that scoring holds at most: one whole path and one batch beside the shared head."""
    alone = int(np.diff(targets.alone.bounds).max(initial=0))
    prefix = max((len(tokens) for tokens in prefixes), default=0)
    return max(alone, prefix + int(targets.lengths.max(initial=0))) + prefix + batch


def score(
    model: Model,
    examples: EncodedExamples,
    targets: TargetTokens,
    cache: CacheWriter,
) -> Iterator[Work]:
    """Score what `cache` lacks, row by row; yields after every unit of work that is safely on disk.

    A row is computed from the same state whatever was computed before it in this process, so that an
    interrupted run gives the same bytes as one that was not.

    Raises:
        RunError: llama.cpp fails, the model gives no finite probability, or the disk is full.
    """
    scorer = _Scorer(model)
    for start in range(0, targets.count, BASE_CHUNK):
        chunk = np.arange(start, min(start + BASE_CHUNK, targets.count))
        missing = chunk[np.isnan(cache.base_distance[chunk])]
        if len(missing):
            distance, logprob = cache.base_distance[chunk].copy(), cache.base_logprob[chunk].copy()
            measured = scorer.alone(targets.alone, missing)
            distance[missing - start], logprob[missing - start] = measured
            cache.write_base(start, distance, logprob)
            yield scorer.work
    cache.sync()

    scorer.keep_head(_common_start(examples.prefixes))
    for example, (prefix, system) in enumerate(zip(examples.prefixes, examples.systems, strict=True)):
        done = int(cache.rows["done"][example])
        if done < targets.count:
            trie, order = targets.behind(system, done)
            measured = scorer.row(prefix, trie)
            place = order - done
            row = Measures(np.empty(len(order), np.float32), np.empty(len(order), np.float32))
            row.distance[place], row.logprob[place] = measured
            cache.write_row(example, *row)
            scorer.work.rows += 1
            scorer.work.pairs += len(order)
            scorer.work.plain_tokens += int((targets.lengths[done:] + len(prefix) - 1).sum())
            yield scorer.work


class _Scorer:
    """Runs tries through a model behind a prefix."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._head = np.empty(0, np.int32)
        self.work = Work()

    def keep_head(self, head: Tokens) -> None:
        """Evaluate `head` once, for all prefixes begin with it."""
        model, size = self._model, self._model.settings.batch
        model.clear()
        self._head = head
        for start in range(0, len(head), size):
            tokens = head[start : start + size]
            one = np.ones(len(tokens), np.int32)
            positions = np.arange(start, start + len(tokens), dtype=np.int32)
            model.decode(tokens, positions, HEAD * one, one, np.zeros(len(tokens), np.bool_))
        self.work.tokens += len(head)

    def alone(self, sequences: Sequences, chosen: npt.NDArray[np.int64]) -> Measures:
        """Measure targets without an example, in the order of `chosen`."""
        self._model.clear()
        self._head = np.empty(0, np.int32)
        place = np.argsort(sequences.sorted_order())
        order = np.argsort(place[chosen], kind="stable")
        measured = self.row(self._head, build_trie(sequences, chosen[order]))
        back = np.argsort(order)
        return Measures(measured.distance[back], measured.logprob[back])

    def row(self, prefix: Tokens, trie: Trie) -> Measures:
        """Measure every sequence of `trie` behind `prefix`, in the trie's order."""
        model, work = self._model, self.work
        answers = np.empty(len(trie.edge_token), np.float64)
        model.drop_sequence(PATH)
        model.copy_sequence(HEAD, PATH, len(self._head))
        for batch in batches(
            trie,
            prefix,
            len(self._head),
            size=model.settings.batch,
            first_slot=FIRST_BRANCH,
            slots=MAX_SEQUENCES - FIRST_BRANCH,
        ):
            begun = time.perf_counter()
            branches = range(FIRST_BRANCH, FIRST_BRANCH + len(batch.kept))
            for branch, kept in zip(branches, batch.kept.tolist(), strict=True):
                if kept:
                    model.copy_sequence(PATH, branch, kept)
            logits = model.decode(batch.tokens, batch.positions, batch.slot, batch.slots, batch.outputs)
            decoded = time.perf_counter()
            answers[batch.edges] = token_logprobs(logits, batch.edge_row, trie.edge_token[batch.edges])
            reduced = time.perf_counter()
            model.drop_sequence(PATH)
            model.copy_sequence(branches[-1], PATH, -1)
            for branch in branches:
                model.drop_sequence(branch)
            work.tokens += len(batch.tokens)
            work.decode_seconds += decoded - begun + time.perf_counter() - reduced
            work.reduce_seconds += reduced - decoded
        model.drop_sequence(PATH)
        return _measures(answers[trie.response_edge], trie.response_bounds)


def _measures(logprobs: npt.NDArray[np.float64], bounds: npt.NDArray[np.int64]) -> Measures:
    """Distance and mean log-probability of responses laid end to end."""
    if not np.isfinite(logprobs).all():
        raise RunError(
            "the model gave a probability that is not a number; try --kv-type f32 or --flash-attn off, "
            "and check the model file"
        )
    lengths = np.diff(bounds)
    squared = np.add.reduceat(np.square(-np.expm1(logprobs)), bounds[:-1])
    total = np.add.reduceat(logprobs, bounds[:-1])
    return Measures(np.sqrt(squared / lengths).astype(np.float32), (total / lengths).astype(np.float32))


def _common_start(prefixes: Sequence[Tokens]) -> Tokens:
    """The tokens that all prefixes begin with, short of the whole of any."""
    if not prefixes:
        return np.empty(0, np.int32)
    first = prefixes[0]
    length = min(len(prefix) for prefix in prefixes) - 1
    for prefix in prefixes[1:]:
        different = np.flatnonzero(first[:length] != prefix[:length])
        if len(different):
            length = int(different[0])
    return first[:length]

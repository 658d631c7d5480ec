"""Tokens × model to distances and mean log-probabilities, an example's targets at a time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..cache.dense import CacheWriter
from ..cache.stored import Writing
from ..model.llama import Model, Settings
from ..prompt.encoding import EncodedExamples, EncodedTargets
from ..prompt.template import Tokens
from ..prompt.trie import Sequences, build_trie
from .measures import Measures, NotFiniteError
from .row_scorer import LayOut, Layout, RowScorer
from .shared_cells import SharedCells
from .whole_states import LayOutRows, WholeStates

PROBE_TOKENS = 512  # what a run of a probe evaluates: enough to time, little enough to wait for
PROBE_EXAMPLES = 64  # of which the shortest stands before them
PROBE_RUNS = 3
PROBE_SECONDS = 2.0  # after which no further run begins
KEPT_LAYOUTS = 4  # one for each system message in turn; pools rarely mix more
_NO_SYSTEM = 0
BASE_CHUNK = 256  # targets measured together without an example; fixed, so that a resumed run agrees


class Unit(NamedTuple):
    """One example and the targets, int64 ascending, that it is shown to: its prefix is evaluated once for them."""

    example: int
    targets: npt.NDArray[np.int64]


@dataclass
class Work:
    """What a run has done so far.

    Attributes:
        pairs: (example, target) pairs scored, not counting targets without an example.
        rows: units of work that are done; of a dense block, examples whose row is complete.
        tokens: tokens evaluated; plain_tokens: those that evaluating every pair alone would take.
        seconds: since the run began; decode_seconds, reduce_seconds: of them in llama.cpp and in log-softmax, the
            threads' time added up.
    """

    pairs: int = 0
    rows: int = 0
    tokens: int = 0
    plain_tokens: int = 0
    seconds: float = 0.0
    decode_seconds: float = 0.0
    reduce_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter, repr=False)

    def count(self, unit: Unit, examples: EncodedExamples, targets: TargetTokens) -> None:
        """One more unit is done."""
        self.rows += 1
        self.pairs += len(unit.targets)
        prefix = len(examples.prefixes[unit.example])
        self.plain_tokens += int((targets.lengths[unit.targets] + prefix - 1).sum())

    def plus(self, scorers: Sequence[RowScorer]) -> Work:
        """The same with what the scorers have done until now."""
        return replace(
            self,
            tokens=sum(scorer.tokens for scorer in scorers),
            seconds=time.perf_counter() - self.started,
            decode_seconds=sum(scorer.decode_seconds for scorer in scorers),
            reduce_seconds=sum(scorer.reduce_seconds for scorer in scorers),
        )


class TargetTokens:
    """Targets prepared for scoring behind any example.

    A target's tokens depend on the example in one thing alone: whether its own system message must be repeated
    because the example brought another one.
    """

    def __init__(self, encoded: EncodedTargets) -> None:
        targets = encoded.targets
        self.count = len(targets)
        scored = [target.scored for target in targets]
        self.alone = Sequences.join([(target.alone, target.response) for target in targets], scored)
        self._behind = Sequences.join(
            [(target.after, target.response) for target in targets]
            + [(target.after_system, target.response) for target in targets],
            2 * scored,
        )
        self._codes: dict[str | None, int] = {None: _NO_SYSTEM}
        self._systems = np.array([self._codes.setdefault(s, len(self._codes)) for s in encoded.systems], np.int64)
        self._sorted_place = np.empty(2 * self.count, np.int64)
        self._sorted_place[self._behind.sorted_order()] = np.arange(2 * self.count)
        self.lengths = encoded.lengths()
        self.all = np.arange(self.count)
        self._laid_out: dict[tuple[LayOut, int, int], tuple[Any, npt.NDArray[np.int64]]] = {}

    def behind(
        self, system: str | None, targets: npt.NDArray[np.int64], lay_out: LayOut = build_trie
    ) -> tuple[Any, npt.NDArray[np.int64]]:
        """Some targets (ascending) laid out to stand behind an example with this system message, and their order.

        That of all the last ones is kept, for it is what every row of a dense block asks for.
        """
        code = self._codes.get(system, -1)
        if len(targets) == 0 or len(targets) < self.count - targets[0]:
            return self._build(code, targets, lay_out)
        key = lay_out, code, int(targets[0])
        known = self._laid_out.get(key)
        if known is not None:
            return known
        made = self._build(code, targets, lay_out)
        if len(self._laid_out) >= KEPT_LAYOUTS:
            self._laid_out.clear()
        self._laid_out[key] = made
        return made

    def first(self, system: str | None, tokens: int, lay_out: LayOut = build_trie) -> tuple[Any, npt.NDArray[np.int64]]:
        """The same for the first targets that come to about so many tokens."""
        count = int(np.searchsorted(np.cumsum(self.lengths), tokens)) + 1
        return self._build(self._codes.get(system, -1), np.arange(min(count, self.count)), lay_out)

    def _build(self, code: int, targets: npt.NDArray[np.int64], lay_out: LayOut) -> tuple[Any, npt.NDArray[np.int64]]:
        repeated = (self._systems[targets] != _NO_SYSTEM) & (self._systems[targets] != code)
        sequences = targets + self.count * repeated
        order = np.argsort(self._sorted_place[sequences], kind="stable")
        return lay_out(self._behind, sequences[order]), targets[order]


def row_scorer(model: Model, stop: threading.Event) -> RowScorer:
    """The way in which this model's settings say that targets stand behind a prefix."""
    return SharedCells(model, stop) if model.settings.states is None else WholeStates(model, stop)


def lay_out_of(settings: Settings) -> LayOut:
    """How that way lays targets out, for counting tokens without a model."""
    return build_trie if settings.states is None else LayOutRows(settings.states, settings.batch)


def cells_needed(prefixes: Sequence[Tokens], targets: TargetTokens, batch: int) -> int:
    """KV cells that scoring holds at most: one whole path and one batch beside the shared head."""
    return longest_pair(prefixes, targets) + _longest(prefixes) + batch


def longest_pair(prefixes: Sequence[Tokens], targets: TargetTokens) -> int:
    """Tokens of the longest pair, or of the longest target without an example."""
    alone = int(np.diff(targets.alone.bounds).max(initial=0))
    return max(alone, _longest(prefixes) + int(targets.lengths.max(initial=0)))


def _longest(prefixes: Sequence[Tokens]) -> int:
    return max((len(tokens) for tokens in prefixes), default=0)


def lacking(values: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.int64]]:
    """Of each chunk of records the places of those whose value is NaN, int64, ascending."""
    for start in range(0, len(values), BASE_CHUNK):
        missing = start + np.flatnonzero(np.isnan(values[start : start + BASE_CHUNK]))
        if len(missing):
            yield missing


def write_base(cache: Writing, missing: npt.NDArray[np.int64], measured: Measures) -> None:
    """Store what `lacking` said was missing of a chunk of `base_distance`."""
    start = int(missing[0]) // BASE_CHUNK * BASE_CHUNK
    chunk = slice(start, start + BASE_CHUNK)
    distance, logprob = cache.base_distance[chunk].copy(), cache.base_logprob[chunk].copy()
    distance[missing - start], logprob[missing - start] = measured
    cache.write_base(start, distance, logprob)


def score_rows(measuring: Measuring, targets: TargetTokens, cache: CacheWriter) -> Iterator[Work]:
    """Measure what `cache` lacks of all pairs, row by row."""
    yield from measuring.base(cache)
    rows = np.flatnonzero(cache.rows["done"] < targets.count).tolist()
    units = (Unit(example, cache.missing(example)) for example in rows)
    yield from measuring.units(units, lambda unit, measured: cache.write_row(unit.example, *measured))


class Measuring(Protocol):
    """What measures a block: the models of this machine (`Scoring`), or the workers of a cluster."""

    @property
    def lay_out(self) -> LayOut:
        """How targets are laid out."""

    @property
    def work(self) -> Work:
        """What was done so far."""

    def base(self, cache: Writing) -> Iterator[Work]:
        """Measure the targets that `cache` lacks without an example."""

    def units(self, units: Iterable[Unit], write: Callable[[Unit, Measures], None]) -> Generator[Work, None, None]:
        """Measure `units`; each one's results, in the order of its targets, go to `write` in this thread."""


class Scoring:
    """Models at work on one block. Every step yields what was done so far, after it is safely on disk.

    Each model works on units of its own in a thread of its own: two contexts over one GPU keep it busy while the
    logits of the other are reduced, and contexts on several GPUs share the units out. A unit is computed from the
    same state whatever was computed before it, so that neither the number of models nor an interruption shows
    in the result.

    Raises:
        RunError: llama.cpp fails, the model gives no finite probability, or the disk is full.
    """

    def __init__(self, models: Sequence[Model], examples: EncodedExamples, targets: TargetTokens) -> None:
        self._examples = examples
        self._targets = targets
        self._stop = threading.Event()
        self._scorers = [row_scorer(model, self._stop) for model in models]
        self._head = common_start(examples.prefixes)
        self._total = Work()

    @property
    def lay_out(self) -> LayOut:
        """How targets are laid out."""
        return self._scorers[0].lay_out

    @property
    def work(self) -> Work:
        """What was done so far."""
        return self._total.plus(self._scorers)

    def alone(self) -> Iterator[Measures]:
        """Measure all targets without an example, a part at a time."""
        for start in range(0, self._targets.count, BASE_CHUNK):
            yield self.without_example(self._targets.all[start : start + BASE_CHUNK])

    def base(self, cache: Writing) -> Iterator[Work]:
        """Measure the targets that `cache` lacks without an example."""
        for missing in lacking(cache.base_distance):
            write_base(cache, missing, self.without_example(missing))
            yield self.work
        cache.sync()

    def without_example(self, chosen: npt.NDArray[np.int64]) -> Measures:
        """Measure some targets, int64 [chosen], without an example, in their order."""
        self._stop.clear()
        return self._scorers[0].alone(self._targets.alone, chosen)

    def units(self, units: Iterable[Unit], write: Callable[[Unit, Measures], None]) -> Generator[Work, None, None]:
        """Measure `units`; each one's results, in the order of its targets, go to `write` in this thread."""
        self._stop.clear()
        for scorer in self._scorers:
            scorer.keep_head(self._head)
        waiting = iter(units)
        running: dict[Future[Measures], tuple[RowScorer, Unit]] = {}
        with ThreadPoolExecutor(len(self._scorers)) as threads:

            def start_next(scorer: RowScorer) -> None:
                for unit in itertools.islice(waiting, 1):
                    running[threads.submit(self._measure, scorer, unit)] = scorer, unit

            try:
                for scorer in self._scorers:
                    start_next(scorer)
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        scorer, unit = running.pop(future)
                        measured = future.result()
                        start_next(scorer)
                        write(unit, measured)
                        self._total.count(unit, self._examples, self._targets)
                        yield self.work
            finally:
                self._stop.set()

    def _measure(self, scorer: RowScorer, unit: Unit) -> Measures:
        layout, order = self._targets.behind(self._examples.systems[unit.example], unit.targets, scorer.lay_out)
        try:
            measured = scorer.row(self._examples.prefixes[unit.example], layout)
        except NotFiniteError as error:
            raise NotFiniteError(int(order[error.target]), unit.example) from None
        return measured.taken(np.argsort(order))


class Probe:
    """A few batches of real pairs, to see how fast and how exact a way of running the model is.

    The first targets, up to `PROBE_TOKENS` tokens of them, stand behind the shortest of the first examples.
    """

    def __init__(self, model: Model, examples: EncodedExamples, targets: TargetTokens) -> None:
        self._scorer = row_scorer(model, threading.Event())
        first = examples.prefixes[:PROBE_EXAMPLES]
        example = min(range(len(first)), key=lambda at: len(first[at]))
        self._prefix = examples.prefixes[example]
        self._layout: Layout
        self._layout, _ = targets.first(examples.systems[example], PROBE_TOKENS, self._scorer.lay_out)

    def time(self, seconds: float = PROBE_SECONDS) -> tuple[float, Measures]:
        """Tokens/s of the best of a few runs, and what was measured; no run begins after `seconds`.

        The first one warms up, and counts where it alone takes longer than that.
        """
        best, begun = 0.0, time.perf_counter()
        for run in range(PROBE_RUNS):
            tokens, started = self._scorer.tokens, time.perf_counter()
            measured = self._scorer.row(self._prefix, self._layout)
            ended = time.perf_counter()
            rate = (self._scorer.tokens - tokens) / (ended - started)
            best = rate if run <= 1 else max(best, rate)
            if ended - begun > seconds:
                break
        return best, measured


def common_start(prefixes: Sequence[Tokens]) -> Tokens:
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

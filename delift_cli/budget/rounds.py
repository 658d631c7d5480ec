"""A scoring run within a budget: plan a round of pairs, score it, plan the next from what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import ROUND_CEILING, Context
from typing import NamedTuple

import numpy as np

from ..amount import Budget, counted, parse_budget
from ..cache.proxies import kept_proxy
from ..cache.sparse import BYTES_PER_PAIR, SparseCache, SparseWriter
from ..cache.stored_round import Asked, StoredRound
from ..errors import InputError
from ..prompt.trie import build_trie
from ..scoring.embeddings import Embeddings
from ..scoring.job import Forecast, Inputs
from ..scoring.measures import Measures
from ..scoring.pairs import Measuring, Unit, Work, common_start
from ..scoring.row_scorer import LayOut
from . import plan
from .measured import Scored, settled
from .partial_block import proposals, said_without, scored

LATER = 0.6  # of the examples, those that have pairs in a later round
COMPARED = 2  # the last rounds, which leave the selection as it was where it has settled
MARGIN = 0.95  # of the time that is left; the rest is for rates that change and plans that take longer
SAMPLED_EXAMPLES, SAMPLED_TARGETS = 8, 64
ENOUGH = Context(prec=2, rounding=ROUND_CEILING)  # of a share that is told: rounded down it would be refused too


class Cost(NamedTuple):
    """Tokens of a partly scored block: `prefixes` of all examples, `pair` for each pair on average."""

    prefixes: int
    pair: float

    def tokens(self, pairs: int, rounds: int) -> int:
        """What so many pairs take in so many rounds, about."""
        return round(self._prefixes(rounds) + pairs * self.pair)

    def pairs(self, tokens: float, rounds: int) -> int:
        """How many pairs so many tokens are enough for."""
        return max(0, int((tokens - self._prefixes(rounds)) / self.pair))

    def _prefixes(self, rounds: int) -> float:
        return (1 + LATER * (rounds - 1)) * self.prefixes


def cost(inputs: Inputs, lay_out: LayOut = build_trie) -> Cost:
    """Measured on some random targets, laid out behind some of the examples."""
    encoded, targets, rng = inputs.encoded_examples, inputs.target_tokens, np.random.default_rng(0)
    head = len(common_start(encoded.prefixes))
    some = np.unique(np.linspace(0, len(encoded.prefixes) - 1, SAMPLED_EXAMPLES).astype(int)).tolist()
    count = min(targets.count, SAMPLED_TARGETS)
    tokens = 0
    for example in some:
        chosen = np.sort(rng.choice(targets.count, count, replace=False))
        tokens += len(targets.behind(encoded.systems[example], chosen, lay_out)[0].tokens)
    return Cost(sum(len(prefix) - head for prefix in encoded.prefixes), tokens / (count * len(some)))


def embedded_tokens(inputs: Inputs) -> int:
    """Tokens that the records' embeddings take, once for a cache."""
    examples = sum(map(len, inputs.encoded_examples.prefixes))
    return examples if inputs.targets is None else examples + int(inputs.target_tokens.lengths.sum())


def check_budget(pairs: int, shape: tuple[int, int], budget: str, cache: SparseCache | None) -> None:
    """InputError for fewer pairs (in all) than a first round needs to show every new record twice on either side."""
    n, m = shape
    known, planned = ((0, 0), 0) if cache is None else (cache.known, cache.planned)
    new = max(0, n - known[0]), max(0, m - known[1])
    least = planned + min(2 * sum(new), n * m - planned) if any(new) else 0
    if pairs < least:
        examples, targets = (
            counted(number, f"{'new ' * (planned > 0)}{side}")
            for number, side in zip(new, ("example", "target"), strict=True)
        )
        raise InputError(
            f"--budget {budget} comes to {pairs:,} of {n * m:,} pairs, too few for {examples} and {targets}: "
            f"give at least {least:,} pairs ({ENOUGH.create_decimal(100 * least / (n * m)):f}%)"
        )


def forecast(
    whole: Forecast,
    inputs: Inputs,
    budget: Budget | None,
    cache: SparseCache | None,
    lay_out: LayOut = build_trie,
    shape: tuple[int, int] | None = None,
) -> tuple[Forecast, int]:
    """What a run will take, given what all pairs would, and in how many rounds at most.

    `budget`, `cache` (None: a new one): see `Rounds`. `shape`: of the block that `inputs` are a sample of, if they are.
    """
    shape, sampled = shape or inputs.shape, inputs.shape
    each = cost(inputs, lay_out)
    pairs_cost = Cost(each.prefixes * shape[0] // sampled[0], each.pair)
    done = cache.pairs_done if cache else 0
    begun = cache is not None and done > 0 and cache.known == shape
    embedding = 0 if begun else embedded_tokens(inputs) * sum(shape) // sum(sampled)
    goal, rounds, _ = pending(cache, budget, shape)
    if budget is not None and budget.seconds is not None:
        affordable = MARGIN * budget.seconds * whole.tokens_per_second - embedding
        pairs = min(whole.pairs - done, pairs_cost.pairs(affordable, rounds))
    else:
        pairs = max(goal, cache.planned if cache else 0) - done
    if budget is not None:
        check_budget(done + pairs, shape, budget.text, cache)
    if cache is not None and cache.rounds and not cache.complete:
        rounds += 1  # the one that was interrupted
    tokens = embedding + min(whole.tokens, pairs_cost.tokens(pairs, rounds)) if pairs else 0
    return replace(
        whole,
        pairs=pairs,
        tokens=tokens,
        plain_tokens=round(whole.plain_tokens * pairs / whole.pairs),
        seconds=tokens / whole.tokens_per_second,
        disk_bytes=pairs * BYTES_PER_PAIR,
    ), rounds


class Rounds:
    """One run: go through `rounds()` and let `score()` do each of them.

    `stopped` says why it ended: `budget` (everything planned is scored), `time`, or `settled`: the last two rounds left
    the selection as it was, and so should the next ones.

    Args:
        budget: None to go on with what an earlier run was to do.
        for_examples: is it for finding each example's best targets, or each target's best examples?
        embeddings: of examples and targets, as `embeddings_of` gives them; near ones are scored first.
        tokens_per_second: the expected rate, until there is a measured one. For a time only.
        deadline: by `time.monotonic()`; None for a budget that is not a time.
        stopped_seconds: those in which the process was stopped, which are not spent; see `clock.stops`.
    """

    def __init__(
        self,
        scoring: Measuring,
        inputs: Inputs,
        cache: SparseWriter,
        budget: Budget | None,
        seed: int,
        embeddings: tuple[Embeddings, Embeddings],
        *,
        for_examples: bool = False,
        tokens_per_second: float = 0.0,
        deadline: float | None = None,
        stopped_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.stopped = "budget"
        self._scoring = scoring
        self._inputs = inputs
        self._cache = cache
        self._budget = budget
        self._seed = seed
        self._embeddings = embeddings
        self._for_examples = for_examples
        self._rate = tokens_per_second
        self._deadline = deadline
        self._stopped_seconds = stopped_seconds

    def rounds(self) -> Iterator[StoredRound]:
        """The round that was interrupted, if one was, then new ones, each planned when it is asked for."""
        cache = self._cache
        for part in list(cache.rounds):  # what was interrupted, and what an earlier one lost
            if len(part.todo):
                yield part
        n, m = cache.shape
        goal, left, budget = pending(cache, self._budget, cache.shape)
        texts, planning = None, 0.0
        for rounds_left in range(left, 0, -1):
            if self._late():
                return
            started = self._now()
            if self._deadline is not None:
                goal = self._affordable(rounds_left, planning)
                check_budget(goal, cache.shape, budget, cache)
            texts = texts or proposals(
                self._inputs.examples.records,
                None if self._inputs.targets is None else self._inputs.targets.records,
                goal,
                self._embeddings,
                said_without(cache),
                for_examples=self._for_examples,
                proxy=kept_proxy(cache),
            )
            known = scored(cache)
            enough = rounds_left <= plan.rounds_for(cache.shape) - COMPARED - 1
            if goal < n * m and enough and settled(texts, self._before_last_rounds(known), known):
                self.stopped = "settled"
                return
            later = cache.later if cache.rounds else None
            new = plan.next_round(texts, known, goal, rounds_left=rounds_left, seed=self._seed, later=later)
            planning = self._now() - started
            if not len(new):
                if self._deadline is not None and cache.planned < n * m:
                    self.stopped = "time"
                return
            asked = Asked(budget, min(goal, n * m), rounds_left, self._seed, n, m, self._for_examples)
            yield cache.begin_round(asked, new.indptr, new.targets, new.source)

    def score(self, part: StoredRound) -> Iterator[Work]:
        """Score what is missing of a round, until the time is up.

        The examples come in random order, so that a round that is cut short is a fair sample of its plan.
        """
        todo = np.random.default_rng(self._seed).permutation(part.todo).tolist()
        units = (Unit(example, part.targets[part.pairs_of(example)].astype(np.int64)) for example in todo)
        before, started = self._scoring.work.tokens, self._now()

        def write(unit: Unit, measured: Measures) -> None:
            self._cache.write_pairs(part, unit.example, *measured)

        with closing(self._scoring.units(units, write)) as steps:
            for work in steps:
                yield work
                if self._late():
                    return
        if self._deadline is not None and todo:
            self._rate = (self._scoring.work.tokens - before) / (self._now() - started)

    def _before_last_rounds(self, known: Scored) -> Scored:
        """Scored pairs stand in the order of rounds."""
        return known[: len(known) - sum(part.pairs_done for part in self._cache.rounds[-COMPARED:])]

    def _now(self) -> float:
        return time.monotonic() - self._stopped_seconds()

    def _late(self) -> bool:
        late = self._deadline is not None and self._now() > self._deadline
        if late:
            self.stopped = "time"
        return late

    def _affordable(self, rounds_left: int, planning: float) -> int:
        """Pairs in all that the time left is enough for."""
        assert self._deadline is not None
        seconds = MARGIN * (self._deadline - self._now()) - rounds_left * planning
        return self._cache.planned + cost(self._inputs, self._scoring.lay_out).pairs(seconds * self._rate, rounds_left)


def pending(cache: SparseCache | None, budget: Budget | None, shape: tuple[int, int]) -> tuple[int, int, str]:
    """What is left to do: pairs in all to reach, rounds to do it in, and the budget's text. `cache` None: a new one.

    What the last run was to do comes first, when it is asked for again or nothing else is asked for. If records have
    come since, so that the block has another `shape`, its share counts for all of them.
    """
    last = cache.rounds[-1].asked if cache and cache.rounds else None
    if cache and last and cache.known != shape:
        again = parse_budget(last.budget)
        if budget is None and again.share is not None and not again.more:
            budget = again
        elif budget is None:
            raise InputError(f"there are new records for {cache.path}: say how many pairs to score, as in --budget 5%")
    elif cache and last and (budget is None or budget.text == last.budget):
        unfinished = last.rounds_left > 1 and cache.planned < last.goal
        interrupted = unfinished or not cache.rounds[-1].ended  # by then `+5%` had not come to its end
        if interrupted or budget is None or not budget.more:
            return last.goal, last.rounds_left - 1 if unfinished else 0, last.budget
    if budget is None:
        raise InputError(f"{cache.path if cache else 'the cache'} has no round that was begun: give a --budget")
    n, m = shape
    planned = cache.planned if cache else 0
    return (0 if budget.seconds else budget.goal(n * m, planned)), plan.rounds_for(shape), budget.text

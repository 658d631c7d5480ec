"""One `delift score` from end to end: records, model and cache made ready, then all pairs or rounds of some of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..amount import Budget, duration
from ..cache.dense import Cache
from ..cache.files import may_append
from ..cache.lock import network_file_system
from ..cache.manifest import same_records
from ..cache.proxies import keep_proxy
from ..cache.sparse import SparseCache, SparseWriter, open_cache
from ..cache.stored import Writing
from ..data import large_pools
from ..data.record import RecordSet
from ..errors import InputError
from ..model.gguf import ModelFile
from ..model.log import log_file
from ..progress import Progress, Say, Step, counting, silent
from ..prompt.template import ChatTemplate
from ..scoring import job, where
from ..scoring.embeddings import embeddings_of
from ..scoring.load import Watch
from ..scoring.measures import NotFiniteError
from ..scoring.pairs import Measuring, Work, lay_out_of, score_rows
from ..scoring.tuning import known_rate
from ..scoring.without_prompt import logprob_without_prompt
from . import plan, rounds
from .clock import stops
from .estimate import Factors
from .proposals import near_alone
from .result import Expected, Scores
from .sample import scaled

ALL_PAIRS_SECONDS = 12 * 3600  # what a run may take that was not given a budget
SLOWEST = 50.0  # tokens/s: below what that leaves time for, the forecast is not worth its seconds


@dataclass(frozen=True)
class Run:
    """A run that is ready to begin: `forecast` says what it will take, `score` does it.

    Made by `opening.open_run`, whose arguments the fields are. `layout`: of the cache that is there, or None.
    `sample_of` is the shape of the block of which `inputs` are a sample: then the run can only be forecast.
    """

    path: Path
    layout: str | None
    sparse: bool
    inputs: job.Inputs
    file: ModelFile
    identity: dict[str, Any]
    template: ChatTemplate
    engine: job.Engine
    description: dict[str, Any]
    budget: Budget | None
    seed: int
    pool_before_targets: bool
    keep_log: bool
    cluster: str | None
    threads: int | None
    started: float
    say: Say = silent
    sample_of: tuple[int, int] | None = None
    proxy: Factors | None = None

    @property
    def records(self) -> tuple[RecordSet, RecordSet | None]:
        """The examples and targets that are to be scored; no targets where the pool is scored against itself."""
        return self.inputs.examples, self.inputs.targets

    def forecast(self) -> Expected:
        """What this run is expected to take, from counted tokens and a few timed batches."""
        whole = job.forecast(self.engine, self.inputs)
        if self.sample_of is not None:
            whole = scaled(whole, math.prod(self.sample_of) / math.prod(self.inputs.shape))
        read = self.inputs.sets if self.sample_of is None else ()
        if not self.sparse:
            return Expected(scaled(whole, self._share_left()), whole, None, self.engine, False, read)
        begun = SparseCache(self.path) if self.layout else None
        lay_out = lay_out_of(self.engine.settings)
        run, count = rounds.forecast(whole, self.inputs, self.budget, begun, lay_out, self.sample_of)
        shape = self.sample_of or self.inputs.shape
        served, found = shape if self.pool_before_targets else shape[::-1]
        own = shape[0] if self.inputs.targets is None else 0
        alone = begun is None and near_alone(run.pairs - own, served, found)
        return Expected(run, whole, count, self.engine, alone, read)

    def _share_left(self) -> float:
        """Of all pairs, what a cache of all pairs lacks; of other records, whose number is all that a sample knows,
        everything."""
        if self.layout is None:
            return 1.0
        cache = Cache(self.path)
        sampled = self.sample_of is not None
        same = cache.shape == self.sample_of if sampled else same_records(cache.manifest, *self.records)
        return 1.0 - cache.rows_done / cache.shape[0] if same else 1.0

    def score(self, progress: Progress = silent) -> Scores:
        """Score what the cache lacks, or what the budget is enough for.

        Raises:
            InputError: all pairs would take too long, the budget is too small, or the cache there is another one's.
            RunError: llama.cpp or the disk failed; what was scored is safe.
        """
        assert self.sample_of is None
        return self._some_pairs(progress) if self.sparse else self._all_pairs(progress)

    def _all_pairs(self, progress: Progress) -> Scores:
        if self.layout is None and self.budget is None and self.cluster is None and self._long():
            _check_all_pairs(job.forecast(self.engine, self.inputs))
        with job.open_cache(self.path, self.description, self.inputs) as cache, self._log():
            self._say_first(cache)
            self._without_prompts(cache, progress)
            rows, already = cache.shape[0], cache.rows_done
            work, watch = Work(), self._watch()
            if not cache.complete:
                with self._measuring(cache) as measuring:
                    for work in score_rows(measuring, self.inputs.target_tokens, cache):
                        watch.see(work)
                        speed = f"{work.pairs:,} pairs, {_rates(work.pairs, work.tokens, work.seconds)}"
                        left = work.seconds / work.rows * (rows - already - work.rows) if work.rows else None
                        progress(Step("scoring", already + work.rows, rows, speed, left))
        return self._scores(work, None)

    def _some_pairs(self, progress: Progress) -> Scores:
        rate = 0.0
        if self.budget and self.budget.seconds:
            rate, _ = job.measured_rate(self.engine, self.inputs)
        self._check_budget()
        with (
            job.open_sparse_cache(self.path, self.description, self.inputs) as cache,
            self._log(),
            stops() as stopped_seconds,
        ):
            self._say_first(cache)
            if cache.rounds and (before := cache.rounds[-1].asked.seed) != self.seed:
                said = f"pairs of {self.path} were chosen with --seed {before}"
                self.say(f"{said}; {self.seed} counts for new ones alone")
            if self.proxy is not None:
                keep_proxy(cache, self.proxy)
            self._without_prompts(cache, progress)
            work, stopped = self._rounds(cache, rate, progress, stopped_seconds)
            if not cache.pairs_done:
                text = self.budget.text if self.budget else ""
                raise InputError(f"--budget {text} is over before the first pair was scored; give it more time")
        return self._scores(work, stopped)

    def _watch(self) -> Watch:
        """Looks out for a run that is far slower than this machine was; of a cluster it has nothing to say."""
        known = known_rate(self.identity["sha256"], self.engine.settings, self.engine.weights)
        return Watch(self.engine.settings, known, self.say if self.cluster is None else silent)

    def _say_first(self, cache: Writing) -> None:
        """What the user should know before it begins."""
        if cache.reused:
            self.say(cache.reused)
        if network := network_file_system(cache.path):
            self.say(f"{cache.path} is on a network file system ({network}): let no other machine score into it too")

    def _without_prompts(self, cache: Writing, progress: Progress) -> None:
        """Of a pool against itself, what each response costs without its prompt: which answers look wrong is told by
        it when records are chosen."""
        if not cache.square:
            return
        report = counting(progress, "responses without prompts", cache.shape[0])
        try:
            logprob_without_prompt(cache, lambda _: (self.engine, self.template), report)
        except (InputError, NotFiniteError) as error:
            self.say(f"which answers look wrong is not known, for responses without their prompts fail: {error}")

    def _rounds(
        self, cache: SparseWriter, rate: float, progress: Progress, stopped_seconds: Callable[[], float]
    ) -> tuple[Work, str]:
        """Round after round; what was done, and why it ended."""
        timed = self.budget is not None and self.budget.seconds is not None
        deadline = self.started + self.budget.seconds if self.budget and self.budget.seconds else None
        goal, rounds_left, _ = rounds.pending(cache, self.budget, cache.shape)
        if cache.complete and (rounds_left == 0 or (not timed and goal <= cache.planned)):
            return Work(), "budget"  # nothing to do: the model need not be loaded
        cache.reserve(0 if timed else goal - cache.planned)
        report = counting(progress, "embeddings", cache.shape[0])
        if self.cluster is not None:
            self.say("embeddings of the records are made by this process, before the cluster's workers begin")
        embedded = embeddings_of(cache, lambda: (self.engine, self.template), report)
        for hint in (large_pools.hint(max(cache.shape)), plan.hint(max(cache.shape))):
            if hint:
                self.say(hint)
        with self._measuring(cache) as measuring:
            for _ in measuring.base(cache):
                pass
            if self.cluster is not None:  # this machine's rate says little of the workers'
                rate = max(rate, measuring.work.tokens / measuring.work.seconds)
            going = rounds.Rounds(
                measuring,
                self.inputs,
                cache,
                self.budget,
                self.seed,
                embedded,
                for_examples=self.pool_before_targets,
                tokens_per_second=rate,
                deadline=deadline,
                stopped_seconds=stopped_seconds,
            )
            watch = self._watch()
            for part in going.rounds():
                title, before, todo = f"round {len(cache.rounds)}, {len(part):,} pairs", measuring.work, len(part.todo)
                begun = time.monotonic()
                for work in going.score(part):
                    watch.see(work)
                    rows, seconds = work.rows - before.rows, time.monotonic() - begun
                    speed = _rates(work.pairs - before.pairs, work.tokens - before.tokens, seconds)
                    progress(Step(title, rows, todo, speed, seconds / rows * (todo - rows)))
            return measuring.work, going.stopped

    def _measuring(self, cache: Writing) -> AbstractContextManager[Measuring]:
        return where.measuring(
            self.file,
            self.identity["sha256"],
            self.engine,
            self.inputs,
            cache,
            cluster=self.cluster,
            threads=self.threads,
            say=self.say,
        )

    def _scores(self, work: Work, stopped: str | None) -> Scores:
        name = f"{self.identity['name']} {self.identity['quantization']}"
        return Scores(open_cache(self.path), work, self.inputs, self.engine, name, stopped, self.seed)

    def _long(self) -> bool:
        """Might all pairs take longer than the limit?"""
        return job.expected_tokens(self.inputs)[0] > ALL_PAIRS_SECONDS * SLOWEST

    def _check_budget(self) -> None:
        """Before a cache is made, or made larger: is the budget enough for what is new?"""
        if self.budget is None or not self.budget.seconds:
            cache = SparseCache(self.path) if self.layout else None
            goal, _, text = rounds.pending(cache, self.budget, self.inputs.shape)
            rounds.check_budget(goal, self.inputs.shape, text, cache)

    def _log(self) -> AbstractContextManager[None]:
        file = self.path / "llama.cpp.log"
        return log_file(file) if self.keep_log and may_append(file) else nullcontext()


def _check_all_pairs(whole: job.Forecast) -> None:
    if whole.seconds > ALL_PAIRS_SECONDS:
        raise InputError(
            f"all {whole.pairs:,} pairs would take {duration(whole.seconds)}, more than "
            f"{duration(ALL_PAIRS_SECONDS)}: score a part with --budget 5% (about "
            f"{duration(0.05 * whole.seconds)}) or --budget 8h, or insist with --budget 100%"
        )


def _rates(pairs: int, tokens: int, seconds: float) -> str:
    return f"{pairs / seconds:.1f} pairs/s, {tokens / seconds:,.0f} tokens/s"

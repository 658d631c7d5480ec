"""One `delift score` from end to end: records, model and cache made ready, then all pairs or rounds of some of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..amount import Budget, duration, parse_budget
from ..cache.dense import Cache
from ..cache.files import may_append, network_file_system
from ..cache.sparse import SparseCache, SparseWriter, layout_of, open_cache
from ..cache.stored import Writing
from ..data.options import Reading
from ..data.reading import AS_IT_COMES
from ..errors import InputError
from ..model.adapter import read_adapters
from ..model.apart import open_checked
from ..model.gguf import ModelFile
from ..model.llama import Settings
from ..model.log import log_file
from ..model.places import locate
from ..progress import Progress, Say, Step, counting, silent
from ..prompt.builtin import parse_arguments
from ..prompt.chosen import chat_template
from ..prompt.template import ChatTemplate
from ..scoring import job, where
from ..scoring.embeddings import Embeddings, embed_texts, embeddings_of
from ..scoring.load import Watch
from ..scoring.pairs import Measuring, Work, lay_out_of, score_rows
from ..scoring.tuning import known_rate
from . import rounds
from .anchors import anchored, parse_anchors
from .clock import stops
from .result import Expected, Scores
from .sample import FORECAST_FROM, sampled, scaled
from .sources import Source, default_cache, files_of, read_source

ALL_PAIRS_SECONDS = 12 * 3600  # what a run may take that was not given a budget
SLOWEST = 50.0  # tokens/s: below what that leaves time for, the forecast is not worth its seconds


@dataclass(frozen=True)
class Run:
    """A run that is ready to begin: `forecast` says what it will take, `score` does it.

    Made by `open_run`, whose arguments the fields are; `layout` is that of the cache that is there, None for a new one.
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

    def forecast(self) -> Expected:
        """What this run is expected to take, from counted tokens and a few timed batches."""
        whole = job.forecast(self.engine, self.inputs)
        if self.sample_of is not None:
            whole = scaled(whole, math.prod(self.sample_of) / math.prod(self.inputs.shape))
        if not self.sparse:
            return Expected(whole, whole, None, self.engine)
        begun = SparseCache(self.path) if self.layout else None
        lay_out = lay_out_of(self.engine.settings)
        run, count = rounds.forecast(whole, self.inputs, self.budget, begun, lay_out, self.sample_of)
        return Expected(run, whole, count, self.engine)

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
            rows, already = cache.shape[0], int((cache.rows["done"] == cache.shape[1]).sum())
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
            rate = job.forecast(self.engine, self.inputs).tokens_per_second
        self._check_budget()
        with (
            job.open_sparse_cache(self.path, self.description, self.inputs) as cache,
            self._log(),
            stops() as stopped_seconds,
        ):
            self._say_first(cache)
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
        targets = self.inputs.target_tokens
        with self._measuring(cache) as measuring:
            for _ in measuring.base(cache):
                pass
            if self.cluster is not None:  # this machine's rate says little of the workers'
                rate = max(rate, measuring.work.tokens / measuring.work.seconds)
            going = rounds.Rounds(
                measuring,
                self.inputs,
                targets,
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
        return job.expected_tokens(self.inputs, self.inputs.target_tokens)[0] > ALL_PAIRS_SECONDS * SLOWEST

    def _check_budget(self) -> None:
        """Before a cache is made, or made larger: is the budget enough for what is new?"""
        if self.budget is None or not self.budget.seconds:
            cache = SparseCache(self.path) if self.layout else None
            goal, _, text = rounds.pending(cache, self.budget, self.inputs.shape)
            rounds.check_budget(goal, self.inputs.shape, text, cache)

    def _log(self) -> AbstractContextManager[None]:
        file = self.path / "llama.cpp.log"
        return log_file(file) if self.keep_log and may_append(file) else nullcontext()


def open_run(
    data: Source | None = None,
    *,
    examples: Source | None = None,
    targets: Source | None = None,
    output: str | Path | None = None,
    model: str | None = None,
    template: str | None = None,
    template_arguments: Sequence[str] = (),
    as_trained: bool = False,
    reading: Reading = AS_IT_COMES,
    budget: str | None = None,
    go_on: bool = False,
    anchors: str | None = None,
    seed: int = 0,
    max_response_tokens: int | None = None,
    context: int | None = None,
    truncate: bool = False,
    weights: str = "auto",
    settings: Settings | None = None,
    adapters: Sequence[str] = (),
    batch: int | None = None,
    keep_log: bool = True,
    only_forecast: bool = False,
    cluster: str | None = None,
    say: Say = silent,
) -> Run:
    """Read the records, open the model for its vocabulary, tokenize, and choose how to run it.

    Args:
        data: the pool, scored against itself, or against `targets`. examples: shown in place of the pool.
        output: the cache's directory; default NAME.delift, after the set that makes it different from the pool's own.
        template: a name or a file, see `load_template`; template_arguments: NAME=VALUE for it; as_trained: score a
            last turn as the template prints a conversation, not behind what its generation prompt adds.
        reading: what fields and turns mean, where the data alone do not say it.
        budget: some pairs only, such as 5%, 2M or 8h; go_on: on top of what is there.
        anchors: the pool against so many of its own records that stand for all (200, 5%, or a file of ids).
        context: longest pair in tokens; default the model's. truncate: cut prompts so that everything fits.
        weights, settings, batch: how to run the model; see `job.choose_engine`.
        adapters: LoRA adapters for it, as `adapter.gguf` or `adapter.gguf:0.5`; see `model.adapter`.
        keep_log: llama.cpp's own log goes into the cache.
        only_forecast: the run is not to be begun; of very many records only some are looked at.
        cluster: the workers that measure, such as local:4; see `scoring.cluster.addresses.connect`.
        say: takes one line on what is going on.

    Raises:
        InputError: records, model or options that cannot be used, or do not go with the cache that is there.
    """
    started = time.monotonic()
    if (data is None) == (examples is None):
        raise InputError("give the pool, as in: delift score train.jsonl; or --examples and --targets")
    if examples is not None and targets is None:
        raise InputError("--examples needs --targets, the records that the examples are to help with")
    source = data if data is not None else examples
    assert source is not None
    if "-" in files_of(source) and targets is not None and "-" in files_of(targets):
        raise InputError("examples and targets cannot both come from stdin")
    if cluster is not None:
        where.check_cluster(cluster)
    path = Path(output) if output is not None else default_cache(source, targets, as_existing=examples is not None)
    wanted = None if budget is None else parse_budget(budget)
    layout = layout_of(path)
    sparse = _in_part(path, layout, wanted, go_on)
    if anchors is not None and (targets is not None or sparse):
        raise InputError(
            "--anchors measures all of a pool before some of it: leave out --examples, --targets, --budget"
        )
    begun = None if anchors is None or layout is None else open_cache(path)
    if begun is not None and begun.square:
        raise InputError(f"{path} is a pool scored against itself, without --anchors; give another directory with -o")

    example_records = read_source(source, reading)
    target_records = None if targets is None else read_source(targets, reading)
    if anchors is not None:
        parse_anchors(anchors, example_records.records)  # what is wrong with them shows before the model is loaded
    sample_of = None
    if only_forecast:
        example_records, target_records, sample_of = sampled(example_records, target_records)
        if sample_of is not None:
            say(
                f"figures from {FORECAST_FROM:,} records at most of {sample_of[0]:,} examples, {sample_of[1]:,} targets"
            )
    file = open_checked(locate(model))
    settings = replace(settings or Settings(), adapters=read_adapters(adapters, file))
    context = context or file.context
    if context > file.context:
        say(f"--ctx {context:,} is more than the {file.context:,} tokens that the model was trained on")
    arguments = parse_arguments(template_arguments)
    chat = chat_template(file, template, arguments=arguments, as_trained=as_trained, say=say)
    inputs = job.prepare(
        example_records,
        target_records,
        chat,
        context=context,
        truncate=truncate,
        skip_invalid=reading.skip_invalid,
        response_tokens=max_response_tokens,
    )
    for note in chat.notes():
        say(note)
    identity = file.identity()
    engine = job.choose_engine(
        file,
        identity["sha256"],
        weights,
        settings,
        batch=batch,
        inputs=inputs,
        cache=path,
        say=say,
    )
    description = job.describe(
        file,
        identity,
        chat,
        engine,
        reading.as_fields(),
        truncate_to=context if truncate else None,
        response_tokens=max_response_tokens,
    )
    if anchors is not None:

        def embed() -> Embeddings:
            say(f"embedding {len(inputs.examples.records):,} records, to choose anchors by")
            return embed_texts(engine, inputs.encoded_examples.prefixes, lambda done: None)

        looked_at = inputs.shape[0]
        inputs, description["anchors"] = anchored(inputs, anchors, embed, begun)
        if sample_of is not None:
            share = sample_of[0] / looked_at if anchors.endswith("%") else 1.0
            sample_of = sample_of[0], round(inputs.shape[1] * share)
        if (stood_for := description["anchors"]["stand_for"]) < len(inputs.examples.records):
            say(f"the anchors of {path} stand for its first {stood_for:,} records, not for those that are new")
    return Run(
        path,
        layout,
        sparse,
        inputs,
        file,
        identity,
        chat,
        engine,
        description,
        wanted,
        seed,
        pool_before_targets=targets is not None and examples is None,
        keep_log=keep_log,
        cluster=cluster,
        threads=settings.threads if settings else None,
        started=started,
        say=say,
        sample_of=sample_of,
    )


def score(data: Source | None = None, *, progress: Progress = silent, **options: Any) -> Scores:
    """Measure how much each example, shown in context, helps the model with each target, into a cache.

    `delift score` as a function: `open_run` with these options, then `Run.score`.

        scores = delift_cli.score("train.jsonl", model="model.gguf", budget="5%")
        subset = delift_cli.select_records(scores.cache, "30%")
    """
    return open_run(data, **options).score(progress)


def forecast(data: Source | None = None, **options: Any) -> Expected:
    """What `score` with the same options is expected to take."""
    return open_run(data, only_forecast=True, **options).forecast()


def _in_part(path: Path, layout: str | None, budget: Budget | None, go_on: bool) -> bool:
    """Does this run score a part of the pairs? InputError where that does not go with what is there."""
    if layout is None and go_on:
        raise InputError(f"{path}: there is nothing to --continue; begin with --budget 5%")
    if budget is not None and budget.more and not go_on:
        raise InputError(f"--budget {budget.text} is on top of what is scored: add --continue")
    if layout == Cache.layout and (go_on or (budget is not None and not budget.all)):
        raise InputError(
            f"{path} is a cache of all pairs: run without --budget to complete it, or give another directory with -o"
        )
    return layout == SparseCache.layout or (layout is None and budget is not None and not budget.all)


def _check_all_pairs(whole: job.Forecast) -> None:
    if whole.seconds > ALL_PAIRS_SECONDS:
        raise InputError(
            f"all {whole.pairs:,} pairs would take {duration(whole.seconds)}, more than "
            f"{duration(ALL_PAIRS_SECONDS)}: score a part with --budget 5% (about "
            f"{duration(0.05 * whole.seconds)}) or --budget 8h, or insist with --budget 100%"
        )


def _rates(pairs: int, tokens: int, seconds: float) -> str:
    return f"{pairs / seconds:.1f} pairs/s, {tokens / seconds:,.0f} tokens/s"

"""A run of `delift score` made ready: what is asked for, read and checked before the first pair is scored."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..amount import Budget, as_written, parse_budget
from ..cache.dense import Cache
from ..cache.manifest import cache_around
from ..cache.sparse import SparseCache, layout_of, open_cache
from ..data.options import Reading
from ..data.reading import AS_IT_COMES, check_named_fields
from ..errors import InputError, check_seed
from ..model.adapter import read_adapters
from ..model.apart import open_checked
from ..model.llama import Settings
from ..model.places import locate
from ..progress import Progress, Say, silent
from ..prompt.builtin import parse_arguments
from ..prompt.chosen import chat_template
from ..scoring import job, where
from ..scoring.embeddings import Embeddings, embed_texts
from .anchors import anchored, parse_anchors
from .estimate import Factors
from .proxy import described_proxy, read_proxy
from .result import Expected, Scores
from .run import Run
from .sample import FORECAST_FROM, sampled
from .sources import Source, default_cache, files_of, listed, read_source

# what a proxy is not run with
_OF_THE_RUN = {
    *("model", "template", "template_arguments", "as_trained", "adapters", "context"),
    *("budget", "go_on", "anchors", "output", "cluster", "only_forecast", "proxy"),
}


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
    budget: str | float | None = None,
    go_on: bool = False,
    anchors: str | float | Path | None = None,
    proxy: str | Path | None = None,
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
        data: the pool, scored against itself, or against `targets`: a file, several, or records themselves, as any
            iterable of dicts. examples: shown in place of the pool.
        output: the cache's directory; default NAME.delift, after the set that makes it different from the pool's own.
        template: a name or a file, see `load_template`; template_arguments: NAME=VALUE for it; as_trained: score a
            last turn as the template prints a conversation, not behind what its generation prompt adds.
        reading: what fields and turns mean, where the data alone do not say it.
        budget: some pairs only, such as 5% (or 0.05), 2M or 8h; go_on: on top of what is there.
        anchors: the pool against so many of its own records that stand for all (200, 5%, or a file of ids).
        proxy: a cache of the same records that a smaller model has scored, to plan and estimate by; see `budget.proxy`.
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
    check_seed(seed)
    source, targets = _sources(data, examples, targets)
    if cluster is not None:
        where.check_cluster(cluster)
    path = _place(output, source, targets, as_existing=examples is not None)
    wanted = None if budget is None else parse_budget(as_written(budget, "--budget"))
    if anchors is not None:
        anchors = str(anchors) if isinstance(anchors, Path) else as_written(anchors, "--anchors")
    layout = layout_of(path)
    sparse = _in_part(path, layout, wanted, go_on)
    if anchors is not None and (targets is not None or sparse):
        raise InputError(
            "--anchors measures all of a pool against some of it: leave out --examples, --targets, --budget"
        )
    begun = None if anchors is None or layout is None else open_cache(path)
    if begun is not None and begun.square:
        raise InputError(f"{path} is a pool scored against itself, without --anchors; give another directory with -o")

    example_records = read_source(source, reading)
    target_records = None if targets is None else read_source(targets, reading)
    check_named_fields([example_records, *([] if target_records is None else [target_records])], reading)
    if anchors is not None:
        parse_anchors(anchors, example_records.records)  # what is wrong with them shows before the model is loaded
    sample_of = None
    if only_forecast and begun is None:  # the anchors of one that was begun are to be found again
        example_records, target_records, sample_of = sampled(example_records, target_records)
        if sample_of is not None:
            say(
                f"figures from {FORECAST_FROM:,} records at most of {sample_of[0]:,} examples, {sample_of[1]:,} targets"
            )
    file = open_checked(locate(model, say))
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
    said = None
    if proxy is not None or (layout is not None and sparse):
        said = _proxy(proxy, path if layout else None, sparse, inputs, description, say)
    if anchors is not None:

        def embed() -> Embeddings:
            say(f"embedding {len(inputs.examples.records):,} records, to choose anchors by")
            return embed_texts(engine, inputs.encoded_examples.prefixes, lambda done: None)

        looked_at = inputs.shape[0]
        inputs, description["anchors"] = anchored(inputs, anchors, embed, begun, say)
        if sample_of is not None:
            share = sample_of[0] / looked_at if anchors.endswith("%") else 1.0
            sample_of = sample_of[0], round(inputs.shape[1] * share)
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
        threads=settings.threads,
        started=started,
        say=say,
        sample_of=sample_of,
        proxy=said,
    )


def score(data: Source | None = None, *, progress: Progress = silent, **options: Any) -> Scores:
    """Measure how much each example, shown in context, helps the model with each target, into a cache.

    `delift score` as a function: `open_run` with these options, then `Run.score`.

        scores = delift_cli.score("train.jsonl", model="model.gguf", budget="5%")
        subset = delift_cli.select_records(scores.cache, "30%")
    """
    return open_run(data, **options).score(progress)


def score_proxy(proxy: str, data: Source | None = None, *, progress: Progress = silent, **options: Any) -> Path:
    """Score the records of a run with a smaller model first, as its proxy, into a cache beside the run's.

    Args:
        proxy: the model, as `score` takes it, or with a budget of its own: small.gguf:20%. Default all pairs.
        options: those of the run, of which the model's own (adapters, template) and the amount do not count.

    Returns:
        The proxy's cache, for `score(proxy=…)`.
    """
    model, colon, budget = proxy.rpartition(":")
    if not colon or not budget[:1].isdigit() or not budget.endswith("%"):
        model, budget = proxy, "100%"
    as_existing = options.get("examples") is not None
    source, targets = _sources(data, options.pop("examples", None), options.pop("targets", None))
    path = _place(options.get("output"), source, targets, as_existing=as_existing)
    cache = path.with_suffix(".proxy.delift")
    if layout_of(cache) == Cache.layout and not parse_budget(budget).all:
        raise InputError(
            f"--proxy {proxy}: {cache} has all of the proxy's pairs, or is to: give --proxy {model} without "
            f":{budget}, or remove {cache}"
        )
    own: dict[str, Any] = {"model": model, "budget": budget, "output": cache, "targets": targets}
    own["examples" if as_existing else "data"] = source
    shared = {name: value for name, value in options.items() if name not in _OF_THE_RUN}
    return score(progress=progress, **shared, **own).cache.path


def forecast(data: Source | None = None, **options: Any) -> Expected:
    """What `score` with the same options is expected to take."""
    return open_run(data, only_forecast=True, **options).forecast()


def _sources(
    data: Source | None, examples: Source | None, targets: Source | None
) -> tuple[list[Any], list[Any] | None]:
    """What the examples and the targets are read from.

    Raises:
        InputError: the pool and examples are given, or neither, examples without targets, or stdin twice.
    """
    given = data if data is not None else examples
    if given is None or (data is not None and examples is not None):
        raise InputError("give the pool, as in: delift score train.jsonl; or --examples and --targets")
    if examples is not None and targets is None:
        raise InputError("--examples needs --targets, the records that the examples are to help with")
    source, others = listed(given), None if targets is None else listed(targets)
    if others is not None and "-" in files_of(source) and "-" in files_of(others):
        raise InputError("examples and targets cannot both come from stdin")
    return source, others


def _place(output: str | Path | None, source: Source, targets: Source | None, *, as_existing: bool) -> Path:
    """The cache's directory.

    Raises:
        InputError: it has no name, lies in another cache, or cannot be made where it is to be.
    """
    path = Path(output) if output is not None else default_cache(source, targets, as_existing=as_existing)
    if path.name in ("", ".."):
        raise InputError(f"{path}: the cache is a directory of its own; name it, as in -o train.delift")
    if (other := cache_around(path.parent)) is not None:
        raise InputError(f"{path} lies in the cache {other}, whose files are delift's own; give another place with -o")
    if os.path.lexists(path):
        return path  # what may be written in it shows when it is opened
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be made: {there} is no folder that can be written to; give another with -o")
    return path


def _proxy(
    proxy: str | Path | None,
    begun: Path | None,
    sparse: bool,
    inputs: job.Inputs,
    description: dict[str, Any],
    say: Say,
) -> Factors | None:
    """What a proxy says of the records; `description` takes its name, or that of the one that `begun` has.

    Raises:
        InputError: all pairs are to be measured, the cache was begun without this proxy, or see `read_proxy`.
    """
    known = None if begun is None else open_cache(begun).manifest.get("proxy")
    if proxy is None:
        description |= {} if known is None else {"proxy": known}
        return None
    if not sparse:
        raise InputError("--proxy helps to choose some of the pairs: give a --budget, such as 5%")
    given = described_proxy(Path(proxy))
    if begun is not None and known != given:
        raise InputError(f"{begun} was begun {'with another' if known else 'without a'} proxy; begin a new one with -o")
    description["proxy"] = given
    targets = None if inputs.targets is None else inputs.targets.records
    return read_proxy(Path(proxy), inputs.examples.records, targets, say)


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

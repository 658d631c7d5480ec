"""`delift score`: measure a block of examples × targets, or a part of it, into a cache."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from ..amount import Budget, parse_budget
from ..errors import InputError
from . import console, score_summary
from .model_options import (
    GpuLayers,
    ModelChoice,
    PromptField,
    ResponseField,
    SkipInvalid,
    TemplateChoice,
    Threads,
    WeightsChoice,
)

if TYPE_CHECKING:  # llama.cpp takes a while to load, and only this verb needs it
    from ..cache.dense import CacheWriter
    from ..cache.sparse import SparseWriter
    from ..prompt.template import ChatTemplate
    from ..scoring.job import Engine, Forecast, Inputs
    from ..scoring.pairs import Work

ALL_PAIRS_SECONDS = 12 * 3600  # what a run may take that was not given a budget
SLOWEST = 50.0  # tokens/s: below what that leaves time for, the forecast is not worth its seconds

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]


def score(
    data: Annotated[
        str | None,
        typer.Argument(help="The pool: JSONL or a JSON array, also gzipped; - for stdin."),
    ] = None,
    examples: Annotated[str | None, typer.Option(help="Records shown as examples, in place of the pool.")] = None,
    targets: Annotated[str | None, typer.Option(help="Records to predict; without it, the pool itself.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The cache's directory; default NAME.delift.")
    ] = None,
    model: ModelChoice = None,
    template: TemplateChoice = None,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    skip_invalid: SkipInvalid = False,
    budget: Annotated[
        str | None, typer.Option(help="Score some pairs only: a share (5%), a number (2M) or a time (8h); 100%: all.")
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Spend more on a cache that has part of the pairs: --budget +5%.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the pairs that --budget chooses.")] = 0,
    max_response_tokens: Annotated[
        int | None, typer.Option(min=1, help="Score only so many first tokens of each response.")
    ] = None,
    ctx: Annotated[
        int | None, typer.Option(min=16, help="Longest pair in tokens; default the model's context.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut the middle of prompts so that each record fits half of --ctx.")
    ] = False,
    weights: WeightsChoice = "auto",
    gpu_layers: GpuLayers = None,
    threads: Threads = None,
    batch: Annotated[int | None, typer.Option(min=16, help="Tokens in one llama.cpp call; default measured.")] = None,
    kv_type: Annotated[KvType, typer.Option(help="Storage of the KV cache.")] = "f16",
    flash_attn: Annotated[FlashAttention, typer.Option(help="Flash attention.")] = "auto",
    split_model: Annotated[
        bool, typer.Option("--split-model", help="Spread the model over all GPUs; default a copy on each.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show llama.cpp's own log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Measure how much each example, shown in context, helps the model with each target.

    delift score train.jsonl -o train.delift\n
    delift score train.jsonl --targets dev.jsonl -o dev.delift\n
    delift score --examples old.jsonl --targets train.jsonl -o old.delift\n
    delift score train.jsonl --budget 5%\n
    delift score train.jsonl --continue --budget +5%
    """
    started = time.monotonic()
    from ..cache.sparse import layout_of
    from ..data.reading import read_records
    from ..model.gguf import ModelFile, locate
    from ..model.llama import Settings
    from ..model.log import log_file, log_to
    from ..prompt.builtin import load_template
    from ..scoring import job

    if (data is None) == (examples is None):
        raise InputError("give the pool, as in: delift score train.jsonl; or --examples and --targets")
    if examples is not None and targets is None:
        raise InputError("--examples needs --targets, the records that the examples are to help with")
    source = str(data or examples)
    if source == "-" and targets == "-":
        raise InputError("examples and targets cannot both come from stdin")
    path = output or _default_output(source, targets, examples is not None)
    following = _next_command(path, targets, examples is not None)
    pool_before_targets = targets is not None and examples is None
    wanted = None if budget is None else parse_budget(budget)
    layout = layout_of(path)
    sparse = _in_part(path, layout, wanted, go_on)
    fields = {"prompt": prompt_field, "response": response_field}
    reading = {"prompt_field": prompt_field, "response_field": response_field, "skip_invalid": skip_invalid}
    example_records = read_records(source, **reading)  # type: ignore[arg-type]
    target_records = None if targets is None else read_records(targets, **reading)  # type: ignore[arg-type]

    log_to(sys.stderr if verbose else None)
    file = ModelFile(locate(model))
    say = _nothing if quiet else console.say
    context = ctx or file.context
    if context > file.context:
        say(f"--ctx {context:,} is more than the {file.context:,} tokens that the model was trained on")
    chat = load_template(template, file.template, file.vocabulary)
    inputs = job.prepare(
        example_records,
        target_records,
        chat,
        context=context,
        truncate=truncate,
        skip_invalid=skip_invalid,
        response_tokens=max_response_tokens,
    )
    identity = file.identity()
    engine = job.choose_engine(
        file,
        identity["sha256"],
        weights,
        Settings(gpu_layers, threads, kv_type=kv_type, flash_attention=flash_attn, split_model=split_model),
        batch=batch,
        inputs=inputs,
        cache=path,
        say=say,
    )
    whole = None
    if dry_run or (sparse and wanted and wanted.seconds) or (layout is None and wanted is None and _long(inputs)):
        whole = job.forecast(engine, inputs)
    if dry_run and whole:
        expected, rounds = whole, None
        if sparse:
            expected, rounds = _forecast_within(whole, inputs, wanted, path if layout else None)
        _show(score_summary.forecast(expected, whole, engine, rounds), as_json, quiet, score_summary.forecast_lines)
        return
    if whole and not sparse:
        _check_all_pairs(whole)
    description = job.describe(
        file,
        identity,
        chat,
        engine,
        fields,
        truncate_to=context if truncate else None,
        response_tokens=max_response_tokens,
    )
    name = f"{identity['name']} {identity['quantization']}"
    log = nullcontext() if verbose else log_file(path / "llama.cpp.log")
    if not sparse:
        with job.open_cache(path, description, inputs) as cache, log:
            work = _score_with_progress(engine, inputs, cache, quiet)
            summary = score_summary.summary(cache, work, inputs, model=name, engine=engine)
        _show(summary | {"next": following}, as_json, quiet, score_summary.lines)
        return
    _check_budget(inputs, wanted, path if layout else None)
    with job.open_sparse_cache(path, description, inputs) as part, log:
        deadline = started + wanted.seconds if wanted and wanted.seconds else None
        rate = whole.tokens_per_second if whole else 0.0
        work, stopped = _score_rounds(
            engine, chat, inputs, part, wanted, seed, rate, deadline, quiet, for_examples=pool_before_targets
        )
        summary = score_summary.summary(part, work, inputs, model=name, engine=engine)
        if not part.pairs_done:
            raise InputError(f"--budget {budget} is over before the first pair was scored; give it more time")
        summary |= score_summary.part(part, inputs, stopped, seed)
    _show(summary | {"next": following}, as_json, quiet, score_summary.lines)


def _in_part(path: Path, layout: str | None, budget: Budget | None, go_on: bool) -> bool:
    """Does this run score a part of the pairs? InputError where that does not go with what is there."""
    if layout is None and go_on:
        raise InputError(f"{path}: there is nothing to --continue; begin with --budget 5%")
    if budget is not None and budget.more and not go_on:
        raise InputError(f"--budget {budget.text} is on top of what is scored: add --continue")
    if layout == "dense" and (go_on or (budget is not None and not budget.all)):
        raise InputError(
            f"{path} is a cache of all pairs: run without --budget to complete it, or give another directory with -o"
        )
    return layout == "sparse" or (layout is None and budget is not None and not budget.all)


def _long(inputs: Inputs) -> bool:
    """Might all pairs take longer than the limit?"""
    from ..scoring.job import expected_tokens

    return expected_tokens(inputs, inputs.target_tokens)[0] > ALL_PAIRS_SECONDS * SLOWEST


def _forecast_within(
    whole: Forecast, inputs: Inputs, budget: Budget | None, begun: Path | None
) -> tuple[Forecast, int]:
    from ..budget.rounds import forecast
    from ..cache.sparse import SparseCache

    return forecast(whole, inputs, budget, None if begun is None else SparseCache(begun))


def _check_all_pairs(whole: Forecast) -> None:
    if whole.seconds > ALL_PAIRS_SECONDS:
        raise InputError(
            f"all {whole.pairs:,} pairs would take {console.duration(whole.seconds)}, more than "
            f"{console.duration(ALL_PAIRS_SECONDS)}: score a part with --budget 5% (about "
            f"{console.duration(0.05 * whole.seconds)}) or --budget 8h, or insist with --budget 100%"
        )


def _check_budget(inputs: Inputs, budget: Budget | None, begun: Path | None) -> None:
    """Before a cache is made, or made larger: is the budget enough for what is new?"""
    from ..budget.rounds import check_budget, pending
    from ..cache.sparse import SparseCache

    if budget is None or not budget.seconds:
        cache = None if begun is None else SparseCache(begun)
        goal, _, text = pending(cache, budget, inputs.shape)
        check_budget(goal, inputs.shape, text, cache)


def _default_output(source: str, targets: str | None, as_existing: bool) -> Path:
    """The cache is named after the set that makes it different from the pool's own."""
    named = source if targets is None or as_existing else targets
    if named == "-":
        raise InputError("records from stdin need a name for the cache: -o NAME.delift")
    return _named_after(named)


def _named_after(source: str) -> Path:
    name = Path(source).name
    for ending in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(ending)
    return Path(f"{name}.delift")


def _next_command(cache: Path, targets: str | None, as_existing: bool) -> str:
    """How to select with what was scored."""
    name = shlex.quote(str(cache))
    if targets is None:
        sources = name
    elif as_existing:
        pool = "POOL.delift" if targets == "-" else shlex.quote(str(_named_after(targets)))
        sources = f"{pool} --existing {name}"
    else:
        sources = f"--target {name}"
    return f"delift select {sources} -k 30% > subset.jsonl"


def _score_with_progress(engine: Engine, inputs: Inputs, cache: CacheWriter, quiet: bool) -> Work:

    from ..scoring import job, pairs

    rows, already = cache.shape[0], int((cache.rows["done"] == cache.shape[1]).sum())
    work = pairs.Work()
    with console.progress("scoring", rows, quiet=quiet) as show:
        for work in job.execute(engine, inputs, cache):
            show(
                already + work.rows,
                f"{work.pairs:,} pairs, {work.pairs / work.seconds:.1f} pairs/s, "
                f"{work.tokens / work.seconds:,.0f} tokens/s",
                work.seconds / work.rows * (rows - already - work.rows) if work.rows else None,
            )
    return work


def _score_rounds(
    engine: Engine,
    chat: ChatTemplate,
    inputs: Inputs,
    cache: SparseWriter,
    budget: Budget | None,
    seed: int,
    rate: float,
    deadline: float | None,
    quiet: bool,
    *,
    for_examples: bool,
) -> tuple[Work, str]:
    """Round after round; what was done, and why it ended."""
    from ..budget import rounds
    from ..scoring import job, pairs
    from ..scoring.embeddings import embeddings_of

    work = pairs.Work()
    goal, rounds_left, _ = rounds.pending(cache, budget, cache.shape)
    if cache.complete and (rounds_left == 0 or (deadline is None and goal <= cache.planned)):
        return work, "budget"  # nothing to do: the model need not be loaded
    with console.counting("embeddings", cache.shape[0], quiet=quiet) as report:
        embedded = embeddings_of(cache, lambda: (engine, chat), report)
    targets = inputs.target_tokens
    with job.at_work(engine, inputs, targets) as models:
        measuring = pairs.Scoring(models, inputs.encoded_examples, targets)
        for _ in measuring.base(cache):
            pass
        work = measuring.work
        going = rounds.Rounds(
            measuring,
            inputs,
            targets,
            cache,
            budget,
            seed,
            embedded,
            for_examples=for_examples,
            tokens_per_second=rate,
            deadline=deadline,
        )
        for part in going.rounds():
            number, before, todo = len(cache.rounds), work, len(part.todo)
            begun = time.monotonic()
            with console.progress(f"round {number}, {len(part):,} pairs", todo, quiet=quiet) as show:
                for work in going.score(part):
                    rows, seconds = work.rows - before.rows, time.monotonic() - begun
                    show(
                        rows,
                        f"{(work.pairs - before.pairs) / seconds:.1f} pairs/s, "
                        f"{(work.tokens - before.tokens) / seconds:,.0f} tokens/s",
                        seconds / rows * (todo - rows),
                    )
        return measuring.work, going.stopped


def _show(
    summary: dict[str, Any], as_json: bool, quiet: bool, lines: Callable[[dict[str, Any]], list[tuple[str, str]]]
) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    elif not quiet:
        console.facts(lines(summary))


def _nothing(_text: str) -> None:
    """What a quiet run says."""

"""`delift score`: measure a block of examples × targets, or a part of it, into a cache."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import LARGEST_SEED, InputError
from ..visible import in_a_shell
from . import console, options
from .options import (
    AsJson,
    AsTrained,
    Batch,
    GpuLayers,
    ModelChoice,
    PromptField,
    Quiet,
    RecordsKey,
    ResponseField,
    Roles,
    SkipInvalid,
    Strict,
    TemplateArguments,
    TemplateChoice,
    Threads,
    Truncate,
    Turns,
    WeightsChoice,
)

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
RECORDS = "JSON, CSV, Parquet or Arrow files, a folder, hf:owner/name:split; - for stdin"


def score(
    data: Annotated[list[str] | None, typer.Argument(metavar="DATA...", help=f"The pool: {RECORDS}.")] = None,
    examples: Annotated[
        str | None, options.records(metavar="DATA", help="Records shown as examples, in place of the pool.")
    ] = None,
    targets: Annotated[
        str | None, options.records(metavar="DATA", help="Records to predict; without it, the pool itself.")
    ] = None,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    turns: Turns = "all",
    role: Roles = None,
    records: RecordsKey = None,
    strict: Strict = False,
    skip_invalid: SkipInvalid = False,
    truncate: Truncate = False,
    max_response_tokens: Annotated[
        int | None, options.records(metavar="N", min=1, help="Score only so many first tokens of each response.")
    ] = None,
    model: ModelChoice = None,
    template: TemplateChoice = None,
    template_arg: TemplateArguments = None,
    as_trained: AsTrained = False,
    lora: Annotated[
        list[str] | None,
        options.model(metavar="GGUF[:SCALE]", help="A LoRA adapter of the model, converted to GGUF. Repeatable."),
    ] = None,
    weights: WeightsChoice = "auto",
    ctx: Annotated[
        int | None, options.model(metavar="TOKENS", min=16, help="Longest pair; default the model's context.")
    ] = None,
    previous: Annotated[
        Path | None,
        options.model(metavar="CACHE", help="Of these records under an earlier state of the model: say what changed."),
    ] = None,
    budget: Annotated[
        str | None,
        options.how_much(
            metavar="AMOUNT", help="Some pairs only: a share (5%), a number (2M) or a time (8h); 100%: all."
        ),
    ] = None,
    go_on: Annotated[
        bool,
        options.how_much("--continue", help="Spend more on a cache that has part of the pairs: --budget +5%."),
    ] = False,
    anchors: Annotated[
        str | None,
        options.how_much(
            metavar="AMOUNT",
            help="The pool against a few of its own records that stand for all: 200, 5%, or ids in a file.",
        ),
    ] = None,
    proxy: Annotated[
        str | None,
        options.how_much(
            metavar="GGUF|CACHE", help="A smaller model looks first, at all pairs or some (small.gguf:20%)."
        ),
    ] = None,
    seed: Annotated[
        int, options.how_much(metavar="N", min=0, max=LARGEST_SEED, help="Of the pairs that --budget chooses.")
    ] = 0,
    dry_run: Annotated[bool, options.how_much("--dry-run", help="Say what it would take, and stop.")] = False,
    cluster: Annotated[
        str | None,
        options.machine(
            metavar="ADDRESS|FILE|local:N",
            help="Workers of a dask scheduler, of dask-jobqueue's .yaml FILE, or N processes; local:cuda: one a GPU.",
        ),
    ] = None,
    threads: Threads = None,
    batch: Batch = None,
    gpu_layers: GpuLayers = None,
    split_model: Annotated[
        bool, options.machine("--split-model", help="Spread the model over all GPUs; default a copy on each.")
    ] = False,
    kv_type: Annotated[KvType, options.machine(help="Storage of the KV cache.")] = "f16",
    flash_attn: Annotated[FlashAttention, options.machine(help="Flash attention.")] = "auto",
    output: Annotated[
        Path | None, options.output("--output", "-o", metavar="DIR", help="The cache; default NAME.delift.")
    ] = None,
    verbose: Annotated[bool, options.output("--verbose", help="Show llama.cpp's own log.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure how much each example, shown in context, helps the model with each target.

    Examples:

        delift score train.jsonl -o train.delift
        delift score train.jsonl --targets dev.jsonl -o dev.delift
        delift score --examples old.jsonl --targets train.jsonl -o old.delift
        delift score train.jsonl --budget 5%
        delift score train.jsonl --continue --budget +5%
        delift score train.jsonl --budget 5% --proxy small.gguf
        delift score train.jsonl --anchors 200
        delift score train.jsonl --lora tuned.gguf --previous train.delift -o tuned.delift
    """
    from ..budget.opening import open_run, score_proxy
    from ..cache.sparse import layout_of, open_cache
    from ..evaluation.moved import check_comparable, moved
    from ..model.llama import Settings
    from ..model.log import log_to
    from ..progress import silent

    log_to(sys.stderr if verbose else None)
    earlier = None if previous is None else open_cache(previous)
    notes = console.Notes(console.sayer(quiet))
    asked: dict[str, Any] = dict(
        examples=examples,
        targets=targets,
        output=output,
        model=model,
        template=template,
        template_arguments=template_arg or (),
        as_trained=as_trained,
        reading=options.reading(prompt_field, response_field, turns, role, records, strict, skip_invalid),
        budget=budget,
        go_on=go_on,
        anchors=anchors,
        seed=seed,
        max_response_tokens=max_response_tokens,
        context=ctx,
        truncate=truncate,
        weights=weights,
        settings=Settings(gpu_layers, threads, kv_type=kv_type, flash_attention=flash_attn, split_model=split_model),
        adapters=lora or (),
        batch=batch,
        keep_log=not verbose,
        cluster=cluster,
        say=notes,
    )
    looks_first = proxy if proxy is not None and layout_of(Path(proxy)) is None else None  # a model, not its cache
    if looks_first and dry_run:
        notes("what the proxy takes to look at the pairs is not counted")
        proxy = None
    elif looks_first:
        if "-" in (*(data or ()), examples, targets):
            raise InputError("--proxy with a model reads the records twice: give a file in place of stdin")
        run = open_run(data or None, **{**asked, "say": silent})  # what is wrong shows before the proxy looks for hours
        if not run.sparse:
            raise InputError("--proxy helps to choose some of the pairs: give a --budget, such as 5%")
        if earlier is not None:
            check_comparable(earlier, *run.records)
        with console.bars(quiet=quiet) as progress:
            proxy = str(score_proxy(looks_first, data or None, progress=progress, **asked))
    run = open_run(data or None, proxy=proxy, only_forecast=dry_run, **asked)
    if earlier is not None and run.sample_of is None:
        check_comparable(earlier, *run.records)
    if dry_run:
        console.show(run.forecast(), as_json=as_json, quiet=quiet, notes=notes)
        return
    with console.bars(quiet=quiet) as progress:
        scores = run.score(progress)
    then = _next_command(run.path, targets, examples is not None, scores.cache.manifest)
    also: list[tuple[str, Any]] = [("next", then)]
    if earlier is not None:
        try:
            change = moved(earlier, scores.cache)
            also = [*([("moved", change.as_dict())] if as_json else change.lines()), *also]
        except InputError as error:  # what was scored is told all the same
            also = [("moved", None) if as_json else ("moved on", f"not known: {error}"), *also]
    console.show(scores, as_json=as_json, quiet=quiet, also=also, notes=notes)


def _next_command(cache: Path, targets: str | None, as_existing: bool, manifest: Mapping[str, Any]) -> str:
    """How to select with what was scored, into a file whose name says the container that the pool came in."""
    from ..budget.sources import named_after
    from ..data.writing import ending_of

    name = in_a_shell(cache)
    if targets is None:
        sources = name
    elif as_existing:
        pool = "POOL.delift" if targets == "-" else in_a_shell(named_after(targets))
        sources = f"{pool} --existing {name}"
    else:
        sources = f"--target {name}"
    chosen_from = manifest["targets" if targets is not None and as_existing else "examples"]
    return f"delift select {sources} -k 30% > subset{ending_of(chosen_from['form'])}"

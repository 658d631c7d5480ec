"""`delift score`: measure a block of examples × targets into a cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from .. import console
from ..errors import InputError

if TYPE_CHECKING:  # llama.cpp takes a while to load, and only this verb needs it
    from ..cache import CacheWriter
    from ..run import Engine, Forecast, Inputs
    from ..scoring import Work

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
Weights = Literal["auto", "as-is", "f32", "f16", "bf16", "q8_0", "q4_0"]


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
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A GGUF file, or smollm2; default $DELIFT_MODEL.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="'plain' or a Jinja2 file; default the model's own.")] = None,
    prompt_field: Annotated[str | None, typer.Option(help="Field that holds the prompt.")] = None,
    response_field: Annotated[str | None, typer.Option(help="Field that holds the response.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave bad records out and say how many.")
    ] = False,
    ctx: Annotated[
        int | None, typer.Option(min=16, help="Longest pair in tokens; default the model's context.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut the middle of prompts so that each record fits half of --ctx.")
    ] = False,
    weights: Annotated[
        Weights, typer.Option(help="Run a converted copy; auto: the fastest that keeps the numbers.")
    ] = "auto",
    gpu_layers: Annotated[
        int | None, typer.Option(min=0, help="Layers on the GPU; default all where possible.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all cores.")] = None,
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
    delift score --examples old.jsonl --targets train.jsonl -o old.delift
    """
    from .. import run
    from ..model import ModelFile, Settings, locate, log_file, log_to
    from ..records import read_records
    from ..template import load_template

    if (data is None) == (examples is None):
        raise InputError("give the pool, as in: delift score train.jsonl; or --examples and --targets")
    if examples is not None and targets is None:
        raise InputError("--examples needs --targets, the records that the examples are to help with")
    source = str(data or examples)
    if source == "-" and targets == "-":
        raise InputError("examples and targets cannot both come from stdin")
    path = output or _default_output(source, targets, examples is not None)
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
    inputs = run.prepare(
        example_records, target_records, chat, context=context, truncate=truncate, skip_invalid=skip_invalid
    )
    identity = file.identity()
    engine = run.choose_engine(
        file,
        identity["sha256"],
        weights,
        Settings(gpu_layers, threads, kv_type=kv_type, flash_attention=flash_attn, split_model=split_model),
        batch=batch,
        inputs=inputs,
        cache=path,
        say=say,
    )
    if dry_run:
        _show(_forecast(run.forecast(engine, inputs), engine), as_json, quiet, _forecast_lines)
        return
    description = run.describe(file, identity, chat, engine, fields, truncate_to=context if truncate else None)
    with (
        run.open_cache(path, description, inputs) as cache,
        nullcontext() if verbose else log_file(path / "llama.cpp.log"),
    ):
        work = _score_with_progress(engine, inputs, cache, quiet)
        summary = _summary(cache, work, inputs, model=f"{identity['name']} {identity['quantization']}", engine=engine)
    _show(summary, as_json, quiet, _summary_lines)


def _default_output(source: str, targets: str | None, as_existing: bool) -> Path:
    """The cache is named after the set that makes it different from the pool's own."""
    named = source if targets is None or as_existing else targets
    if named == "-":
        raise InputError("records from stdin need a name for the cache: -o NAME.delift")
    name = Path(named).name
    for ending in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(ending)
    return Path(f"{name}.delift")


def _score_with_progress(engine: Engine, inputs: Inputs, cache: CacheWriter, quiet: bool) -> Work:
    from .. import run, scoring

    rows, already = cache.shape[0], int((cache.rows["done"] == cache.shape[1]).sum())
    work = scoring.Work()
    with console.progress("scoring", rows, quiet=quiet) as show:
        for work in run.execute(engine, inputs, cache):
            show(
                already + work.rows,
                f"{work.pairs:,} pairs, {work.pairs / work.seconds:.1f} pairs/s, "
                f"{work.tokens / work.seconds:,.0f} tokens/s",
                work.seconds / work.rows * (rows - already - work.rows) if work.rows else None,
            )
    return work


def _summary(cache: CacheWriter, work: Work, inputs: Inputs, *, model: str, engine: Engine) -> dict[str, Any]:
    from ..inspection import utilities

    utility = utilities(cache)
    sets = [inputs.examples] if inputs.targets is None else [inputs.examples, inputs.targets]
    return {
        "cache": str(cache.path),
        "examples": cache.shape[0],
        "targets": cache.shape[1],
        "layouts": [records.layouts for records in sets],
        "duplicates": [records.duplicates for records in sets],
        "left_out": [
            {"line": record.line, "id": record.id, "reason": record.reason}
            for records in sets
            for record in records.rejected
        ],
        "model": model,
        "template": cache.manifest["template"]["name"],
        "weights": engine.weights,
        "weights_deviation": engine.deviation,
        "pairs_scored": work.pairs,
        "seconds": round(work.seconds, 3),
        "pairs_per_second": round(work.pairs / work.seconds, 2) if work.pairs else None,
        "tokens_per_second": round(work.tokens / work.seconds, 1) if work.tokens else None,
        "decode_share": round(work.decode_seconds / work.seconds, 4) if work.tokens else None,
        "reduce_share": round(work.reduce_seconds / work.seconds, 4) if work.tokens else None,
        "tokens_evaluated": work.tokens,
        "tokens_one_by_one": work.plain_tokens,
        "mean_utility": utility.mean,
        "harmful_share": utility.harmful,
    }


def _summary_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    layouts = " and ".join(
        ", ".join(f"{name} ({count:,})" for name, count in layout.items()) for layout in summary["layouts"]
    )
    lines = [
        ("records", f"{summary['examples']:,} examples by {summary['targets']:,} targets; layout {layouts}"),
        ("model", f"{summary['model']}, weights {summary['weights']}; {summary['template']}"),
    ]
    if any(summary["duplicates"]):
        lines.append(("duplicates", f"{sum(summary['duplicates']):,} exact copies (kept)"))
    if summary["left_out"]:
        first = summary["left_out"][0]
        count = len(summary["left_out"])
        lines.append(("left out", f"{count:,} records, first: line {first['line']}: {first['reason']}"))
    if summary["pairs_scored"]:
        saved = 1 - summary["tokens_evaluated"] / max(1, summary["tokens_one_by_one"])
        lines += [
            (
                "scored",
                f"{summary['pairs_scored']:,} pairs in {console.duration(summary['seconds'])}: "
                f"{summary['pairs_per_second']:,.1f} pairs/s, {summary['tokens_per_second']:,.0f} tokens/s",
            ),
            ("tokens", f"{summary['tokens_evaluated']:,} evaluated, {saved:.0%} fewer than one by one"),
            ("time in", f"llama.cpp {summary['decode_share']:.1%}, log-softmax {summary['reduce_share']:.1%}"),
        ]
    else:
        lines.append(("scored", "nothing to do, the cache was complete"))
    return [
        *lines,
        ("utility", f"mean {summary['mean_utility']:+.4f}, {summary['harmful_share']:.0%} of the pairs harmful"),
        ("cache", summary["cache"]),
        ("next", f"delift select {summary['cache']} -k 30% > subset.jsonl"),
    ]


def _forecast(forecast: Forecast, engine: Engine) -> dict[str, Any]:
    return {**asdict(forecast), "weights": engine.weights, "batch": engine.settings.batch}


def _forecast_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    saved = 1 - summary["tokens"] / summary["plain_tokens"]
    return [
        ("pairs", f"{summary['pairs']:,}"),
        ("tokens", f"{summary['tokens']:,} to evaluate, {saved:.0%} fewer than one by one"),
        (
            "time",
            f"{console.duration(summary['seconds'])} at {summary['tokens_per_second']:,.0f} tokens/s "
            f"(weights {summary['weights']}, batch {summary['batch']})",
        ),
        ("disk", f"{summary['disk_bytes'] / 1e6:,.1f} MB"),
        ("memory", f"{summary['memory_bytes'] / 1e6:,.0f} MB"),
    ]


def _show(
    summary: dict[str, Any], as_json: bool, quiet: bool, lines: Callable[[dict[str, Any]], list[tuple[str, str]]]
) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    elif not quiet:
        console.facts(lines(summary))


def _nothing(_text: str) -> None:
    """What a quiet run says."""

"""`delift score`: measure a block of examples × targets into a cache."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from .. import cache as caches
from .. import console, encoding, inspection
from ..errors import InputError
from ..records import RecordSet, read_records
from ..template import TEMPLATE_DATE, ChatTemplate, load_template

if TYPE_CHECKING:  # llama.cpp takes a while to load, and only this verb needs it
    from ..model import ModelFile, Settings
    from ..scoring import Work

METRIC = {
    "distance": "||1 - p||_2 / sqrt(L) over the response's tokens and its end of turn",
    "logprob": "mean ln p over the same tokens",
}

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
Weights = Literal["as-is", "f32", "f16", "bf16", "q8_0", "q4_0"]


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
        Weights, typer.Option(help="Run a converted copy of the weights; bf16 or f16 is often faster.")
    ] = "as-is",
    gpu_layers: Annotated[
        int | None, typer.Option(min=0, help="Layers on the GPU; default all where possible.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default all cores.")] = None,
    batch: Annotated[int, typer.Option(min=16, help="Tokens in one llama.cpp call.")] = 512,
    kv_type: Annotated[KvType, typer.Option(help="Storage of the KV cache.")] = "f16",
    flash_attn: Annotated[FlashAttention, typer.Option(help="Flash attention.")] = "auto",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show llama.cpp's own log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Measure how much each example, shown in context, helps the model with each target.

    delift score train.jsonl -o train.delift\n
    delift score train.jsonl --targets dev.jsonl -o dev.delift\n
    delift score --examples old.jsonl --targets train.jsonl -o old.delift
    """
    from ..model import ModelFile, Settings, locate, log_to

    if (data is None) == (examples is None):
        raise InputError("give the pool, as in: delift score train.jsonl; or --examples and --targets")
    if examples is not None and targets is None:
        raise InputError("--examples needs --targets, the records that the examples are to help with")
    source = str(data or examples)
    if source == "-" and targets == "-":
        raise InputError("examples and targets cannot both come from stdin")
    if source == "-" and output is None:
        raise InputError("records from stdin need a name for the cache: -o NAME.delift")
    fields = {"prompt": prompt_field, "response": response_field}
    reading = {"prompt_field": prompt_field, "response_field": response_field, "skip_invalid": skip_invalid}
    example_records = read_records(source, **reading)  # type: ignore[arg-type]
    target_records = None if targets is None else read_records(targets, **reading)  # type: ignore[arg-type]
    path = output or _default_output(source, targets, examples is not None)

    log_to(sys.stderr if verbose else None)
    settings = Settings(gpu_layers, threads, batch, kv_type, flash_attn)
    file = ModelFile(locate(model))
    context = ctx or file.context
    chat = load_template(template, file.template, file.vocabulary)
    prepared = _encode(example_records, target_records, chat, context, truncate, skip_invalid)
    example_records, target_records, encoded_examples, encoded_targets = prepared

    identity = file.identity()
    description = {
        "model": identity,
        "weights": weights,
        "template": {
            "name": chat.name,
            "text": chat.source,
            "date": TEMPLATE_DATE.date().isoformat(),
            "add_bos": file.vocabulary.add_bos,
        },
        "metric": METRIC,
        "settings": {
            "truncate": context if truncate else None,
            "kv_type": settings.kv_type,
            "flash_attention": settings.flash_attention,
        },
        "fields": fields,
    }
    with caches.open_for_scoring(
        path,
        description,
        example_records,
        target_records,
        example_tokens=[len(prefix) for prefix in encoded_examples.prefixes],
        response_tokens=[len(target.response) for target in encoded_targets.targets],
    ) as cache:
        if not verbose:
            log_to((path / "llama.cpp.log").open("a", encoding="utf-8"))
        work = _run(cache, file, identity, weights, settings, encoded_examples, encoded_targets, quiet)
        summary = _summary(cache, work, example_records, target_records, model=identity)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    elif not quiet:
        _print(summary)


def _default_output(source: str, targets: str | None, as_existing: bool) -> Path:
    """The cache is named after the set that makes it different from the pool's own."""
    named = source if targets is None or as_existing else targets
    name = Path(named).name
    for ending in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(ending)
    return Path(f"{name}.delift")


def _encode(
    examples: RecordSet,
    targets: RecordSet | None,
    chat: ChatTemplate,
    context: int,
    truncate: bool,
    skip_invalid: bool,
) -> tuple[RecordSet, RecordSet | None, encoding.EncodedExamples, encoding.EncodedTargets]:
    """Tokens for both roles; records that cannot fit are refused by name or, when asked, left out."""
    while True:
        as_examples = encoding.encode_examples(examples, chat, limit=context // 2 if truncate else None)
        as_targets = encoding.encode_targets(
            targets or examples, chat, limit=context - context // 2 if truncate else None
        )
        long = encoding.too_long(examples, targets or examples, as_examples.prefixes, as_targets.lengths(), context)
        if not any(long):
            return examples, targets, as_examples, as_targets
        if not skip_invalid:
            every = [*long.examples, *long.targets]
            names = ", ".join(f"{record.id} (line {record.line}, {record.reason})" for record in every[:5])
            more = f" and {len(every) - 5} more" if len(every) > 5 else ""
            raise InputError(
                f"pairs with these records exceed the context of {context:,} tokens: {names}{more}; "
                "use --truncate, a larger --ctx, or --skip-invalid to leave them out"
            )
        if targets is None:
            examples = encoding.without(examples, [*long.examples, *long.targets])
        else:
            examples = encoding.without(examples, long.examples)
            targets = encoding.without(targets, long.targets)


def _run(
    cache: caches.CacheWriter,
    file: ModelFile,
    identity: dict[str, Any],
    weights: str,
    settings: Settings,
    examples: encoding.EncodedExamples,
    targets: encoding.EncodedTargets,
    quiet: bool,
) -> Work:
    from .. import scoring
    from ..model import Model
    from ..weights import converted

    if cache.complete:
        return scoring.Work()
    run_file = converted(file, identity["sha256"], weights, threads=settings.resolved_threads())
    prepared = scoring.TargetTokens(targets)
    cells = scoring.cells_needed(examples.prefixes, prepared, settings.batch)
    n_rows, n_targets = cache.shape
    already = int((cache.rows["done"] == n_targets).sum())
    work = scoring.Work()
    with (
        Model(run_file, settings, cells=cells) as model,
        console.progress("scoring", n_rows, quiet=quiet) as show,
    ):
        started = time.perf_counter()
        for work in scoring.score(model, examples, prepared, cache):
            seconds = time.perf_counter() - started
            left = seconds / work.rows * (n_rows - already - work.rows) if work.rows else None
            show(
                already + work.rows,
                f"{work.pairs:,} pairs, {work.pairs / seconds:.1f} pairs/s, {work.tokens / seconds:,.0f} tokens/s",
                left,
            )
        work.finish()
    return work


def _summary(
    cache: caches.Cache,
    work: Work,
    examples: RecordSet,
    targets: RecordSet | None,
    *,
    model: dict[str, Any],
) -> dict[str, Any]:
    utility = inspection.utilities(cache)
    sets = [examples] if targets is None else [examples, targets]
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
        "model": f"{model['name']} {model['quantization']}",
        "pairs_scored": work.pairs,
        "seconds": round(work.seconds, 3),
        "pairs_per_second": round(work.pairs / work.seconds, 2) if work.pairs else None,
        "tokens_per_second": round(work.tokens / work.seconds, 1) if work.tokens else None,
        "tokens_evaluated": work.tokens,
        "tokens_one_by_one": work.plain_tokens,
        "mean_utility": utility.mean,
        "harmful_share": utility.harmful,
    }


def _print(summary: dict[str, Any]) -> None:
    layouts = " and ".join(
        ", ".join(f"{name} ({count:,})" for name, count in layout.items()) for layout in summary["layouts"]
    )
    rows = [
        ("records", f"{summary['examples']:,} examples by {summary['targets']:,} targets; layout {layouts}"),
        ("model", summary["model"]),
    ]
    if any(summary["duplicates"]):
        rows.append(("duplicates", f"{sum(summary['duplicates']):,} exact copies (kept)"))
    if summary["left_out"]:
        first = summary["left_out"][0]
        count = len(summary["left_out"])
        rows.append(("left out", f"{count:,} invalid records, first: line {first['line']}: {first['reason']}"))
    if summary["pairs_scored"]:
        rows.append(
            (
                "scored",
                f"{summary['pairs_scored']:,} pairs in {console.duration(summary['seconds'])}: "
                f"{summary['pairs_per_second']:,.1f} pairs/s, {summary['tokens_per_second']:,.0f} tokens/s",
            )
        )
        saved = 1 - summary["tokens_evaluated"] / max(1, summary["tokens_one_by_one"])
        rows.append(("tokens", f"{summary['tokens_evaluated']:,} evaluated, {saved:.0%} fewer than one by one"))
    else:
        rows.append(("scored", "nothing to do, the cache was complete"))
    rows += [
        ("utility", f"mean {summary['mean_utility']:+.4f}, {summary['harmful_share']:.0%} of the pairs harmful"),
        ("cache", summary["cache"]),
        ("next", f"delift select {summary['cache']} -k 30% > subset.jsonl"),
    ]
    console.facts(rows)

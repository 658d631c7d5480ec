"""`delift evaluate`: what subsets are worth to the model as it is, shown in context to held-out records."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from ..evaluation.intervals import Interval, Outcome, outcomes, random_subsets
from . import console
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

COLUMNS = (
    *("shown", "records", "logprob", "logprob_low", "logprob_high", "distance", "distance_low", "distance_high"),
    *("perplexity", "better_by", "better_low", "better_high"),
)


def evaluate(
    held_out: Annotated[str, typer.Argument(metavar="HELDOUT", help="Records to predict, in none of the subsets.")],
    subset: Annotated[list[str], typer.Argument(metavar="SUBSET...", help="Files of records, or caches.")],
    pool: Annotated[
        str | None, typer.Option(help="What the subsets were chosen from, to draw random ones: a file or a cache.")
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Examples in front of each held-out record.")] = 1,
    random: Annotated[int, typer.Option(min=2, help="Random subsets to compare each one with.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the random subsets and of the bootstrap.")] = 0,
    model: ModelChoice = None,
    template: TemplateChoice = None,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    skip_invalid: SkipInvalid = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut the middle of prompts so that everything fits the context.")
    ] = False,
    weights: WeightsChoice = "auto",
    gpu_layers: GpuLayers = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but data and errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout; default TSV.")] = False,
) -> None:
    """Test subsets without training: show each held-out record the subset's best matches, and see if that helps.

    delift evaluate test.jsonl subset.jsonl --pool train.jsonl\n
    delift evaluate test.jsonl a.jsonl b.jsonl --pool train.delift --shots 3
    """
    from ..evaluation.in_context import HeldOut, join, read_set
    from ..model.gguf import ModelFile, locate
    from ..model.llama import Settings
    from ..prompt.builtin import load_template
    from ..prompt.encoding import encode_examples
    from ..scoring import job

    say = _nothing if quiet else console.say
    sources = (held_out, *subset, *([] if pool is None else [pool]))
    read = partial(read_set, prompt_field=prompt_field, response_field=response_field, skip_invalid=skip_invalid)
    targets, *sets = map(read, sources)
    for each in (targets, *sets):
        if each.rejected:
            first, count = each.rejected[0], len(each.rejected)
            left_out = console.counted(count, "record")
            say(f"{each.source}: {left_out} left out, first: line {first.line}: {first.reason}")
    joined = join(sets)
    subsets = joined.members[: len(subset)]
    sizes = list(dict.fromkeys(map(len, subsets))) if pool is not None else []
    drawn = {size: random_subsets(joined.members[-1], size, random, seed) for size in sizes}

    file = ModelFile(locate(model))
    sha256 = file.identity()["sha256"]
    chat = load_template(template, file.template, file.vocabulary)
    limit = file.context // (shots + 1) if truncate else None
    test = HeldOut(targets, joined.records, chat, limit)
    engine = job.choose_engine(
        file,
        sha256,
        weights,
        Settings(gpu_layers, threads),
        batch=None,
        inputs=job.Inputs(joined.records, targets, encode_examples(joined.records, chat, limit=limit), test.targets),
        cache=None,
        say=say,
    )
    with console.counting("prompts", len(targets.records) + len(joined.records.records), quiet=quiet) as report:
        test.embed_prompts(engine, report)
    shown = np.array(
        [
            *(test.nearest(members, shots, name) for name, members in zip(subset, subsets, strict=True)),
            *(test.nearest(members, shots, "a random subset") for size in sizes for members in drawn[size]),
        ]
    )
    with console.counting("examples", len(np.unique(shown.reshape(-1, shots), axis=0)), quiet=quiet) as report:
        measured = test.measure(engine, file.context, shown, report)
    rows = outcomes(
        measured[0],
        list(zip(subset, map(len, subsets), measured[1:], strict=False)),
        {size: measured[1 + len(subset) + at * random :][:random] for at, size in enumerate(sizes)},
        seed,
    )
    result = {
        "held_out": len(targets.records),
        "shots": shots,
        "random": random if sizes else 0,
        "seed": seed,
        "model_sha256": sha256,
        "rows": [_fields(row) for row in rows],
    }
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        lines = [COLUMNS, *map(_cells, rows)]
        sys.stdout.buffer.write(b"".join("\t".join(line).encode() + b"\n" for line in lines))
    sys.stdout.buffer.flush()
    if not quiet:
        _print(rows, len(targets.records), shots)


def _fields(row: Outcome) -> dict[str, Any]:
    better = None if row.better is None else {**row.better._asdict(), "verdict": row.verdict}
    return {
        "shown": row.shown,
        "records": row.records,
        "logprob": row.logprob._asdict(),
        "distance": row.distance._asdict(),
        "perplexity": row.perplexity,
        "better_than_random": better,
    }


def _cells(row: Outcome) -> list[str]:
    numbers = [*row.logprob, *row.distance, row.perplexity, *(row.better or (None, None, None))]
    return [row.shown, str(row.records), *("" if number is None else f"{number:.6g}" for number in numbers)]


def _print(rows: list[Outcome], held_out: int, shots: int) -> None:
    behind = console.counted(shots, "example")
    console.say(f"{held_out:,} held-out records behind {behind} each, with 95 % intervals")
    console.table(
        ("shown", "records", "nats per token", "distance", "perplexity"),
        [
            (row.shown, f"{row.records:,}", *map(_with_interval, (row.logprob, row.distance)), f"{row.perplexity:.2f}")
            for row in rows
        ],
    )
    for row in rows:
        if row.verdict is not None:
            console.say(f"{row.shown}: {row.verdict}")


def _with_interval(interval: Interval) -> str:
    return f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _nothing(_text: str) -> None:
    """What a quiet run says."""

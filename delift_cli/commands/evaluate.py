"""`delift evaluate`: what subsets are worth to the model as it is, shown in context to held-out records."""

from __future__ import annotations

import sys
from math import isnan
from typing import Annotated

import typer

from ..errors import LARGEST_SEED, InputError
from ..evaluation.intervals import Outcome
from ..visible import visible
from . import console, options
from .options import (
    AsTrained,
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
from .unused import Use, refuse_idle

COLUMNS = (
    *("shown", "records", "logprob", "logprob_low", "logprob_high", "distance", "distance_low", "distance_high"),
    *("perplexity", "better_by", "better_low", "better_high"),
)


def evaluate(
    context: typer.Context,
    held_out: Annotated[str, typer.Argument(metavar="HELDOUT", help="Records to predict, in none of the subsets.")],
    subset: Annotated[list[str], typer.Argument(metavar="SUBSET...", help="Files of records, or caches.")],
    pool: Annotated[
        str | None,
        options.how_much(metavar="DATA|CACHE", help="What the subsets were chosen from, to draw random ones."),
    ] = None,
    random: Annotated[int, options.how_much(metavar="N", min=2, help="Random subsets to compare each one with.")] = 5,
    shots: Annotated[int, options.how_much(metavar="N", min=1, help="Examples in front of each held-out record.")] = 1,
    seed: Annotated[
        int,
        options.how_much(metavar="N", min=0, max=LARGEST_SEED, help="Of the random subsets and of the bootstrap."),
    ] = 0,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    turns: Turns = "all",
    role: Roles = None,
    records: RecordsKey = None,
    strict: Strict = False,
    skip_invalid: SkipInvalid = False,
    truncate: Truncate = False,
    model: ModelChoice = None,
    template: TemplateChoice = None,
    template_arg: TemplateArguments = None,
    as_trained: AsTrained = False,
    weights: WeightsChoice = "auto",
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, options.output("--json", help="The result as JSON on stdout; default TSV.")] = False,
) -> None:
    """Test subsets without training: show held-out records their best matches, and see if that helps.

    Examples:

        delift evaluate test.jsonl subset.jsonl --pool train.jsonl
        delift evaluate test.jsonl a.jsonl b.jsonl --pool train.delift --shots 3
    """
    from ..evaluation.evaluate import evaluate as measure
    from ..model.llama import Settings

    refuse_idle(context, {"random": Use(pool is not None, "without --pool")})
    if [held_out, *subset, pool].count("-") > 1:
        raise InputError("of the records of a test one set alone can come from stdin")
    notes = console.Notes(console.sayer(quiet))
    with console.bars(quiet=quiet) as progress:
        found = measure(
            held_out,
            subset,
            pool=pool,
            shots=shots,
            random=random,
            seed=seed,
            model=model,
            template=template,
            template_arguments=template_arg or (),
            as_trained=as_trained,
            reading=options.reading(prompt_field, response_field, turns, role, records, strict, skip_invalid),
            truncate=truncate,
            weights=weights,
            settings=Settings(gpu_layers, threads),
            progress=progress,
            say=notes,
        )
    if as_json:
        console.write_json({**found.as_dict(), "notes": notes.lines})
    else:
        lines = [COLUMNS, *map(_cells, found.rows)]
        sys.stdout.buffer.write(b"".join("\t".join(line).encode() + b"\n" for line in lines))
        sys.stdout.buffer.flush()
    if not quiet:
        console.say(found.lines()[0][1])
        console.table(found.table())
        for row in found.rows:
            if row.verdict is not None:
                console.say(f"{row.shown}: {row.verdict}")


def _cells(row: Outcome) -> list[str]:
    numbers = [*row.logprob, *row.distance, row.perplexity, *(row.better or (None, None, None))]
    return [
        visible(row.shown),
        str(row.records),
        *("" if number is None or isnan(number) else f"{number:.6g}" for number in numbers),
    ]

"""`delift bench`: how fast this machine scores, beside what it could do and what a plain loop does."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ..errors import InputError
from . import console, options
from .options import AsJson, Batch, ModelChoice, Quiet, Threads, WeightsChoice
from .score import RECORDS

PLAIN_PAIRS = 8


def bench(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"Records to measure with: {RECORDS}.")],
    model: ModelChoice = None,
    weights: WeightsChoice = "auto",
    threads: Threads = None,
    batch: Batch = None,
    seconds: Annotated[float, options.how_much(metavar="S", min=1, help="How long to measure our own rate.")] = 20.0,
    plain: Annotated[bool, options.how_much(help="Also time the plain high-level loop.")] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: raw prompt processing, our scoring, a plain loop, and what DATA would take.

    Examples:

        delift bench train.jsonl -m model.gguf
    """
    from ..scoring.bench import measure

    if math.isnan(seconds):
        raise InputError("--seconds nan: give a number of seconds, such as 20")
    notes = console.Notes(console.sayer(quiet))
    result = measure(
        data,
        model=model,
        weights=weights,
        threads=threads,
        batch=batch,
        seconds=seconds,
        plain_pairs=PLAIN_PAIRS if plain else 0,
        say=notes,
    )
    console.show(result, as_json=as_json, quiet=quiet, asked_for=True, notes=notes)

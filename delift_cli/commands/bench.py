"""`delift bench`: how fast this machine scores, beside what it could do and what a plain loop does."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..amount import duration
from . import console, options
from .options import AsJson, Batch, ModelChoice, Quiet, Threads, WeightsChoice

PLAIN_PAIRS = 8


def bench(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Records to measure with: JSONL or a JSON array; - for stdin.")
    ],
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

    result = measure(
        data,
        model=model,
        weights=weights,
        threads=threads,
        batch=batch,
        seconds=seconds,
        plain_pairs=PLAIN_PAIRS if plain else 0,
        say=console.sayer(quiet),
    )
    if as_json:
        console.write_json(result)
    elif not quiet:
        console.facts(_lines(result), console=console.stdout())


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    ours, shares = result["scoring"], result["scoring"]["shares"]
    lines = [
        ("model", f"{result['model']}, weights {result['weights']}, batch {result['batch']}"),
        ("raw", f"{result['raw_tokens_per_second']:,.0f} tokens/s of prompt processing"),
        (
            "scoring",
            f"{ours['pairs_per_second']:,.1f} pairs/s, {ours['tokens_per_second']:,.0f} tokens/s, "
            f"{ours['share_of_raw']:.2f} of raw",
        ),
        (
            "time in",
            f"decode {shares['decode']:.1%}, reduction {shares['reduction']:.1%}, other {shares['other']:.1%}",
        ),
    ]
    if "plain_loop" in result:
        loop = result["plain_loop"]
        lines.append(
            (
                "plain loop",
                f"{loop['pairs_per_second']:.2f} pairs/s as shipped, we are {loop['ratio']:.0f} times faster",
            )
        )
    forecast = result["forecast"]
    return [
        *lines,
        (
            "tokens",
            f"{forecast['tokens']:,} for all {forecast['pairs']:,} pairs; one by one {forecast['plain_tokens']:,}",
        ),
        ("all pairs", duration(forecast["seconds"])),
    ]

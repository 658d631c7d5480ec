"""`delift bench`: how fast this machine scores, beside what it could do and what a plain loop does."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from . import console
from .model_options import ModelChoice, Threads

PLAIN_PAIRS = 8


def bench(
    data: Annotated[str, typer.Argument(help="Records to measure with: JSONL or a JSON array; - for stdin.")],
    model: ModelChoice = None,
    weights: Annotated[str, typer.Option(help="As for delift score.")] = "auto",
    threads: Threads = None,
    batch: Annotated[int | None, typer.Option(min=16, help="Tokens in one llama.cpp call.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long to measure our own rate.")] = 20.0,
    plain: Annotated[bool, typer.Option(help="Also time the plain high-level loop.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Measure, side by side in one run: raw prompt processing, our scoring, a plain loop; and what DATA would take."""
    from ..scoring.bench import measure

    result = measure(
        data,
        model=model,
        weights=weights,
        threads=threads,
        batch=batch,
        seconds=seconds,
        plain_pairs=PLAIN_PAIRS if plain else 0,
        say=(lambda text: None) if quiet else console.say,
    )
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
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
        ("all pairs", console.duration(forecast["seconds"])),
    ]

"""`delift inspect`: what a cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from ..amount import counted
from ..cache.dense import Cache
from ..cache.figures import utilities
from ..cache.sparse import SparseCache, open_cache
from ..visible import one_line
from . import bars, console, options
from .options import AsJson


def inspect(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by delift score.")],
    top: Annotated[int, options.output(metavar="N", min=0, help="How many of the most and least useful examples.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say what a cache holds, and show its most and least useful examples.

    Examples:

        delift inspect train.delift
    """
    opened = open_cache(cache)
    opened.check_rows()
    found = utilities(opened)
    records = opened.examples().records
    scored = np.flatnonzero(~np.isnan(found.examples))
    ranked = scored[np.argsort(-found.examples[scored], kind="stable")].tolist()

    def row(example: int) -> dict[str, Any]:
        record = records[example]
        return {
            "id": record.id,
            "line": record.line,
            "mean_utility": float(found.examples[example]),
            "prompt": record.prompt[-1].content,
            "response": record.response,
        }

    n, m = opened.shape
    summary: dict[str, Any] = {
        "cache": str(cache),
        "examples": n,
        "targets": m,
        "square": opened.square,
        **_extent(opened),
        "complete": opened.complete,
        "mean_utility": found.mean,
        "harmful_share": found.harmful,
        "manifest": opened.manifest,
        "most_useful": [row(example) for example in ranked[:top]],
        "least_useful": [row(example) for example in ranked[::-1][:top]],
    }
    if as_json:
        console.write_json(summary)
        return
    manifest = opened.manifest
    model, settings = manifest["model"], manifest["settings"]
    block = "the pool against itself" if opened.square else f"targets from {manifest['targets']['source']}"
    console.facts(
        [
            ("cache", f"{cache}, format {manifest['version']}"),
            ("block", f"{opened.shape[0]:,} examples from {manifest['examples']['source']}, {block}"),
            ("state", _state(opened)),
            ("model", f"{model['name']} {model.get('quantization')}, sha256 {model['sha256'][:16]}…"),
            ("weights", manifest["weights"]["type"]),
            ("template", manifest["template"]["name"]),
            ("settings", ", ".join(f"{name} {value}" for name, value in settings.items())),
            ("utility", f"mean {found.mean:+.4f}, {found.harmful:.0%} of the {_pairs(opened)} harmful"),
            *bars.spread(found.examples, console.stdout()),
        ],
        console=console.stdout(),
    )
    for title, rows in (("most useful", summary["most_useful"]), ("least useful", summary["least_useful"])):
        console.stdout().print(_table(title, rows))


def _extent(cache: Cache | SparseCache) -> dict[str, int]:
    """How far it is scored."""
    if isinstance(cache, SparseCache):
        return {"rounds": len(cache.rounds), "pairs_planned": cache.planned, "pairs_measured": cache.pairs_done}
    return {"rows_done": int((cache.rows["done"] == cache.shape[1]).sum())}


def _state(cache: Cache | SparseCache) -> str:
    n, m = cache.shape
    if not isinstance(cache, SparseCache):
        return "complete" if cache.complete else f"{_extent(cache)['rows_done']:,} of {n:,} rows scored"
    open_ = cache.planned - cache.pairs_done
    rest = f", {open_:,} more planned" if open_ else ""
    share = cache.pairs_done / (n * m)
    return (
        f"{cache.pairs_done:,} of {n * m:,} pairs measured ({share:.2%}) in "
        f"{counted(len(cache.rounds), 'round')}{rest}; "
        "all figures are of these alone"
    )


def _pairs(cache: Cache | SparseCache) -> str:
    return "measured pairs" if isinstance(cache, SparseCache) else "pairs"


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("id", no_wrap=True, min_width=max((len(one_line(row["id"], 24)) for row in rows), default=2))
    table.add_column("mean utility", justify="right", no_wrap=True, min_width=12)
    table.add_column("prompt", no_wrap=True)
    table.add_column("response", no_wrap=True)
    for row in rows:
        texts = (row["id"], f"{row['mean_utility']:+.4f}", one_line(row["prompt"], 48), one_line(row["response"], 32))
        table.add_row(*map(Text, texts))  # as it is: brackets in a record are not markup
    return table

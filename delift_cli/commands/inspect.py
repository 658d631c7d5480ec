"""`delift inspect`: what a cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..cache.contents import HEADINGS, contents
from ..cache.sparse import open_cache
from ..visible import one_line
from . import bars, console, options
from .options import AsJson

WIDTHS = (24, 12, 48, 32)  # of the columns under HEADINGS, at most


def inspect(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by delift score.")],
    top: Annotated[int, options.output(metavar="N", min=0, help="How many of the most and least useful examples.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say what a cache holds, and show its most and least useful examples.

    Examples:

        delift inspect train.delift
    """
    found = contents(open_cache(cache), top)
    spread = bars.spread(found.utility.examples, console.stdout())
    console.show(found, as_json=as_json, asked_for=True, also=[] if as_json else spread)
    if not as_json:
        for title, rows in found.tables():
            console.stdout().print(_table(title, rows))


def _table(title: str, rows: list[tuple[str, ...]]) -> Table:
    shown = [tuple(one_line(cell, width) for cell, width in zip(row, WIDTHS, strict=True)) for row in rows]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(HEADINGS[0], no_wrap=True, min_width=max((len(row[0]) for row in shown), default=2))
    table.add_column(HEADINGS[1], justify="right", no_wrap=True, min_width=12)
    for name in HEADINGS[2:]:
        table.add_column(name, no_wrap=True)
    for row in shown:
        table.add_row(*map(Text, row))  # as it is: brackets in a record are not markup
    return table

"""`delift inspect`: what a cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ..cache.contents import HEADINGS, contents
from ..cache.dense import Cache
from ..cache.sparse import SparseCache, open_cache
from ..progress import Progress
from ..selection.methods import OpenModel
from ..selection.set_aside import look_for_suspects
from ..visible import one_line, visible
from . import bars, console, options
from .options import AsJson, GpuLayers, ModelChoice, Quiet, Threads
from .unused import Use, refuse_idle

WIDTHS = (48, 32)  # of a prompt and a response, at most
NARROWEST, GAP = 8, 2  # characters that a text needs to be worth a column; between two columns


def inspect(
    context: typer.Context,
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by delift score.")],
    top: Annotated[int, options.output(metavar="N", min=0, help="How many of the most and least useful examples.")] = 5,
    suspects: Annotated[
        int, options.output(metavar="N", min=0, help="List the N answers that are most probably wrong or spoiled.")
    ] = 0,
    model: ModelChoice = None,
    gpu_layers: GpuLayers = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what a cache holds, and show its most and least useful examples.

    Examples:

        delift inspect train.delift
        delift inspect train.delift --suspects 20
    """
    refuse_idle(context, dict.fromkeys(("model", "gpu_layers", "threads"), Use(suspects > 0, "without --suspects")))
    opened = open_cache(cache)
    found = contents(opened, top)
    listed = []
    if suspects:
        with console.bars(quiet=quiet or as_json) as progress:
            listed = _suspects(opened, suspects, OpenModel(model, gpu_layers, threads), progress)
    if as_json:
        console.write_json({**found.as_dict(), **({"suspects": listed} if suspects else {})})
        return
    console.show(found, as_json=False, asked_for=True, also=bars.spread(found.utility.examples, console.stdout()))
    room = console.stdout().width
    for title, rows in found.tables():
        console.stdout().print(_table(title, HEADINGS, rows, room))
    if suspects:
        cells = [(row["id"], f"{row['suspicion']:.3f}", row["prompt"], row["response"]) for row in listed]
        console.stdout().print(_table("suspects", (HEADINGS[0], "suspicion", *HEADINGS[2:]), cells, room))


def _suspects(
    cache: Cache | SparseCache, count: int, open_model: OpenModel, progress: Progress
) -> list[dict[str, Any]]:
    records = cache.examples().records
    judged = look_for_suspects(cache, records, open_model, progress)
    return [judged.row(records[place], place) for place in judged.worst(count).tolist()]


def _table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], room: int) -> Table:
    """Ids and figures whole, texts in what is left of `room` characters; those that have none are left out."""
    shown = [(visible(id), figure, *map(one_line, texts, WIDTHS)) for id, figure, *texts in rows]
    widths = [max((cell_len(row[0]) for row in shown), default=2), 12]
    left = room - sum(widths) - 2 * GAP
    if left >= 2 * NARROWEST + GAP:
        widths += [min(most, (left - GAP) * fifths // 5) for most, fifths in zip(WIDTHS, (3, 2), strict=True)]
    elif left >= NARROWEST:
        widths.append(min(WIDTHS[0], left))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, (name, width) in enumerate(zip(headings, widths, strict=False)):
        table.add_column(
            name, justify="right" if place == 1 else "left", no_wrap=True, min_width=width, max_width=width
        )
    for row in shown:
        table.add_row(*map(Text, row[: len(widths)]))  # as it is: brackets in a record are not markup
    return table

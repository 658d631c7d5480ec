"""`delift show`: a record with its best helpers and whom it helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..selection.shown import show_records
from . import console, options
from .options import AsJson


def show(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by delift score.")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Records' ids, or line:7, record:7.")],
    top: Annotated[int, options.output(metavar="N", min=0, help="How many of the pairs of each kind.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Print records of a cache, each with who helps it most, whom it helps and whom it harms.

    Examples:

        delift show train.delift 17 42
        delift show train.delift line:7
    """
    found = show_records(cache, ids, top)
    if as_json:
        console.write_json({"cache": str(cache), "records": [each.as_dict() for each in found]})
        return
    for place, each in enumerate(found):
        if place:
            console.stdout().print()
        console.show(each, as_json=False, asked_for=True)

"""`delift report`: what the scores say about the data, as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cache.sparse import open_cache
from ..errors import InputError
from ..selection.blocks import Estimates, KernelOptions, SelfUtility, as_block
from ..selection.output import write
from ..submodular.kernel import Utility
from . import console


def report(
    cache: Annotated[
        list[Path], typer.Argument(metavar="CACHE...", help="A cache; two of the same records to compare.")
    ],
    destination: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    subset: Annotated[
        list[Path] | None, typer.Option(help="A file of selected records, or of ids. Repeatable. Default: the best -k.")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Cache of the pool by a target set.")] = None,
    k: Annotated[str, typer.Option("-k", help="Without --subset: how much to select, as for delift select.")] = "30%",
    group: Annotated[str | None, typer.Option(help="Field that records are grouped by; default: one is found.")] = None,
    utility: Annotated[Utility, typer.Option(help="As for delift select.")] = "euclidean",
    self_utility: Annotated[SelfUtility, typer.Option("--self", help="As for delift select.")] = "exclude",
    estimates: Annotated[Estimates, typer.Option(help="As for delift select.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the random order to compare with, and of the map's sample.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Write a page on what the scores say about the data: one HTML file that needs no network.

    delift report train.delift -o report.html\n
    delift report train.delift --subset subset.jsonl --target dev.delift -o report.html\n
    delift report before.delift after.delift -o compared.html
    """
    from ..report import Pool, Wanted, document, drawing_library, render

    drawing_library()  # said before the work, not after it
    options = KernelOptions(utility, "clip", self_utility, estimates, seed)
    wanted = Wanted(subset or (), k, group, options, seed)
    if len(cache) > 2:
        raise InputError("delift report takes one cache, or two to compare")
    blocks = [as_block(open_cache(path)) for path in cache]
    if len(blocks) == 2:
        from ..report import compare

        if target is not None:
            raise InputError("--target is of no use to a comparison of two caches; leave it out")
        made = compare(blocks[0], blocks[1], wanted)
    else:
        made = document(Pool(blocks[0], None if target is None else as_block(open_cache(target)), wanted))
    page = render(made)
    write(page, destination)
    if not quiet:
        console.say(f"wrote {destination}, {len(page) / 1e6:.1f} MB; open it in a browser")

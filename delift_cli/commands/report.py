"""`delift report`: what the scores say about the data, as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..report.run import report_page
from ..selection.blocks import Estimates, KernelOptions, SelfUtility
from ..selection.methods import opened_cache
from ..selection.output import write
from ..selection.overwriting import check_places, files_read, refuse_to_destroy
from ..submodular.kernel import Utility
from . import console, options
from .options import Quiet
from .unused import Use, refuse_idle


def report(
    context: typer.Context,
    cache: Annotated[
        list[Path], typer.Argument(metavar="CACHE...", help="A cache; two of the same records to compare them.")
    ],
    subset: Annotated[
        list[Path] | None,
        options.choosing(metavar="FILE", help="Selected records, or their ids; default the best -k. Repeatable."),
    ] = None,
    target: Annotated[Path | None, options.choosing(metavar="CACHE", help="The pool by a target set.")] = None,
    k: Annotated[
        str, options.choosing("-k", metavar="AMOUNT", help="Without --subset: how much, as for delift select.")
    ] = "30%",
    utility: Annotated[Utility, options.choosing(help="As for delift select.")] = "euclidean",
    self_utility: Annotated[SelfUtility | None, options.choosing("--self", help="As for delift select.")] = None,
    estimates: Annotated[Estimates, options.choosing(help="As for delift select.")] = "auto",
    group: Annotated[
        str | None, options.records(metavar="FIELD", help="Field to group records by; default one that is found.")
    ] = None,
    seed: Annotated[int, options.machine(metavar="N", min=0, help="Of everything random.")] = 0,
    destination: Annotated[Path, options.output("--output", "-o", metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    quiet: Quiet = False,
) -> None:
    """Write a page on what the scores say about the data: one HTML file that needs no network.

    Examples:

        delift report train.delift -o report.html
        delift report train.delift --subset subset.jsonl --target dev.delift
        delift report before.delift after.delift -o compared.html
    """
    if len(cache) > 2:
        raise InputError("delift report takes one cache, or two to compare")
    refuse_idle(context, {"k": Use(not subset, "beside --subset")})
    opened = [opened_cache(path) for path in cache]
    aims = None if target is None else opened_cache(target)
    read = files_read([*opened, *([] if aims is None else [aims])], *(subset or ()))
    refuse_to_destroy({"-o": destination}, read)
    check_places({"-o": destination})
    page = report_page(
        *opened,
        subset=subset or (),
        target=aims,
        k=k,
        group=group,
        options=KernelOptions(utility, "clip", self_utility, estimates, seed),
        seed=seed,
    )
    write(page, destination)
    if not quiet:
        console.say(f"wrote {destination}, {len(page) / 1e6:.1f} MB; open it in a browser")

"""`delift verify`: is every byte of a cache as it was written?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console, options
from .options import AsJson, GpuLayers, ModelChoice, Quiet, Threads
from .unused import Use, refuse_idle


def verify(
    context: typer.Context,
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by delift score.")],
    repair: Annotated[
        bool, options.how_much("--repair", help="Compute what is damaged again, and nothing else.")
    ] = False,
    model: ModelChoice = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a cache and name what is damaged (exit code 1); with --repair compute it again.

    Examples:

        delift verify train.delift
        delift verify train.delift --repair
    """
    from ..model.llama import Settings
    from ..scoring.repair import verify as verified

    refuse_idle(context, dict.fromkeys(("model", "gpu_layers", "threads"), Use(repair, "without --repair")))
    with console.bars(quiet=quiet) as progress:
        found = verified(cache, repair=repair, model=model, settings=Settings(gpu_layers, threads), progress=progress)
    console.show(found, as_json=as_json, quiet=quiet, asked_for=True)
    if not found.sound:
        raise typer.Exit(1)

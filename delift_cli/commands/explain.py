"""`delift explain`: why a record was chosen, or what made it redundant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..selection.blocks import KernelOptions, SelfUtility
from ..selection.reasons import explain_record
from ..submodular.kernel import Transform, Utility
from . import console, options
from .options import AsJson

PoolObjective = Literal["fl", "sqrt", "log1p", "saturated", "lp", "noisyor", "topm"]


def explain(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="The pool's cache.")],
    record: Annotated[str, typer.Argument(metavar="ID", help="A record's id.")],
    k: Annotated[
        str, options.choosing("-k", metavar="AMOUNT", help="The selection to explain, as for delift select.")
    ] = "30%",
    objective: Annotated[PoolObjective | None, options.choosing(help="As for delift select.")] = None,
    utility: Annotated[Utility, options.choosing(help="As for delift select.")] = "euclidean",
    kernel: Annotated[Transform, options.choosing(help="As for delift select.")] = "clip",
    self_utility: Annotated[SelfUtility | None, options.choosing("--self", help="As for delift select.")] = None,
    top: Annotated[int, options.output(metavar="N", min=1, help="How many lines of each kind.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say why a record is in the selection, or who made it redundant; and whom it harms.

    Examples:

        delift explain train.delift 17 -k 30%
    """
    kernel_options = KernelOptions(utility, kernel, self_utility)
    reasons = explain_record(cache, record, k, objective=objective, options=kernel_options, top=top)
    console.show(reasons, as_json=as_json, asked_for=True)

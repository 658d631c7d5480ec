"""`delift cache`: the converted models that delift keeps."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer

from . import console


def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the converted models and remembered settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """List the converted models that delift score keeps, or remove them."""
    from ..model.converted import cache_directory, clear_cache, kept_models

    kept = [{"file": path.name, "bytes": path.stat().st_size} for path in kept_models()]
    if clear:
        clear_cache()
    if as_json:
        result = {"directory": str(cache_directory()), "models": kept, "cleared": clear}
        sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
        return
    total = sum(int(str(entry["bytes"])) for entry in kept)
    console.facts(
        [
            ("directory", str(cache_directory())),
            *((f"{int(str(entry['bytes'])) / 1e6:,.0f} MB", str(entry["file"])) for entry in kept),
            ("removed" if clear else "in all", f"{len(kept)} models, {total / 1e6:,.0f} MB"),
        ],
        console=console.stdout(),
    )

"""`delift cache`: the converted models that delift keeps."""

from __future__ import annotations

from typing import Annotated

from ..amount import counted
from . import console, options
from .options import AsJson


def cache(
    clear: Annotated[
        bool, options.output("--clear", help="Remove the converted models and remembered settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the converted models that delift score keeps, or remove them.

    Examples:

        delift cache
        delift cache --clear
    """
    from ..machine.kept import cache_directory
    from ..model.converted import clear_cache, kept_models, unfinished

    kept = [{"file": path.name, "bytes": path.stat().st_size} for path in kept_models()]
    left = [{"file": path.name, "bytes": path.stat().st_size} for path in unfinished()]
    if clear:
        clear_cache()
    if as_json:
        result = {"directory": str(cache_directory()), "models": kept, "unfinished": left, "cleared": clear}
        console.write_json(result)
        return
    total = sum(int(str(entry["bytes"])) for entry in kept)
    console.facts(
        [
            ("directory", str(cache_directory())),
            *((f"{int(str(entry['bytes'])) / 1e6:,.0f} MB", str(entry["file"])) for entry in kept),
            *((f"{int(str(entry['bytes'])) / 1e6:,.0f} MB", f"{entry['file']} (unfinished)") for entry in left),
            ("removed" if clear else "in all", f"{counted(len(kept), 'model')}, {total / 1e6:,.0f} MB"),
        ],
        console=console.stdout(),
    )

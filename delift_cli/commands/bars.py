"""Small bars for a terminal: shares of groups, the course of gains, how utilities spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ..data.groups import group_labels, group_sizes
from ..display import Lines
from ..selection.subset import Subset
from ..visible import one_line

EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"
NARROWEST = 60  # columns below which a terminal gets no bars
GROUPS = 8  # that are shown


def wanted(console: Console) -> bool:
    """Is this a terminal that is wide enough and can write them?"""
    try:
        (EIGHTHS + HEIGHTS).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return console.is_terminal and console.width >= NARROWEST


def selected(subset: Subset, console: Console) -> Lines:
    """The gains of a selection, and how much of each group it takes."""
    if not wanted(console) or not len(subset):
        return []
    width = min(32, console.width - 48)
    gains = subset.selection.gains
    rows: Lines = [("gains", f"{spark(binned(gains, width))}  {gains[0]:.4g} first, {gains[-1]:.4g} last")]
    field, labels = group_labels(subset.pool.examples, None)
    if field is None:
        return rows
    chosen = dict(group_sizes([labels[place] for place in subset.selection.indices.tolist()]))
    sizes = group_sizes(labels)
    longest = max(len(one_line(name, 24)) for name, _ in sizes[:GROUPS])
    for name, size in sizes[:GROUPS]:
        share = chosen.get(name, 0) / size
        text = f"{one_line(name, 24):<{longest}}  {bar(share, 16)}  {chosen.get(name, 0):,} of {size:,}"
        rows.append((field if len(rows) == 1 else "", text))
    if len(sizes) > GROUPS:
        rows.append(("", f"and {len(sizes) - GROUPS:,} more; delift report shows all"))
    return rows


def spread(utilities: npt.NDArray[np.float64], console: Console) -> Lines:
    """How the examples' mean utilities spread: a histogram on one line."""
    known = utilities[~np.isnan(utilities)]
    if not wanted(console) or len(known) < 2:
        return []
    counts, edges = np.histogram(known, bins=min(32, console.width - 48))
    return [("spread", f"{edges[0]:+.4f} {spark(counts)} {edges[-1]:+.4f}, examples by mean utility")]


def bar(share: float, width: int) -> str:
    """A bar of `width` characters, filled to a share from 0 to 1."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()).ljust(width, "·")


def spark(values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> str:
    """One character for each value, as high as its share of the largest; a blank for nothing."""
    top = float(np.max(values, initial=0))
    steps = [0 if top <= 0 else int(np.ceil(value / top * len(HEIGHTS))) for value in values.tolist()]
    return "".join(" " if step <= 0 else HEIGHTS[step - 1] for step in steps)


def binned(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Means of at most `width` runs of values."""
    parts: Sequence[npt.NDArray[np.float64]] = np.array_split(values, min(width, len(values)))
    return np.array([part.mean() for part in parts])


def plot(values: npt.ArrayLike, *, width: int = 64, height: int = 8) -> list[str]:
    """`values` (nondecreasing, from 0) as lines of block characters, the highest first."""
    heights = np.asarray(values, np.float64)
    if not heights.size:
        return []
    at = np.linspace(0, heights.size - 1, min(width, heights.size)).round().astype(int)
    top = max(float(heights[-1]), 1e-300)
    levels = np.round(heights[at] / top * height * 8).astype(int)
    blocks = f" {HEIGHTS}"
    return [
        "".join(blocks[int(np.clip(level - row * 8, 0, 8))] for level in levels) for row in range(height - 1, -1, -1)
    ]

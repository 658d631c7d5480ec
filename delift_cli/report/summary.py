"""What matters most of a report on one pool, in a few figures that lead to where there is more."""

from __future__ import annotations

import numpy as np

from ..amount import counted
from ..selection.suspects import Suspects
from . import findings
from .document import Section, Tile
from .look import suspected
from .pool import Pool


def in_short(pool: Pool) -> Section:
    """The first thing that is seen."""
    tiles = [*_worth(pool), *_sure(pool)]
    harmful = len(findings.harmful(pool.reach))
    tiles.append(Tile.of(harmful, "record", " with more harm than help to the others", "table-harmful"))
    if pool.suspects is not None:
        tiles.append(_suspects(pool, pool.suspects))
    size = np.bincount(pool.alike)
    groups = int((size > 1).sum())
    words = "records that say nearly the same as another" + (f", in {counted(groups, 'group')}" if groups else "")
    tiles.append(Tile(f"{int(size[size > 1].sum()):,}", words, "table-alike"))
    reach, what = (pool.reach, "record") if pool.aims_reach is None else (pool.aims_reach, "target")
    bare = len(findings.uncovered(reach))
    tiles.append(Tile.of(bare, what, " that no measured record helps", "table-uncovered"))
    if pool.apart is not None:
        far = len(findings.outliers(pool.apart))
        tiles.append(Tile.of(far, "outlier", " with little help given or got", "table-outliers"))
    return Section("short", "In short", tiles=tiles)


def _suspects(pool: Pool, found: Suspects) -> Tile:
    """How many answers are doubtful; where that is not known, how many are listed."""
    if not found.telling:
        many, which, why = len(suspected(pool, found)), "answer", " to check first: perhaps wrong or spoiled"
    else:
        many, which, why = len(found.doubtful), "doubtful answer", ", perhaps wrong or spoiled"
    return Tile.of(many, which, why, "table-suspects")


def _worth(pool: Pool) -> list[Tile]:
    """What the first subset covers."""
    subset = pool.subsets[0]
    value = subset.value_at(len(subset))
    if value is None or pool.whole <= 0:
        return []
    chance = float(pool.random_curve[len(subset) - 1]) / pool.whole
    words = (
        f"of what the whole pool ({counted(len(pool), 'record')}) covers is covered by {subset.name}; "
        f"{len(subset):,} in a random order cover{'s' * (len(subset) == 1)} {chance:.1%}"
    )
    return [Tile(f"{value / pool.whole:.1%}", words, "value")]


def _sure(pool: Pool) -> list[Tile]:
    """How far to trust what is estimated."""
    if pool.partial_block is None or pool.options.estimates == "off":
        return []
    quality = pool.partial_block.partial(pool.options).quality
    if not quality.enough:
        return [Tile("?", f"of the estimates for pairs that are not measured: {quality.words}", "sure")]
    words = f"R² of the estimates for pairs that are not measured, on {quality.pairs:,} pairs held out"
    return [Tile(f"{quality.r2:.2f}", words, "sure")]

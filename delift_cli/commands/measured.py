"""What `delift score` and `delift select` say of a block of which some pairs are measured."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ..budget.partial_block import Partial
from . import console


def measured(partial: Partial) -> dict[str, Any]:
    """How much is measured, how well the estimates of the rest predict pairs held out, what more would change."""
    cache, course = partial.cache, partial.course()
    pairs, done = cache.shape[0] * cache.shape[1], cache.pairs_done
    more = min(done, pairs - done)
    return {
        "pairs_all": pairs,
        "pairs_planned": cache.planned,
        "pairs_measured": done,
        "share_measured": partial.share,
        "rounds": [
            {"budget": part.asked.budget, "pairs": len(part), "coverage": coverage}
            for part, coverage in zip(cache.rounds, course.coverages, strict=True)
        ],
        "held_out": asdict(partial.quality),
        "expected_change": {"more_pairs": more, "share": course.expected_change(more) if more else None},
    }


def measured_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    held_out, change = found["held_out"], found["expected_change"]
    left = found["pairs_planned"] - found["pairs_measured"]
    rows = [
        (
            "measured",
            f"{found['pairs_measured']:,} of {found['pairs_all']:,} pairs ({found['share_measured']:.2%}) in "
            + console.counted(len(found["rounds"]), "round")
            + (f"; {left:,} more were planned" if left else ""),
        ),
        ("estimates", _quality(held_out)),
    ]
    if change["share"] is not None:
        more = f"{change['more_pairs']:,} more pairs would be expected to cover at most {change['share']:.1%} more"
        rows.append(("more budget", more))
    return rows


def _quality(held_out: dict[str, Any]) -> str:
    if math.isnan(held_out["r2"]) or math.isnan(held_out["spearman"]):
        return f"too few pairs are held out ({held_out['pairs']}) to say how good they are"
    return (
        f"R² {held_out['r2']:.2f}, rank correlation {held_out['spearman']:.2f} on {held_out['pairs']:,} pairs "
        "held out at random"
    )

"""What `delift score` says at its end, or of a run that it only forecasts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..budget.partial_block import Partial
from ..cache.dense import Cache
from ..cache.figures import utilities
from ..cache.sparse import SparseCache
from . import console
from .measured import measured, measured_lines

if TYPE_CHECKING:  # with llama.cpp in their train
    from ..scoring.job import Engine, Forecast, Inputs
    from ..scoring.pairs import Work

SOURCES = ("self", "neighbours", "random", "held out", "adaptive")  # by plan's codes
STOPPED = {
    "time": "the time is up; --continue --budget +1h goes on from there",
    "settled": "the last round left the selection as it was; --continue --budget +5% goes on all the same",
}


def summary(cache: Cache | SparseCache, work: Work, inputs: Inputs, *, model: str, engine: Engine) -> dict[str, Any]:
    """What a run did and what the cache holds now."""
    utility = utilities(cache)
    sets = [inputs.examples] if inputs.targets is None else [inputs.examples, inputs.targets]
    return {
        "cache": str(cache.path),
        "examples": cache.shape[0],
        "targets": cache.shape[1],
        "layouts": [records.layouts for records in sets],
        "duplicates": [records.duplicates for records in sets],
        "left_out": [
            {"line": record.line, "id": record.id, "reason": record.reason}
            for records in sets
            for record in records.rejected
        ],
        "model": model,
        "template": cache.manifest["template"]["name"],
        "weights": engine.weights,
        "weights_deviation": engine.deviation,
        "pairs_scored": work.pairs,
        "seconds": round(work.seconds, 3),
        "pairs_per_second": round(work.pairs / work.seconds, 2) if work.pairs else None,
        "tokens_per_second": round(work.tokens / work.seconds, 1) if work.tokens else None,
        "decode_share": round(work.decode_seconds / work.seconds, 4) if work.tokens else None,
        "reduce_share": round(work.reduce_seconds / work.seconds, 4) if work.tokens else None,
        "tokens_evaluated": work.tokens,
        "tokens_one_by_one": work.plain_tokens,
        "mean_utility": utility.mean,
        "harmful_share": utility.harmful,
    }


def part(cache: SparseCache, inputs: Inputs, stopped: str, seed: int) -> dict[str, Any]:
    """What there is to say of a cache of some of the pairs besides; `stopped`: see `rounds.Rounds`."""
    targets = None if inputs.targets is None else inputs.targets.records
    partial = Partial(cache, inputs.examples.records, targets, seed=seed)
    counts = np.bincount(partial.scored.source, minlength=len(SOURCES)).tolist()
    return {**measured(partial), "sources": dict(zip(SOURCES, counts, strict=True)), "stopped": stopped}


def lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary for people."""
    layouts = " and ".join(
        ", ".join(f"{name} ({count:,})" for name, count in layout.items()) for layout in summary["layouts"]
    )
    lines = [
        ("records", f"{summary['examples']:,} examples by {summary['targets']:,} targets; layout {layouts}"),
        ("model", f"{summary['model']}, weights {summary['weights']}; {summary['template']}"),
    ]
    if any(summary["duplicates"]):
        lines.append(("duplicates", f"{sum(summary['duplicates']):,} exact copies (kept)"))
    if summary["left_out"]:
        first = summary["left_out"][0]
        count = len(summary["left_out"])
        lines.append(("left out", f"{count:,} records, first: line {first['line']}: {first['reason']}"))
    if summary["pairs_scored"]:
        lines += [
            (
                "scored",
                f"{summary['pairs_scored']:,} pairs in {console.duration(summary['seconds'])}: "
                f"{summary['pairs_per_second']:,.1f} pairs/s, {summary['tokens_per_second']:,.0f} tokens/s",
            ),
            ("tokens", _saved(summary["tokens_evaluated"], summary["tokens_one_by_one"], "evaluated")),
            ("time in", f"llama.cpp {summary['decode_share']:.1%}, log-softmax {summary['reduce_share']:.1%}"),
        ]
    else:
        lines.append(("scored", "nothing to do, the cache was complete"))
    if "share_measured" in summary:
        lines += measured_lines(summary)
    if summary.get("stopped") in STOPPED:
        lines.append(("stopped", STOPPED[summary["stopped"]]))
    pairs = "measured pairs" if "share_measured" in summary else "pairs"
    return [
        *lines,
        ("utility", f"mean {summary['mean_utility']:+.4f}, {summary['harmful_share']:.0%} of the {pairs} harmful"),
        ("cache", summary["cache"]),
        ("next", summary["next"]),
    ]


def forecast(expected: Forecast, whole: Forecast, engine: Engine, rounds: int | None) -> dict[str, Any]:
    """What a run is expected to take; `whole`: what all pairs would, rounds: of a run within a budget."""
    result = {**asdict(expected), "weights": engine.weights, "batch": engine.settings.batch}
    if rounds is not None:
        result |= {"pairs_all": whole.pairs, "share": expected.pairs / whole.pairs, "rounds": rounds}
    return result


def forecast_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The forecast for people."""
    planned = ""
    if "rounds" in summary:
        rounds = console.counted(summary["rounds"], "round")
        planned = f" of {summary['pairs_all']:,} ({summary['share']:.2%}), in at most {rounds}"
    return [
        ("pairs", f"{summary['pairs']:,}{planned}"),
        ("tokens", _saved(summary["tokens"], summary["plain_tokens"], "to evaluate")),
        (
            "time",
            f"{console.duration(summary['seconds'])} at {summary['tokens_per_second']:,.0f} tokens/s "
            f"(weights {summary['weights']}, batch {summary['batch']})",
        ),
        ("disk", f"{summary['disk_bytes'] / 1e6:,.1f} MB"),
        ("memory", f"{summary['memory_bytes'] / 1e6:,.0f} MB"),
    ]


def _saved(tokens: int, one_by_one: int, what: str) -> str:
    saved = 1 - tokens / max(1, one_by_one)
    return f"{tokens:,} {what}, {abs(saved):.0%} {'fewer' if saved >= 0 else 'more'} than one by one"

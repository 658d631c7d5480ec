"""What a run of `score` did, or is expected to take: objects to look at, with their figures as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..amount import counted, duration
from ..cache.dense import Cache
from ..cache.figures import Utilities, utilities, utility_in_words
from ..cache.sparse import SparseCache
from ..data.account import account, account_lines
from ..data.record import RecordSet
from ..display import Facts
from ..scoring.job import Engine, Forecast, Inputs
from ..scoring.pairs import Work
from .partial_block import Partial, measured, measured_lines
from .proposals import NEAR_ALONE

SOURCES = ("self", "neighbours", "random", "held out", "adaptive")  # by the codes of `measured`
STOPPED = {
    "time": "the time is up; --continue --budget +1h goes on from there",
    "settled": "the last rounds left the selection as it was; --continue --budget +5% goes on all the same",
}


@dataclass(frozen=True, repr=False)
class Expected(Facts):
    """What a run is expected to take.

    run: of the pairs that it scores; whole: of all pairs; rounds: at most, of a run within a budget, else None;
    neighbours_alone: are these pairs so few that none are held out? records: that were read, none where some of them
    stand for all.
    """

    run: Forecast
    whole: Forecast
    rounds: int | None
    engine: Engine
    neighbours_alone: bool
    records: tuple[RecordSet, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        result = {**asdict(self.run), "weights": self.engine.weights, "batch": self.engine.settings.batch}
        result["pairs_all"] = self.whole.pairs
        if self.rounds is not None:
            result |= {"share": self.run.pairs / self.whole.pairs, "rounds": self.rounds}
            result["neighbours_alone"] = self.neighbours_alone
        if self.records:
            result["read"] = [account(records) for records in self.records]
        return result

    def lines(self) -> list[tuple[str, str]]:
        """The same for people, as rows of name and text."""
        run, planned = self.run, ""
        if self.rounds is not None:
            rounds = counted(self.rounds, "round")
            planned = f" of {self.whole.pairs:,} ({run.pairs / self.whole.pairs:.2%}), in at most {rounds}"
        elif run.pairs < self.whole.pairs:
            planned = f" of {self.whole.pairs:,}; the others are scored already"
        how = f"weights {self.engine.weights}, batch {self.engine.settings.batch}"
        judged = f"none of these pairs are held out to say how good they are: {NEAR_ALONE}"
        return [
            *account_lines(self.records),
            ("pairs", f"{run.pairs:,}{planned}"),
            *([("estimates", judged)] if self.neighbours_alone else []),
            ("tokens", _saved(run.tokens, run.plain_tokens, "to evaluate")),
            ("time", f"{duration(run.seconds)} at {run.tokens_per_second:,.0f} tokens/s ({how})"),
            ("disk", f"{run.disk_bytes / 1e6:,.1f} MB"),
            ("memory", f"{run.memory_bytes / 1e6:,.0f} MB"),
        ]


@dataclass(frozen=True, repr=False)
class Scores(Facts):
    """What a run did and what its cache holds now.

    cache: opened for reading. work: what this run did of it. stopped: see `rounds.Rounds`; None for all pairs.
    """

    cache: Cache | SparseCache
    work: Work
    inputs: Inputs
    engine: Engine
    model: str
    stopped: str | None
    seed: int

    @property
    def utility(self) -> Utilities:
        """Mean utility, and the share of harmful pairs."""
        return utilities(self.cache)

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        cache, work, utility = self.cache, self.work, self.utility
        sets = self.inputs.sets
        result = {
            "cache": str(cache.path),
            "examples": cache.shape[0],
            "targets": cache.shape[1],
            "layouts": [records.layouts for records in sets],
            "read": [account(records) for records in sets],
            "duplicates": [records.duplicates for records in sets],
            "left_out": [
                {"line": record.line, "id": record.id, "reason": record.reason}
                for records in sets
                for record in records.rejected
            ],
            "model": self.model,
            "template": cache.manifest["template"]["name"],
            "weights": self.engine.weights,
            "weights_deviation": self.engine.deviation,
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
        if isinstance(cache, SparseCache):
            targets = None if self.inputs.targets is None else self.inputs.targets.records
            partial = Partial(cache, self.inputs.examples.records, targets, seed=self.seed)
            counts = np.bincount(partial.scored.source, minlength=len(SOURCES)).tolist()
            sources = dict(zip(SOURCES, counts, strict=True))
            result |= {**measured(partial), "sources": sources, "stopped": self.stopped}
        return result

    def lines(self) -> list[tuple[str, str]]:
        """The same for people, as rows of name and text."""
        return summary_lines(self.as_dict(), account_lines(self.inputs.sets))


def summary_lines(summary: dict[str, Any], read: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A run's figures as rows of name and text; `read`: what there is to say of its records."""
    layouts = " and ".join(
        dict.fromkeys(", ".join(f"{name} ({count:,})" for name, count in each.items()) for each in summary["layouts"])
    )
    examples = counted(summary["examples"], "example")
    lines = [
        ("records", f"{examples} by {counted(summary['targets'], 'target')}; layout {layouts}"),
        ("model", f"{summary['model']}, weights {summary['weights']}; {summary['template']}"),
    ]
    lines += read
    if summary["pairs_scored"]:
        speed = f"{summary['pairs_per_second']:,.1f} pairs/s, {summary['tokens_per_second']:,.0f} tokens/s"
        lines += [
            ("scored", f"{counted(summary['pairs_scored'], 'pair')} in {duration(summary['seconds'])}: {speed}"),
            ("tokens", _saved(summary["tokens_evaluated"], summary["tokens_one_by_one"], "evaluated")),
            ("time in", f"llama.cpp {summary['decode_share']:.1%}, log-softmax {summary['reduce_share']:.1%}"),
        ]
    else:
        rest = "; --budget 100% scores the others" if summary.get("share_measured", 1) < 1 else ""
        lines.append(("scored", f"nothing to do, every pair that was asked for was there{rest}"))
    part = "share_measured" in summary
    if part:
        lines += measured_lines(summary)
    if summary.get("stopped") in STOPPED:
        lines.append(("stopped", STOPPED[summary["stopped"]]))
    pairs = "measured pairs" if part else "pairs"
    return [
        *lines,
        ("utility", utility_in_words(summary["mean_utility"], summary["harmful_share"], pairs)),
        ("cache", summary["cache"]),
    ]


def _saved(tokens: int, one_by_one: int, what: str) -> str:
    if not one_by_one:
        return f"{tokens:,} {what}"
    saved = 1 - tokens / one_by_one
    return f"{tokens:,} {what}, {abs(saved):.0%} {'fewer' if saved >= 0 else 'more'} than one by one"

"""One benchmark of one model on one machine with one data set; everything is measured in the same run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..amount import duration
from ..data.reading import read_records
from ..display import Facts, Lines
from ..model.apart import open_checked
from ..model.high_level import high_level_loop
from ..model.llama import Model, Settings
from ..model.places import locate
from ..prompt.chosen import chat_template
from .job import choose_engine, expected_tokens, prepare
from .pairs import cells_needed, common_start, row_scorer
from .throughput import raw_rate, some_pairs


@dataclass(frozen=True, repr=False)
class Benchmark(Facts):
    """What `measure` found: `figures` has what `delift bench --json` prints."""

    figures: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        return self.figures

    def lines(self) -> Lines:
        """The same for people."""
        result = self.figures
        ours, shares = result["scoring"], result["scoring"]["shares"]
        lines = [
            ("model", f"{result['model']}, weights {result['weights']}, batch {result['batch']}"),
            ("raw", f"{result['raw_tokens_per_second']:,.0f} tokens/s of prompt processing"),
            (
                "scoring",
                f"{ours['pairs_per_second']:,.1f} pairs/s, {ours['tokens_per_second']:,.0f} tokens/s, "
                f"{ours['share_of_raw']:.2f} of raw",
            ),
            (
                "time in",
                f"llama.cpp {shares['decode']:.1%}, log-softmax {shares['reduction']:.1%}, other {shares['other']:.1%}",
            ),
        ]
        if "plain_loop" in result:
            loop = result["plain_loop"]
            lines.append(
                (
                    "plain loop",
                    f"{loop['pairs_per_second']:.2f} pairs/s as shipped, we are {loop['ratio']:.0f} times faster",
                )
            )
        forecast = result["forecast"]
        return [
            *lines,
            (
                "tokens",
                f"{forecast['tokens']:,} for all {forecast['pairs']:,} pairs; one by one {forecast['plain_tokens']:,}",
            ),
            ("all pairs", duration(forecast["seconds"])),
        ]


def measure(
    data: str,
    *,
    model: str | None,
    weights: str,
    threads: int | None,
    batch: int | None,
    seconds: float,
    plain_pairs: int,
    say: Callable[[str], None],
) -> Benchmark:
    """Raw rate, our rate and its parts, the plain loop's rate, and what all pairs of `data` would take."""
    records = read_records(data)
    file = open_checked(locate(model, say))
    inputs = prepare(
        records,
        None,
        chat_template(file),
        context=file.context,
        truncate=False,
        skip_invalid=False,
    )
    identity = file.identity()
    engine = choose_engine(
        file,
        identity["sha256"],
        weights,
        Settings(threads=threads),
        batch=batch,
        inputs=inputs,
        cache=None,
        say=say,
    )
    examples, targets = inputs.encoded_examples, inputs.target_tokens
    raw = raw_rate(engine.file, replace(engine.settings, batch=min(engine.settings.batch, 512)))
    say(f"raw: {raw:,.0f} tokens/s")
    with Model(
        engine.file, engine.settings, cells=cells_needed(examples.prefixes, targets, engine.settings.batch)
    ) as opened:
        scorer = row_scorer(opened, threading.Event())
        scorer.keep_head(common_start(examples.prefixes))
        scorer.row(examples.prefixes[0], targets.behind(examples.systems[0], targets.all, scorer.lay_out)[0])
        before = scorer.tokens, scorer.decode_seconds, scorer.reduce_seconds
        pairs, started = 0, time.perf_counter()
        for prefix, system in zip(examples.prefixes, examples.systems, strict=True):
            scorer.row(prefix, targets.behind(system, targets.all, scorer.lay_out)[0])
            pairs += targets.count
            if time.perf_counter() - started > seconds:
                break
        elapsed = time.perf_counter() - started
    tokens, decode, reduce = (
        after - first
        for after, first in zip((scorer.tokens, scorer.decode_seconds, scorer.reduce_seconds), before, strict=True)
    )
    all_tokens, plain_tokens = expected_tokens(inputs, targets, scorer.lay_out)
    result: dict[str, Any] = {
        "data": data,
        "model": f"{identity['name']} {identity['quantization']}",
        "weights": engine.weights,
        "batch": engine.settings.batch,
        "threads": engine.settings.resolved_threads(),
        "raw_tokens_per_second": raw,
        "scoring": {
            "pairs": pairs,
            "pairs_per_second": pairs / elapsed,
            "tokens_per_second": tokens / elapsed,
            "share_of_raw": tokens / elapsed / raw,
            "shares": {
                "decode": decode / elapsed,
                "reduction": reduce / elapsed,
                "other": 1 - (decode + reduce) / elapsed,
            },
        },
        "forecast": {
            "pairs": inputs.shape[0] * inputs.shape[1],
            "tokens": all_tokens,
            "plain_tokens": plain_tokens,
            "seconds": all_tokens / (tokens / elapsed),
        },
    }
    if plain_pairs:
        say("the plain loop …")
        loop = high_level_loop(file, engine.settings, some_pairs(examples, inputs.encoded_targets, plain_pairs))
        result["plain_loop"] = {
            "pairs": plain_pairs,
            "pairs_per_second": loop.pairs_per_second,
            "ratio": pairs / elapsed / loop.pairs_per_second,
        }
    return Benchmark(result)

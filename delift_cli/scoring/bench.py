"""One benchmark of one model on one machine with one data set; everything is measured in the same run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..data.reading import read_records
from ..model.gguf import ModelFile, locate
from ..model.high_level import high_level_loop
from ..model.llama import Model, Settings
from ..prompt.builtin import load_template
from .job import choose_engine, expected_tokens, prepare
from .pairs import RowScorer, cells_needed, common_start
from .throughput import raw_rate, some_pairs


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
) -> dict[str, Any]:
    """Raw rate, our rate and its parts, the plain loop's rate, and what all pairs of `data` would take."""
    records = read_records(data)
    file = ModelFile(locate(model))
    inputs = prepare(
        records,
        None,
        load_template(None, file.template, file.vocabulary),
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
        scorer = RowScorer(opened, threading.Event())
        scorer.keep_head(common_start(examples.prefixes))
        scorer.row(examples.prefixes[0], targets.behind(examples.systems[0], targets.all)[0])
        before = scorer.tokens, scorer.decode_seconds, scorer.reduce_seconds
        pairs, started = 0, time.perf_counter()
        for prefix, system in zip(examples.prefixes, examples.systems, strict=True):
            scorer.row(prefix, targets.behind(system, targets.all)[0])
            pairs += targets.count
            if time.perf_counter() - started > seconds:
                break
        elapsed = time.perf_counter() - started
    tokens, decode, reduce = (
        after - first
        for after, first in zip((scorer.tokens, scorer.decode_seconds, scorer.reduce_seconds), before, strict=True)
    )
    all_tokens, plain_tokens = expected_tokens(inputs, targets)
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
    return result

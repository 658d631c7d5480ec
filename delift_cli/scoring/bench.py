"""One benchmark of one model on one machine with one data set; everything is measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..amount import duration
from ..data.reading import read_records
from ..display import Facts, Lines
from ..model.apart import open_checked
from ..model.high_level import high_level_loop
from ..model.llama import Settings
from ..model.places import locate
from ..prompt.chosen import chat_template
from .job import Engine, Inputs, at_work, choose_engine, expected_tokens, prepare
from .pairs import Scoring, Unit, Work, lay_out_of
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
    raw = raw_rate(engine.file, replace(engine.settings, batch=min(engine.settings.batch, 512)))
    say(f"raw: {raw:,.0f} tokens/s")
    work, contexts = _scored(engine, inputs, seconds)
    pairs_per_second, tokens_per_second = work.pairs / work.seconds, work.tokens / work.seconds
    decode, reduce = (spent / work.seconds / contexts for spent in (work.decode_seconds, work.reduce_seconds))
    all_tokens, plain_tokens = expected_tokens(inputs, lay_out_of(engine.settings))
    result: dict[str, Any] = {
        "data": data,
        "model": f"{identity['name']} {identity['quantization']}",
        "weights": engine.weights,
        "batch": engine.settings.batch,
        "threads": engine.settings.resolved_threads(),
        "raw_tokens_per_second": raw,
        "scoring": {
            "pairs": work.pairs,
            "pairs_per_second": pairs_per_second,
            "tokens_per_second": tokens_per_second,
            "share_of_raw": tokens_per_second / raw,
            "shares": {"decode": decode, "reduction": reduce, "other": 1 - decode - reduce},
        },
        "forecast": {
            "pairs": inputs.shape[0] * inputs.shape[1],
            "tokens": all_tokens,
            "plain_tokens": plain_tokens,
            "seconds": all_tokens / tokens_per_second,
        },
    }
    if plain_pairs:
        say("the plain loop …")
        chosen = some_pairs(inputs.encoded_examples, inputs.encoded_targets, plain_pairs)
        loop = high_level_loop(file, engine.settings, chosen)
        result["plain_loop"] = {
            "pairs": plain_pairs,
            "pairs_per_second": loop.pairs_per_second,
            "ratio": pairs_per_second / loop.pairs_per_second,
        }
    return Benchmark(result)


def _scored(engine: Engine, inputs: Inputs, seconds: float) -> tuple[Work, int]:
    """What scoring does in so many seconds, once it has warmed up with one example; and in how many contexts."""
    targets = inputs.target_tokens
    with at_work(engine, inputs, targets) as models:
        for count in (1, inputs.shape[0]):
            units = (Unit(example, targets.all) for example in range(count))
            scoring = Scoring(models, inputs.encoded_examples, targets)
            for work in scoring.units(units, lambda unit, measured: None):
                if work.seconds > seconds:
                    break
        return work, len(models)

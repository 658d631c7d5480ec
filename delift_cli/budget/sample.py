"""Forecasts for very many records from some of them: what a run will take shows in a few thousand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.record import RecordSet
from ..scoring.job import Forecast

FORECAST_FROM = 5_000  # records


def sampled(
    examples: RecordSet, targets: RecordSet | None
) -> tuple[RecordSet, RecordSet | None, tuple[int, int] | None]:
    """FORECAST_FROM records at most of each side, drawn at random, and the shape of the block that they are a sample
    of; None where they are all of it."""
    some, some_targets = _draw(examples), None if targets is None else _draw(targets)
    if some is examples and some_targets is targets:
        return examples, targets, None
    return some, some_targets, (len(examples.records), len((targets or examples).records))


def scaled(forecast: Forecast, factor: float) -> Forecast:
    """The forecast for so many times as many pairs, in as much memory."""
    return replace(
        forecast,
        pairs=round(forecast.pairs * factor),
        tokens=round(forecast.tokens * factor),
        plain_tokens=round(forecast.plain_tokens * factor),
        seconds=forecast.seconds * factor,
        disk_bytes=round(forecast.disk_bytes * factor),
    )


def _draw(records: RecordSet) -> RecordSet:
    if len(records.records) <= FORECAST_FROM:
        return records
    chosen = np.sort(np.random.default_rng(0).choice(len(records.records), FORECAST_FROM, replace=False))
    return replace(records, records=[records.records[at] for at in chosen.tolist()])

"""Several contexts scoring together give the bytes that one gives, and stop together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import pairs

from delift_cli.cache.dense import Cache
from delift_cli.data.reading import parse_records
from delift_cli.errors import RunError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings, open_models
from delift_cli.prompt.builtin import load_template
from delift_cli.scoring import job
from delift_cli.scoring.pairs import Scoring, TargetTokens, cells_needed, score_rows

SETTINGS = Settings(threads=1, batch=64)


@pytest.fixture
def file(tiny_model: Callable[..., Path]) -> ModelFile:
    return ModelFile(tiny_model())


@pytest.fixture
def inputs(file: ModelFile) -> job.Inputs:
    template = load_template(None, file.template, file.vocabulary)
    records = parse_records(pairs(*range(10)), "pool")
    return job.prepare(records, None, template, context=512, truncate=False, skip_invalid=False)


def scored(path: Path, file: ModelFile, inputs: job.Inputs, contexts: int) -> Cache:
    targets = TargetTokens(inputs.encoded_targets)
    cells = cells_needed(inputs.encoded_examples.prefixes, targets, SETTINGS.batch)
    models = [Model(file, SETTINGS, cells=cells)]
    models += [models[0].twin() for _ in range(contexts - 1)]
    template = load_template(None, file.template, file.vocabulary)
    engine = job.Engine(file, "as-is", None, SETTINGS)
    description = job.describe(
        file, file.identity(), template, engine, {"prompt": None, "response": None}, truncate_to=None
    )
    with job.open_cache(path, description, inputs) as cache:
        works = list(score_rows(Scoring(models, inputs.encoded_examples, targets), targets, cache))
    for model in models:
        model.close()
    assert works[-1].rows == 10
    assert works[-1].pairs == 100
    return Cache(path)


def test_two_contexts_write_what_one_writes(tmp_path: Path, file: ModelFile, inputs: job.Inputs) -> None:
    one = scored(tmp_path / "one", file, inputs, 1)
    two = scored(tmp_path / "two", file, inputs, 2)
    three = scored(tmp_path / "three", file, inputs, 3)
    for other in (two, three):
        assert other.complete
        for name in ("distance", "logprob", "base_distance", "base_logprob", "rows"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_context_that_fails_stops_the_others(
    tmp_path: Path, file: ModelFile, inputs: job.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls = Model.decode, 0

    def failing(self: Model, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise RunError("the device is gone")
        return decode(self, *arguments)

    monkeypatch.setattr(Model, "decode", failing)
    with pytest.raises(RunError, match="the device is gone"):
        scored(tmp_path / "cache", file, inputs, 2)
    monkeypatch.setattr(Model, "decode", decode)
    before = Cache(tmp_path / "cache")
    assert not before.complete
    assert (before.rows["done"] == 10).any()


def test_a_closed_twin_leaves_the_weights(file: ModelFile) -> None:
    first = Model(file, SETTINGS, cells=256)
    second = first.twin()
    first.close()
    one = np.ones(3, np.int32)
    logits = second.decode(
        np.array([5, 6, 7], np.int32), np.arange(3, dtype=np.int32), 0 * one, one, np.array([False, False, True])
    )
    assert np.isfinite(logits).all()
    second.close()
    second.close()  # closing twice is harmless


def test_one_context_on_the_cpu(file: ModelFile) -> None:
    models = open_models(file, Settings(threads=1, gpu_layers=0), cells=256)
    assert len(models) == 1
    models[0].close()

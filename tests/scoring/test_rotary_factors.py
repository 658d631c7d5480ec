"""Models with two sets of rotary factors, as Phi has: which one a pair gets depends on no other pair, or is told."""

from __future__ import annotations

from pathlib import Path

import gguf_models as g
import numpy as np
import pytest
from one_by_one import Alone, Block, pool
from tiny_runs import QUICK, Result, delift, jsonl

from delift_cli.cache.dense import Cache
from delift_cli.model.llama import Settings
from delift_cli.scoring.job import engine_as_measured

SHORT = 1024  # what `Alone` has room for, so that llama.cpp takes the first set there
TEXTS = [("What is the capital of France?", "The capital of France is Paris."), ("Add 12 and 30", "42")]
LONG = "Read the following passage. "


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    factors = np.linspace(1.0, 8.0, 8).astype(np.float32)
    return g.write_model(
        tmp_path_factory.mktemp("phi") / "phi.gguf",
        n_ctx_train=8192,
        metadata={"llama.rope.scaling.type": "longrope", "llama.rope.scaling.original_context_length": SHORT},
        more={"rope_factors_short.weight": np.ones_like(factors), "rope_factors_long.weight": factors},
    )


def score(tmp_path: Path, model: Path, name: str, *long: str) -> Result:
    records = [*TEXTS, *((prompt, "yes") for prompt in long)]
    (tmp_path / "pool.jsonl").write_bytes(jsonl([{"prompt": p, "response": r} for p, r in records]))
    exact = ("--batch", 256, "--kv-type", "f32", "--flash-attn", "off")
    return delift("score", tmp_path / "pool.jsonl", "-m", model, *QUICK, *exact, "-o", tmp_path / name)


def test_the_first_set_where_every_pair_is_short(phi: Path, tmp_path: Path, threads: int) -> None:
    alone = Alone(phi, threads=threads, kv_type="f32", flash_attention="off")
    pairs, _ = alone.block(Block(phi, pool(TEXTS)))
    alone.close()
    for name, *long in (("a",), ("b", LONG * 30)):  # with the second the context has more room than the first set
        assert score(tmp_path, phi, name, *long).code == 0
        cache = Cache(tmp_path / name)
        assert "rotary_factors" not in cache.manifest["settings"]
        np.testing.assert_allclose(cache.distance[:2, :2], pairs["distance"], rtol=0, atol=1e-4)


def test_the_second_set_for_all_where_one_is_long(phi: Path, tmp_path: Path) -> None:
    assert score(tmp_path, phi, "short").code == 0
    result = score(tmp_path, phi, "long", LONG * 150)
    assert result.code == 0
    said = " ".join(result.err.split())
    assert "all are measured with the model's rotary factors for contexts of more than 1,024" in said
    short, long = Cache(tmp_path / "short"), Cache(tmp_path / "long")
    assert long.manifest["settings"]["rotary_factors"] == "long"
    assert np.abs(long.distance[:2, :2] - short.distance).max() > 0.01
    engine, _ = engine_as_measured(long, str(phi), Settings(threads=1))
    assert engine.settings.long_factors
    refused = score(tmp_path, phi, "short", LONG * 150)
    assert (refused.code, "settings.rotary_factors (there null, now long)" in refused.err) == (2, True)
    whole = long.distance[:2, :2].copy()
    assert score(tmp_path, phi, "long", LONG).code == 0  # the long one is gone, and the cache goes on as it was begun
    again = Cache(tmp_path / "long")
    assert again.manifest["settings"]["rotary_factors"] == "long"
    np.testing.assert_array_equal(again.distance[:2, :2], whole)

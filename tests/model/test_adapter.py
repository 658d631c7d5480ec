"""LoRA adapters: the same numbers as the model with the adapter merged into it, in every kind of context."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf_models as g
import numpy as np
import pytest
from tiny_runs import QUICK, delift, pairs

from delift_cli.errors import InputError
from delift_cli.model.adapter import read_adapters
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings

LORA = g.lora()
EXACT = Settings(threads=1, batch=32, kv_type="f32", flash_attention="off")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lora")
    return {
        "base": g.write_model(folder / "base.gguf"),
        "adapter": g.write_adapter(folder / "adapter.gguf", LORA),
        "merged": g.write_model(folder / "merged.gguf", delta=LORA.delta()),
        "half": g.write_model(folder / "half.gguf", delta=LORA.delta(0.5)),
        "twice": g.write_model(folder / "twice.gguf", delta=LORA.delta(2.0)),
    }


def states(model: Model, *, hidden: bool = False) -> np.ndarray:
    tokens = np.array([5, 6, 7, 8, 9], np.int32)
    one, places = np.ones(5, np.int32), np.arange(5, dtype=np.int32)
    if hidden:
        return model.hidden_states(tokens, places, 0 * one).copy()
    return model.decode(tokens, places, 0 * one, one, one.astype(np.bool_)).copy()


def said_by(path: Path, *adapters: str) -> list[np.ndarray]:
    """Logits of a context and of its twin, hidden states of one for embeddings."""
    file = ModelFile(path)
    settings = replace(EXACT, adapters=read_adapters(adapters, file))
    with Model(file, settings, cells=64) as model, model.twin() as twin:
        given = [states(model), states(twin)]
    with Model(file, settings, cells=64, embeddings=True) as model:
        return [*given, states(model, hidden=True)]


@pytest.mark.parametrize(
    ("same", "choices"), [("merged", ("",)), ("half", (":0.5",)), ("twice", ("", "")), ("base", (":0",))]
)
def test_as_the_merged_model(files: dict[str, Path], same: str, choices: tuple[str, ...]) -> None:
    given = said_by(files["base"], *(f"{files['adapter']}{choice}" for choice in choices))
    base = said_by(files["base"])
    for adapted, merged, plain in zip(given, said_by(files[same]), base, strict=True):
        np.testing.assert_allclose(adapted, merged, rtol=0, atol=2e-4)
        assert same == "base" or np.abs(adapted - plain).max() > 0.01


def test_what_is_no_adapter_of_this_model(files: dict[str, Path], tmp_path: Path) -> None:
    file = ModelFile(files["base"])
    other = g.write_adapter(tmp_path / "qwen.gguf", LORA, architecture="qwen2")
    vector = g.write_adapter(tmp_path / "vector.gguf", LORA, kind="control")
    wide = g.write_adapter(tmp_path / "wide.gguf", g.lora(n_embd=128))
    norms = g.write_adapter(tmp_path / "norms.gguf", LORA, more={"blk.0.attn_norm.weight": np.ones(64, np.float32)})
    empty = g.write_adapter(tmp_path / "empty.gguf", g.Lora({}, alpha=8.0))
    for choice, reason in (
        (tmp_path / "missing.gguf", "there is no file"),
        (files["merged"], "is a model, not a LoRA adapter"),
        (vector, "a file of the kind control"),
        (other, "for qwen2 models"),
        (empty, "changes no weights of the model"),
        (norms, r"also changes blk\.0\.attn_norm\.weight, which llama\.cpp would leave out"),
        (tmp_path, r"is a folder; llama\.cpp's convert_lora_to_gguf\.py"),
        (f"{files['adapter']}:much", "'much' is no scale"),
        (f"{files['adapter']}:nan", "not a finite number"),
    ):
        with pytest.raises(InputError, match=reason):
            read_adapters([str(choice)], file)
    with pytest.raises(InputError, match=r"wide\.gguf does not fit the model"):
        Model(file, replace(EXACT, adapters=read_adapters([str(wide)], file)), cells=64)
    with pytest.raises(InputError, match="is a LoRA adapter"):
        ModelFile(files["adapter"])


def of_embeddings(vocabulary: int, *, ranks: tuple[int, int] = (4, 4)) -> g.Lora:
    """A change of the token embeddings: llama.cpp has its factors the other way round."""
    a, b = (np.ones((rows, rank), np.float32) for rows, rank in zip((vocabulary, 64), ranks, strict=True))
    return g.Lora({"token_embd.weight": (a, b)}, alpha=8.0)


@pytest.mark.parametrize("split", [1, 3])
def test_embeddings_that_also_predict_are_not_changed(files: dict[str, Path], tmp_path: Path, split: int) -> None:
    tied = ModelFile(g.write_model(tmp_path / "tied.gguf", tied=True, split=split))
    apart = ModelFile(g.write_model(tmp_path / "apart.gguf", split=split))
    adapter = str(g.write_adapter(tmp_path / "embd.gguf", of_embeddings(apart.vocabulary.size)))
    with pytest.raises(InputError, match=r"changes the token embeddings, with which .* also predicts"):
        read_adapters([adapter], tied)
    assert len(read_adapters([adapter], apart)) == 1
    assert len(read_adapters([str(files["adapter"])], tied)) == 1


@pytest.mark.parametrize("weights", ["as-is", "auto"])
def test_an_adapter_that_ends_the_process(
    files: dict[str, Path], tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))
    pool, vocabulary = tmp_path / "pool.jsonl", ModelFile(files["base"]).vocabulary.size
    pool.write_bytes(pairs(0, 1, 2, 3))
    common = ("score", pool, "-m", files["base"], "--threads", 1, "--weights", weights, "-o", tmp_path / "a.delift")
    assert delift(*common, "--lora", files["adapter"]).code == 0  # the architecture is known to survive
    odd = g.write_adapter(tmp_path / "odd.gguf", of_embeddings(vocabulary, ranks=(4, 5)))
    message = delift(*common[:-1], tmp_path / "b.delift", "--lora", odd).refusal()
    assert f"with adapter {odd}" in message
    assert "llama.cpp ends the process (" in message
    assert not (tmp_path / "b.delift").exists()


def test_a_cache_names_its_adapters(files: dict[str, Path], tmp_path: Path) -> None:
    pool, scored, adapter = tmp_path / "pool.jsonl", tmp_path / "a.delift", tmp_path / "mine.gguf"
    pool.write_bytes(pairs(0, 1, 2, 3))
    adapter.write_bytes(files["adapter"].read_bytes())
    common = ("score", pool, "-m", files["base"], *QUICK, "--kv-type", "f32", "--flash-attn", "off")
    assert delift(*common, "-o", scored, "--lora", f"{adapter}:0.5").code == 0
    assert delift(*common, "-o", tmp_path / "merged.delift", "-m", files["half"]).code == 0
    assert delift(*common, "-o", tmp_path / "base.delift").code == 0
    (named,) = json.loads((scored / "manifest.json").read_bytes())["model"]["adapters"].values()
    assert (named["scale"], len(named["sha256"])) == (0.5, 64)
    adapted, merged, base = (np.load(tmp_path / f"{name}.delift" / "distance.npy") for name in ("a", "merged", "base"))
    assert np.abs(adapted - merged).max() < 2e-3
    assert np.abs(adapted - base).max() > 0.01
    assert delift(*common, "-o", scored, "--lora", f"{adapter}:0.5").code == 0  # goes on, nothing to do
    assert "model.adapters" in delift(*common, "-o", scored).refusal()
    assert "model.adapters" in delift(*common, "-o", scored, "--lora", adapter).refusal()
    both = ("select", tmp_path / "base.delift", "--existing", scored, "-k", 2)
    assert "adapters differ" in delift(*both).refusal()
    assert delift("select", scored, "-k", 2, "--method", "ifd", "-m", files["base"]).code == 0
    adapter.write_bytes(files["adapter"].read_bytes() + b" ")
    message = delift("select", scored, "-k", 2, "--method", "embedding", "-m", files["base"]).refusal()
    assert "not there any more" in message

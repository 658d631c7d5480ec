"""Targets as rows behind whole copies of a state, and every family of models against one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_architectures import write_architecture
from one_by_one import EXACT, TEXTS, Alone, Block, MemoryCache, pool
from tiny_runs import QUICK, delift, jsonl

from delift_cli.errors import InputError, RunError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings
from delift_cli.prompt.trie import Sequences
from delift_cli.scoring import job
from delift_cli.scoring.embeddings import embed_texts
from delift_cli.scoring.whole_states import FILLED_SHARE, LayOutRows, Rows

FAMILIES = {  # name: architecture, experts, whole states
    "full attention": ("qwen2", False, None),
    "sliding window": ("gemma3", False, None),
    "experts": ("olmoe", True, None),
    "latent attention": ("deepseek2", True, None),
    "hybrid, delta net": ("qwen3next", True, 16),
    "hybrid, mamba 2": ("granitehybrid", False, 16),
    "hybrid, in parallel": ("falcon-h1", False, 16),
    "hybrid, short convolutions": ("lfm2", False, 16),
    "recurrent, mamba": ("mamba", False, 16),
    "recurrent, rwkv": ("rwkv7", False, 16),
}
SYSTEMS = ("Be brief.", "", "Be brief.", "Count.", "Count.", "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny model of an architecture, written once."""
    folder = tmp_path_factory.mktemp("architectures")

    def write(architecture: str, *, experts: bool = False) -> Path:
        path = folder / f"{architecture}.gguf"
        return path if path.exists() else write_architecture(path, architecture, experts=experts)

    return write


# ---------------------------------------------------------------------- the layout alone


def some_sequences(rng: np.random.Generator, count: int, longest: int, shared: int) -> Sequences:
    head = rng.integers(0, 5, shared).astype(np.int32)
    pairs = []
    for _ in range(count):
        context = np.concatenate([head, rng.integers(0, 5, rng.integers(1, longest)).astype(np.int32)])
        pairs.append((context, rng.integers(0, 5, rng.integers(1, longest)).astype(np.int32)))
    masks = [rng.random(len(response)) < 0.7 for _, response in pairs]
    for mask in masks:
        mask[0] = mask[-1] = True
    return Sequences.join(pairs, masks)


def read_back(rows: Rows) -> list[tuple[list[tuple[int, ...]], list[int]]]:
    """For each sequence: what stands before each of its scored tokens, and these tokens."""
    found = []
    for start, stop in pairwise(rows.response_bounds.tolist()):
        edges = rows.response_edge[start:stop]
        contexts = []
        for source in rows.edge_source[edges].tolist():
            block = next(b for b in rows.blocks if b.start <= source < b.start + b.rows * b.length)
            row = block.start + (source - block.start) // block.length * block.length
            contexts.append((*rows.tokens[: rows.shared].tolist(), *rows.tokens[row : source + 1].tolist()))
        found.append((contexts, rows.edge_token[edges].tolist()))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_each_scored_token_is_read_behind_its_own_context(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sequences = some_sequences(rng, 40, longest=30, shared=seed)
    order = sequences.sorted_order()[: 40 - 3 * seed]
    rows = LayOutRows(states=1 + 5 * seed, batch=96)(sequences, order)
    for at, (contexts, tokens) in zip(order.tolist(), read_back(rows), strict=True):
        text = sequences.tokens[sequences.bounds[at] : sequences.bounds[at + 1]]
        places = np.flatnonzero(sequences.scored[sequences.bounds[at] : sequences.bounds[at + 1]])
        assert tokens == text[places].tolist()
        assert contexts == [tuple(text[:place].tolist()) for place in places.tolist()]
    assert (np.diff(rows.edge_source) > 0).all()


@pytest.mark.parametrize(("count", "longest"), [(1, 20), (7, 40), (200, 40), (200, 300)])
def test_blocks_keep_to_the_batch_the_states_and_the_filling(count: int, longest: int) -> None:
    sequences = some_sequences(np.random.default_rng(count), count, longest, shared=4)
    rows = LayOutRows(states=16, batch=128)(sequences, sequences.sorted_order())
    needed = rows.shared + int((np.diff(sequences.bounds) - 1 - rows.shared).sum())
    assert needed <= len(rows.tokens) <= (1 + FILLED_SHARE) * needed
    assert all(block.rows <= 16 and (block.rows * block.length <= 128 or block.rows == 1) for block in rows.blocks)
    assert sum(block.rows for block in rows.blocks) == count


def test_targets_of_one_length_fill_the_batches() -> None:
    texts = [(np.array([7, 8, at], np.int32), np.array([at, 9], np.int32)) for at in range(64)]
    rows = LayOutRows(states=16, batch=512)(Sequences.join(texts), np.arange(64))
    assert rows.shared == 2
    assert [block.rows for block in rows.blocks] == [16] * 4


# ---------------------------------------------------------------------- every family, as if evaluated alone


def as_alone(block: Block, cache: MemoryCache, threads: int) -> None:
    """Within twice the noise between two batch sizes of the model alone, which is far below what the context does."""
    (pairs, base), (other, other_base) = (measured(block, threads, batch) for batch in (1024, 24))
    noise = max(
        np.abs(pairs["logprob"] - other["logprob"]).max(), np.abs(base["logprob"] - other_base["logprob"]).max()
    )
    bar = max(2 * noise, 2e-4)  # with a cache of 32 bits there is hardly any between batch sizes
    assert np.abs(cache.logprob - pairs["logprob"]).max() <= bar
    assert np.abs(cache.base_logprob - base["logprob"]).max() <= bar
    assert np.abs(cache.distance - pairs["distance"]).max() <= bar
    assert pairs["logprob"].std(0).max() > 20 * bar


def measured(block: Block, threads: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    alone = Alone(block.file.path, threads=threads, batch=batch, **EXACT)
    found = alone.block(block)
    alone.close()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_as_if_evaluated_alone(tiny: Callable[..., Path], threads: int, family: str) -> None:
    architecture, experts, states = FAMILIES[family]
    block = Block(tiny(architecture, experts=experts), pool(TEXTS)).part([1, 9, 0], range(len(TEXTS)))
    assert block.file.keeps_states == (states is not None)
    as_alone(block, block.score(Settings(threads=threads, states=states, **EXACT)), threads)


@pytest.mark.parametrize("batch", [16, 64])
def test_targets_longer_than_a_batch(tiny: Callable[..., Path], threads: int, batch: int) -> None:
    block = Block(tiny("falcon-h1"), pool(TEXTS)).part([0, 9], range(len(TEXTS)))
    as_alone(block, block.score(Settings(threads=threads, batch=batch, states=4, **EXACT)), threads)


def test_system_messages(tiny: Callable[..., Path], threads: int) -> None:
    block = Block(
        tiny("granitehybrid"),
        pool([(*text, *([system] if system else [])) for text, system in zip(TEXTS, SYSTEMS, strict=False)]),
    )
    as_alone(block, block.score(Settings(threads=threads, states=16, **EXACT)), threads)


def test_a_model_with_a_cache_alone_may_be_run_this_way_too(tiny_model: Callable[..., Path], threads: int) -> None:
    block = Block(tiny_model(), pool(TEXTS)).part([2, 9], range(len(TEXTS)))
    as_alone(block, block.score(Settings(threads=threads, states=1, **EXACT)), threads)


def test_two_contexts_and_an_interruption_give_the_same_bytes(tiny: Callable[..., Path], threads: int) -> None:
    block = Block(tiny("falcon-h1"), pool(TEXTS[:7]))
    settings = Settings(threads=threads, states=16)
    whole = block.score(settings)
    cache = MemoryCache(*block.shape)
    models = block.models(settings, 2)
    for work in block.run(models, cache):
        if work.rows == 3:
            break
    for model in models:
        model.close()
    again = block.score(settings, cache, contexts=2)
    for one, other in zip(whole.arrays(), again.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------- the tool


def test_from_records_to_a_subset(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "pool.jsonl"
    file.write_bytes(jsonl([{"prompt": prompt, "response": response} for prompt, response in TEXTS[:4] + TEXTS[6:8]]))
    scored = delift("score", file, "-m", tiny("falcon-h1"), *QUICK, "-o", tmp_path / "a")
    assert scored.code == 0, scored.err
    run = job.read_manifest(tmp_path / "a")["run"]
    assert (run["batch"], run["states"]) == (512, 16)
    assert len(delift("select", tmp_path / "a", "-k", "3").out.splitlines()) == 3


def test_embeddings_are_those_of_each_text_alone(tiny: Callable[..., Path], threads: int) -> None:
    block = Block(tiny("falcon-h1"), pool(TEXTS))
    engine = job.Engine(block.file, "as-is", None, Settings(threads=threads, batch=64, states=2))
    together = embed_texts(engine, block.examples.prefixes, lambda done: None)
    alone = [embed_texts(engine, [prefix], lambda done: None) for prefix in block.examples.prefixes[:3]]
    np.testing.assert_allclose(together[:, :3], np.concatenate(alone, axis=1), atol=2e-3)


def test_a_pair_without_a_number_is_named(
    tiny: Callable[..., Path], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(tiny("falcon-h1"), pool(TEXTS[:4]))
    inputs = job.Inputs(pool(TEXTS[:4]), None, block.examples, block.targets)
    engine = job.Engine(block.file, "as-is", None, Settings(threads=threads, states=16))
    cache, decode = MemoryCache(*block.shape), Model.decode

    def overflow(model: Model, *batch: Any) -> np.ndarray:
        logits = decode(model, *batch)
        return logits if len(cache.written) < 2 else np.full_like(logits, np.nan)

    def run() -> None:
        with job.at_work(engine, inputs, inputs.target_tokens) as models:
            for _ in block.run(models, cache):
                pass

    monkeypatch.setattr(Model, "decode", overflow)
    with pytest.raises(RunError, match=r"probability of record \d \(line \d\) behind \d that is not a number"):
        run()
    assert np.isfinite(cache.distance[cache.written]).all()
    assert np.isnan(np.delete(cache.distance, cache.written, 0)).all()


@pytest.mark.parametrize("architecture", ["dream", "t5"])
def test_models_that_do_not_predict_the_next_token_are_refused(tiny: Callable[..., Path], architecture: str) -> None:
    with pytest.raises(InputError, match="does not predict each token from those before it"):
        ModelFile(tiny(architecture))

"""Contract 1: what batched scoring says of a pair is what evaluating that one sequence alone gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one import EXACT, TEXTS, Alone, Block, Floats, MemoryCache, pool

from delift_cli.errors import RunError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings, quantize
from delift_cli.prompt.template import ChatTemplate
from delift_cli.scoring.pairs import BASE_CHUNK, common_start


def differences(cache: MemoryCache, alone: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Largest |Δdistance| and |Δ mean log-probability|."""
    pairs, base = alone
    return (
        max(np.abs(cache.distance - pairs["distance"]).max(), np.abs(cache.base_distance - base["distance"]).max()),
        max(np.abs(cache.logprob - pairs["logprob"]).max(), np.abs(cache.base_logprob - base["logprob"]).max()),
    )


def compare(block: Block, cache: MemoryCache, *, threads: int, bar: float, **options: Any) -> None:
    reference = Alone(block.file.path, threads=threads, **options)
    alone = reference.block(block)
    reference.close()
    assert max(differences(cache, alone)) <= bar
    # the bar means something: examples and targets differ by far more
    assert alone[0]["distance"].std(0).max() > 50 * bar
    assert alone[0]["distance"].std(1).max() > 50 * bar


# ---------------------------------------------------------------------- tiny models, exact to 1e-4


@pytest.mark.parametrize("template", ["", "plain"])
@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
@pytest.mark.parametrize("batch", [16, 64, 512])
def test_pairs_are_as_if_evaluated_alone(
    tiny_model: Callable[..., Path], threads: int, tokenizer: str, batch: int, template: str
) -> None:
    block = Block(tiny_model(tokenizer), pool(TEXTS), template=template)
    cache = block.score(Settings(threads=threads, batch=batch, **EXACT))
    compare(block, cache, threads=threads, bar=1e-4, **EXACT)


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
def test_also_with_the_default_cache_and_flash_attention(
    tiny_model: Callable[..., Path], threads: int, tokenizer: str
) -> None:
    block = Block(tiny_model(tokenizer), pool(TEXTS))
    cache = block.score(Settings(threads=threads))
    compare(block, cache, threads=threads, bar=2e-3)


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
def test_system_messages_of_examples_and_targets(tiny_model: Callable[..., Path], threads: int, tokenizer: str) -> None:
    systems: list[tuple[str, ...]] = [(), ("You are kind.",), ("You are kind.",), ("Use your own words.",), ("",)]
    texts = [(*TEXTS[at], *systems[at % 5]) for at in range(8)]
    strangers = [(*TEXTS[at], *system) for at, system in enumerate([("A system message of no target.",), ()])]
    block = Block(tiny_model(tokenizer), pool([*texts, *strangers]), pool(texts))
    cache = block.score(Settings(threads=threads, batch=64, **EXACT))
    compare(block, cache, threads=threads, bar=1e-4, **EXACT)


def test_many_branches_in_one_batch(tiny_model: Callable[..., Path], threads: int) -> None:
    """More short targets than a context has sequences, and more than are measured together alone."""
    texts = [("Add", f"{at:03}") for at in range(BASE_CHUNK + 60)]
    block = Block(tiny_model(), pool(TEXTS[:2]), pool(texts))
    cache = block.score(Settings(threads=threads, batch=2048, **EXACT))
    columns = [0, 1, 100, 253, 254, 255, 256, 257, len(texts) - 1]
    reference = Alone(block.file.path, threads=threads, **EXACT)
    pairs, base = reference.block(block.part(range(2), columns))
    reference.close()
    np.testing.assert_allclose(cache.distance[:, columns], pairs["distance"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(cache.base_distance[columns], base["distance"], rtol=0, atol=1e-4)
    assert not np.isnan(np.concatenate([array.ravel() for array in cache.arrays()])).any()


def test_one_example_one_target(tiny_model: Callable[..., Path], threads: int) -> None:
    block = Block(tiny_model(), pool(TEXTS[:1]), pool(TEXTS[1:2]))
    cache = block.score(Settings(threads=threads, **EXACT))
    reference = Alone(block.file.path, threads=threads, **EXACT)
    assert max(differences(cache, reference.block(block))) <= 1e-4
    reference.close()


def test_an_example_before_itself_helps_most(tiny_model: Callable[..., Path], threads: int) -> None:
    """Rows are examples and columns are targets: the models that the tests generate repeat what they have seen."""
    block = Block(tiny_model(), pool(TEXTS[:3] + TEXTS[6:8]), pool([*TEXTS[6:8], *TEXTS[:3]]))
    cache = block.score(Settings(threads=threads, **EXACT))
    utility = cache.base_distance - cache.distance
    assert utility.argmax(0).tolist() == [3, 4, 0, 1, 2]


# ---------------------------------------------------------------------- what the number does not depend on


@pytest.fixture(scope="module")
def scored(tiny_model: Callable[..., Path], threads: int) -> tuple[Block, MemoryCache]:
    block = Block(tiny_model(), pool(TEXTS))
    return block, block.score(Settings(threads=threads, batch=64, **EXACT))


def assert_close(given: MemoryCache, expected: MemoryCache, rows: list[int], columns: list[int]) -> None:
    for one, other in zip(given.arrays(), expected.arrays(), strict=True):
        chosen = other[np.ix_(rows, columns)] if other.ndim == 2 else other[columns]
        np.testing.assert_allclose(one, chosen, rtol=0, atol=1e-4)


def test_order_and_company_do_not_matter(scored: tuple[Block, MemoryCache], threads: int) -> None:
    block, expected = scored
    rng = np.random.default_rng(6)
    n, m = block.shape
    for _ in range(4):
        rows = rng.permutation(n)[: rng.integers(1, n + 1)].tolist()
        columns = rng.permutation(m)[: rng.integers(1, m + 1)].tolist()
        given = block.part(rows, columns).score(Settings(threads=threads, batch=int(rng.choice([16, 64])), **EXACT))
        assert_close(given, expected, rows, columns)


def test_the_number_of_threads_does_not_matter(scored: tuple[Block, MemoryCache]) -> None:
    block, expected = scored
    every = list(range(len(TEXTS)))
    for threads in (1, 3):
        assert_close(block.score(Settings(threads=threads, batch=64, **EXACT)), expected, every, every)


# ---------------------------------------------------------------------- bit for bit


def assert_same_bits(given: MemoryCache, expected: MemoryCache) -> None:
    for one, other in zip(given.arrays(), expected.arrays(), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("batch", [16, 64, 512])
@pytest.mark.parametrize("options", [EXACT, {}], ids=["exact", "default"])
def test_an_interrupted_run_gives_the_same_bits(
    tiny_model: Callable[..., Path], threads: int, batch: int, options: dict[str, Any]
) -> None:
    settings = Settings(threads=threads, batch=batch, **options)
    block = Block(tiny_model("spm"), pool(TEXTS))
    expected = block.score(settings)
    for steps in (0, 1, 2, 5):
        cache = MemoryCache(*block.shape)
        models = block.models(settings)
        run = block.run(models, cache)
        assert len(list(islice(run, steps))) == steps
        run.close()  # type: ignore[attr-defined]
        models[0].close()
        assert np.isnan(cache.distance).any()
        assert_same_bits(block.score(settings, cache), expected)


def test_a_row_alone_gives_the_same_bits_as_after_others(tiny_model: Callable[..., Path], threads: int) -> None:
    settings = Settings(threads=threads, batch=32)
    block = Block(tiny_model(), pool(TEXTS))
    expected = block.score(settings)
    for missing in (0, 4, len(TEXTS) - 1):
        cache = block.score(settings)
        cache.distance[missing], cache.logprob[missing], cache.rows["done"][missing] = np.nan, np.nan, 0
        cache.written.clear()
        assert_same_bits(block.score(settings, cache), expected)
        assert cache.written == [missing]


def test_several_contexts_give_the_same_bits(tiny_model: Callable[..., Path], threads: int) -> None:
    settings = Settings(threads=threads, batch=32)
    block = Block(tiny_model(), pool(TEXTS))
    expected = block.score(settings)
    cache = block.score(settings, contexts=3)
    assert_same_bits(cache, expected)
    assert sorted(cache.written) == list(range(len(TEXTS)))


# ---------------------------------------------------------------------- only what is missing


def test_appended_targets_are_scored_and_nothing_else(scored: tuple[Block, MemoryCache], threads: int) -> None:
    block, expected = scored
    n, m = block.shape
    cache = MemoryCache(n, m)
    mark = np.float32(7.0)  # what is there must neither be read nor written again
    cache.rows["done"][:4] = 6
    cache.distance[:4, :6] = cache.logprob[:4, :6] = mark
    cache.base_distance[:6] = cache.base_logprob[:6] = mark
    cache.rows["done"][5] = m
    cache.distance[5] = cache.logprob[5] = mark
    block.score(Settings(threads=threads, batch=64, **EXACT), cache)
    old = np.zeros((n, m), np.bool_)
    old[:4, :6] = old[5] = True
    for given, wanted in ((cache.distance, expected.distance), (cache.logprob, expected.logprob)):
        assert (given[old] == mark).all()
        np.testing.assert_allclose(given[~old], wanted[~old], rtol=0, atol=1e-4)
    assert (cache.base_distance[:6] == mark).all()
    np.testing.assert_allclose(cache.base_distance[6:], expected.base_distance[6:], rtol=0, atol=1e-4)
    assert sorted(cache.written) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_work_is_counted(tiny_model: Callable[..., Path], threads: int) -> None:
    block = Block(tiny_model(), pool(TEXTS[:4]), pool(TEXTS[4:]))
    cache = MemoryCache(*block.shape)
    models = block.models(Settings(threads=threads))
    steps = list(block.run(models, cache))
    models[0].close()
    assert [step.rows for step in steps] == [0, 1, 2, 3, 4]
    assert [step.pairs for step in steps] == [0, 6, 12, 18, 24]
    prefixes, targets = block.examples.prefixes, block.targets.targets
    assert steps[-1].plain_tokens == sum(
        len(prefix) + len(target.after) + len(target.response) - 1 for prefix in prefixes for target in targets
    )
    alone = [np.concatenate([target.alone, target.response]).tolist() for target in targets]
    unique = {tuple(tokens[:at]) for tokens in alone for at in range(1, len(tokens))}
    assert steps[0].tokens == len(unique)
    head = len(common_start(prefixes))
    behind = {
        tuple(tokens[:at])
        for target in targets
        for tokens in [np.concatenate([target.after, target.response]).tolist()]
        for at in range(1, len(tokens))
    }
    in_rows = sum(len(prefix) - head + len(behind) for prefix in prefixes)
    assert steps[-1].tokens == len(unique) + head + in_rows
    assert 0 < steps[-1].decode_seconds <= steps[-1].seconds


def test_a_model_that_gives_no_number(
    tiny_model: Callable[..., Path], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(tiny_model(), pool(TEXTS[:2]))

    def overflow(model: Model, tokens: Any, positions: Any, first: Any, sequences: Any, outputs: Any) -> Floats:
        return np.full((int(outputs.sum()), model.vocabulary_size), np.nan, np.float32)

    monkeypatch.setattr(Model, "decode", overflow)
    cache = MemoryCache(*block.shape)
    with pytest.raises(RunError, match="not a number"):
        block.score(Settings(threads=threads), cache)
    assert np.isnan(cache.distance).all()
    assert cache.written == []


def test_common_start() -> None:
    def start(*prefixes: list[int]) -> list[int]:
        return common_start([np.array(prefix, np.int32) for prefix in prefixes]).tolist()

    assert start() == []
    assert start([1, 2, 3]) == [1, 2]
    assert start([1, 2, 3], [1, 2, 4, 5]) == [1, 2]
    assert start([1, 2, 3], [1, 2, 3]) == [1, 2]
    assert start([1, 2, 3, 4], [1, 2]) == [1]
    assert start([1, 2], [3, 4]) == []
    assert start([1], [1, 2]) == []


# ---------------------------------------------------------------------- the real model


REAL = [
    ("What enables most people to transport themselves?\n\n- helicopter\n- own cars\n- speak words\n", "own cars"),
    (
        "If you did well on the test, you might get an A as a what?\n\n- see work\n- practice\n- school grade\n",
        "school grade",
    ),
    ("Translate to French: The house is small.", "La maison est petite."),
    ("A box holds 12 eggs. How many eggs are in 3 boxes?", "3 * 12 = 36. The answer is 36."),
    ("Is this review positive or negative? The plot was thin and the jokes fell flat.", "negative"),
    ("Name the largest planet.", "Jupiter is the largest planet of our solar system."),
]


def test_the_real_model_in_f32(smollm2: Path, tmp_path: Path, threads: int) -> None:
    path = tmp_path / "smollm2-f32.gguf"
    quantize(smollm2, path, "f32", threads=threads)
    block = Block(path, pool(REAL))
    cache = block.score(Settings(threads=threads, **EXACT))
    compare(block, cache, threads=threads, bar=1e-3, **EXACT)


def test_template_and_vocabulary_of_the_real_model(smollm2: Path) -> None:
    """The first record against the very words of SmolLM2's format."""
    file = ModelFile(smollm2)
    assert file.template is not None
    chat = ChatTemplate(file.template, file.vocabulary)
    (record,) = pool(REAL[:1]).records
    prompt, response = REAL[0]
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    asked = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"

    def tokens(text: str) -> list[int]:
        return file.vocabulary.tokenize(text, special=True)

    target = chat.target(record)
    assert target.alone.tolist() == tokens(system + asked)
    assert target.after.tolist() == tokens("<|im_end|>\n" + asked)
    assert target.response.tolist() == tokens(response + "<|im_end|>")
    assert chat.example(record).tolist() == tokens(system + asked) + tokens(response)

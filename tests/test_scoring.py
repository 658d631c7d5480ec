"""Contract 1: what batched scoring says of a pair is what evaluating that one sequence alone gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
import pytest

from delift_cli.encoding import EncodedExamples, EncodedTargets, encode_examples, encode_targets
from delift_cli.errors import RunError
from delift_cli.model import FLASH_ATTENTION, KV_TYPES, Model, ModelFile, Settings, quantize
from delift_cli.records import Message, Record, RecordSet
from delift_cli.scoring import BASE_CHUNK, TargetTokens, Work, cells_needed, common_start, score
from delift_cli.template import ChatTemplate, load_template

Floats = npt.NDArray[np.float32]
PAIR = np.dtype([("distance", "f8"), ("logprob", "f8")])
EXACT = {"kv_type": "f32", "flash_attention": "off"}  # with flash attention llama.cpp rounds the cache to f16

TEXTS = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is the capital of France? Use one word.", "Paris"),
    ("How many apples are there in the basket?", "There are three apples in the basket."),
    ("How many apples are there?", "There are three."),
    ("How many apples are there?", "There are three."),  # the same again
    ("How many apples are there?", "There are three apples."),  # another answer to the same
    ("Add 12 and 30", "42"),
    ("Is this review positive or negative? The film was good, and the actors were very good.", "positive"),
    ("é🦙", "ñ\n\n日本"),
    ("Who wrote the book that you read last week?", "She wrote a long story about a small town by the sea. " * 3),
]


def pool(texts: Iterable[tuple[str, ...]]) -> RecordSet:
    """Records of (prompt, response) or (prompt, response, system message)."""
    records = []
    for at, (prompt, response, *system) in enumerate(texts):
        turns = (*(Message("system", text) for text in system), Message("user", prompt))
        records.append(Record(str(at), turns, response, b"", at + 1))
    return RecordSet(records, source="test", form="jsonl", layouts={}, rejected=[], duplicates=0)


class MemoryCache:
    """What `score` asks of a cache."""

    def __init__(self, examples: int, targets: int) -> None:
        self.distance = np.full((examples, targets), np.nan, np.float32)
        self.logprob = self.distance.copy()
        self.base_distance = np.full(targets, np.nan, np.float32)
        self.base_logprob = self.base_distance.copy()
        self.rows = np.zeros(examples, [("done", "i4")])
        self.written: list[int] = []

    def write_base(self, first: int, distance: Floats, logprob: Floats) -> None:
        self.base_distance[first : first + len(distance)] = distance
        self.base_logprob[first : first + len(logprob)] = logprob

    def write_row(self, example: int, distance: Floats, logprob: Floats) -> None:
        done = int(self.rows["done"][example])
        self.distance[example, done:], self.logprob[example, done:] = distance, logprob
        self.rows["done"][example] = self.distance.shape[1]
        self.written.append(example)

    def sync(self) -> None: ...

    def arrays(self) -> list[Floats]:
        return [self.distance, self.logprob, self.base_distance, self.base_logprob]


class Block:
    """Examples × targets on a model, ready to be scored in any way."""

    def __init__(self, path: Path, examples: RecordSet, targets: RecordSet | None = None, template: str = "") -> None:
        self.file = ModelFile(path)
        chat = load_template(template or None, self.file.template, self.file.vocabulary)
        self.examples: EncodedExamples = encode_examples(examples, chat, limit=None)
        self.targets: EncodedTargets = encode_targets(targets or examples, chat, limit=None)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.examples.prefixes), len(self.targets.targets)

    def part(self, examples: Iterable[int], targets: Iterable[int]) -> Block:
        block = Block.__new__(Block)
        rows, columns = list(examples), list(targets)
        block.file = self.file
        block.examples = EncodedExamples(
            [self.examples.prefixes[at] for at in rows], [self.examples.systems[at] for at in rows]
        )
        block.targets = EncodedTargets(
            [self.targets.targets[at] for at in columns], [self.targets.systems[at] for at in columns]
        )
        return block

    def models(self, settings: Settings, count: int = 1) -> list[Model]:
        cells = cells_needed(self.examples.prefixes, TargetTokens(self.targets), settings.batch)
        models = [Model(self.file, settings, cells=cells)]
        return models + [models[0].twin() for _ in range(count - 1)]

    def score(self, settings: Settings, cache: MemoryCache | None = None, *, contexts: int = 1) -> MemoryCache:
        """Scored to the end."""
        cache = cache or MemoryCache(*self.shape)
        models = self.models(settings, contexts)
        for _ in self.run(models, cache):
            pass
        for model in models:
            model.close()
        return cache

    def run(self, models: list[Model], cache: MemoryCache) -> Iterator[Work]:
        return score(models, self.examples, TargetTokens(self.targets), cache)  # type: ignore[arg-type]


class Alone:
    """One sequence at a time through llama.cpp's low-level interface, and NumPy in float64."""

    def __init__(self, path: Path, *, threads: int, kv_type: str = "f16", flash_attention: str = "auto") -> None:
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 1024
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = parameters.type_v = KV_TYPES[kv_type]
        parameters.flash_attn_type = FLASH_ATTENTION[flash_attention]
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._batch = llama_cpp.llama_batch_init(1024, 0, 1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def log_probabilities(self, tokens: list[int], response: int) -> np.ndarray:
        """ln p of the last `response` tokens."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, at, 1, 0
            batch.logits[at] = True
        assert llama_cpp.llama_decode(self._context, batch) == 0
        given = []
        for at in range(len(tokens) - response, len(tokens)):
            row = llama_cpp.llama_get_logits_ith(self._context, at - 1)
            logits = np.ctypeslib.as_array(row, (self._n_vocab,)).astype(np.float64)
            top = logits.max()
            given.append(logits[tokens[at]] - top - np.log(np.exp(logits - top).sum()))
        return np.array(given)

    def measure(self, *parts: npt.NDArray[np.int32]) -> tuple[float, float]:
        """Distance and mean log-probability of the last part behind the others."""
        given = self.log_probabilities(np.concatenate(parts).tolist(), len(parts[-1]))
        return float(np.linalg.norm(1 - np.exp(given)) / np.sqrt(len(given))), float(given.mean())

    def block(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """All pairs [example, target] and all targets without an example [target], as PAIR."""
        targets = list(zip(block.targets.targets, block.targets.systems, strict=True))
        base = np.array([self.measure(target.alone, target.response) for target, _ in targets], PAIR)
        pairs = np.empty(block.shape, PAIR)
        for row, (prefix, shown) in enumerate(zip(block.examples.prefixes, block.examples.systems, strict=True)):
            for column, (target, own) in enumerate(targets):
                behind = target.after if own is None or own == shown else target.after_system
                pairs[row, column] = self.measure(prefix, behind, target.response)
        return pairs, base


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

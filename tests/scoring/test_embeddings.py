"""Embeddings: against llama.cpp's own mean pooling, what they do not depend on, and what a selection makes of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import llama_cpp
import numpy as np
import numpy.typing as npt
import pytest
from tiny_runs import delift, jsonl, model, pair, score

from delift_cli.cache import sidecar
from delift_cli.cache.sparse import open_cache
from delift_cli.data.reading import read_records
from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import FLASH_ATTENTION, KV_TYPES, Model, Settings
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.template import ChatTemplate
from delift_cli.scoring import embeddings
from delift_cli.scoring.embeddings import LAST, MEAN, embed
from delift_cli.scoring.job import Engine, engine_as_measured
from delift_cli.selection.blocks import KernelOptions, kernels, objective_over
from delift_cli.selection.embedded import embedded_blocks
from delift_cli.submodular.sweeps import similarities

EXACT: dict[str, Any] = {"kv_type": "f32", "flash_attention": "off"}
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(20, 250, length, np.int32) for length in (1, 7, 40, 2, 100, 16, 3, 64, 5, 33)]


def embedded(
    path: Path,
    texts: list[npt.NDArray[np.int32]],
    *,
    threads: int,
    batch: int = 512,
    pooling: int = MEAN,
    **options: Any,
) -> npt.NDArray[np.float32]:
    settings = Settings(threads=threads, batch=batch, **(options or EXACT))
    with Model(ModelFile(path), settings, cells=max(map(len, texts)) + batch, embeddings=True) as opened:
        return embed(opened, texts)[pooling]


def pooled_by_llama(
    path: Path,
    texts: list[npt.NDArray[np.int32]],
    *,
    threads: int,
    kv_type: str = "f32",
    flash_attention: str = "off",
    pooling: int = llama_cpp.LLAMA_POOLING_TYPE_MEAN,
) -> npt.NDArray[np.float64]:
    """llama.cpp's own pooling of each text, evaluated alone in one batch, scaled to length 1."""
    loaded = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.type_k = parameters.type_v = KV_TYPES[kv_type]
    parameters.flash_attn_type = FLASH_ATTENTION[flash_attention]
    parameters.embeddings, parameters.pooling_type = True, pooling
    context = llama_cpp.llama_init_from_model(loaded, parameters)
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    rows = []
    for text in texts:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = len(text)
        for at, token in enumerate(text.tolist()):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, at, 1, 0
            batch.logits[at] = True
        assert llama_cpp.llama_decode(context, batch) == 0
        pooled = llama_cpp.llama_get_embeddings_seq(context, 0)
        rows.append(np.ctypeslib.as_array(pooled, (llama_cpp.llama_model_n_embd(loaded),)).astype(np.float64))
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(loaded)
    return np.array([row / np.linalg.norm(row) for row in rows])


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
@pytest.mark.parametrize("batch", [16, 64, 512])
@pytest.mark.parametrize(
    ("pooling", "theirs"), [(MEAN, llama_cpp.LLAMA_POOLING_TYPE_MEAN), (LAST, llama_cpp.LLAMA_POOLING_TYPE_LAST)]
)
def test_poolings_are_llama_cpps_own(
    tiny_model: Callable[..., Path], threads: int, tokenizer: str, batch: int, pooling: int, theirs: int
) -> None:
    path = tiny_model(tokenizer)
    expected = pooled_by_llama(path, TEXTS, threads=threads, pooling=theirs)
    found = embedded(path, TEXTS, threads=threads, batch=batch, pooling=pooling)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # the bar means something: no two texts are that near
    apart = np.linalg.norm(expected[:, None] - expected[None], axis=2)[~np.eye(len(TEXTS), dtype=bool)]
    assert apart.min() > 1e-2


def test_also_with_the_default_cache_and_flash_attention(tiny_model: Callable[..., Path], threads: int) -> None:
    path, options = tiny_model(), {"kv_type": "f16", "flash_attention": "auto"}
    expected = pooled_by_llama(path, TEXTS, threads=threads, **options)
    np.testing.assert_allclose(embedded(path, TEXTS, threads=threads, **options), expected, atol=2e-3)


@pytest.mark.parametrize("pooling", [MEAN, LAST])
def test_order_and_company_do_not_matter(tiny_model: Callable[..., Path], threads: int, pooling: int) -> None:
    path = tiny_model()
    together = embedded(path, TEXTS, threads=threads, pooling=pooling)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    order = np.random.default_rng(1).permutation(len(TEXTS))
    shuffled = embedded(path, [TEXTS[at] for at in order], threads=threads, pooling=pooling)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    alone = np.concatenate([embedded(path, [text], threads=threads, pooling=pooling) for text in TEXTS[:4]])
    np.testing.assert_allclose(alone, together[:4], atol=1e-5)


def test_more_short_texts_than_sequences(tiny_model: Callable[..., Path], threads: int) -> None:
    """Two tokens each, so that a batch has room for more texts than a context has sequences."""
    path = tiny_model()
    texts = [RANDOM.integers(20, 250, 2, np.int32) for _ in range(600)]
    done: list[int] = []
    with Model(ModelFile(path), Settings(threads=threads, batch=2048, **EXACT), cells=2050, embeddings=True) as opened:
        found = embed(opened, texts, done.append)[MEAN]
    assert done == sorted(done)
    assert done[-1] == 600
    some = [0, 254, 255, 256, 257, 511, 512, 599]
    np.testing.assert_allclose(
        found[some], pooled_by_llama(path, [texts[at] for at in some], threads=threads), atol=1e-5
    )


# ---- of caches


class Caches:
    """A pool, a target set and existing data, scored by the tiny model; the model may be forbidden."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        self.threads = threads
        pool = [pair(number) for number in range(9)]
        pool[4] = {**pair(1), "id": "copy", "prompt": pair(1)["prompt"].upper()}
        for name, records in (("pool", pool), ("dev", [pair(20), pair(3)]), ("old", [pair(30), pair(31), pair(2)])):
            (folder / f"{name}.jsonl").write_bytes(jsonl(records))
        for arguments in (
            ("pool.jsonl", "-o", "pool"),
            ("pool.jsonl", "--targets", "dev.jsonl", "-o", "dev"),
            ("--examples", "old.jsonl", "--targets", "pool.jsonl", "-o", "old"),
            ("pool.jsonl", "--budget", "50%", "-o", "part"),
        ):
            assert score(*arguments, "-q").code == 0

    def blocks(self, *names: str, model_allowed: bool = True) -> list[Any]:
        opener = self.open if model_allowed else self.refuse
        return embedded_blocks([open_cache(self.folder / name) for name in names], opener, lambda done: None)

    def open(self, cache: Any) -> tuple[Engine, ChatTemplate]:
        return engine_as_measured(cache, str(model()), Settings(threads=self.threads))

    def refuse(self, cache: Any) -> NoReturn:
        raise AssertionError("the model was opened")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory, threads: int) -> Iterator[Caches]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("embedded")
        patch.chdir(folder)
        yield Caches(folder, threads)


def plain(caches: Caches, name: str) -> npt.NDArray[np.float64]:
    """Embeddings of a file's records by llama.cpp's pooling."""
    file = ModelFile(model())
    template = load_template(None, file.template, file.vocabulary)
    texts = [template.example(record) for record in read_records(caches.folder / f"{name}.jsonl").records]
    return pooled_by_llama(model(), texts, threads=caches.threads, kv_type="f16", flash_attention="auto")


def test_kernels_are_cosines_without_copies(caches: Caches) -> None:
    own, with_self = (
        kernels(caches.blocks("pool", "dev", "old"), KernelOptions(self_utility=choice))
        for choice in ("exclude", "include")
    )
    pool, dev, old = (plain(caches, name) for name in ("pool", "dev", "old"))
    expected = [np.maximum(a @ b.T, 0.0) for a, b in ((pool, pool), (pool, dev), (old, pool))]
    for kernel, cosines in zip(with_self, expected, strict=True):
        np.testing.assert_allclose(similarities(kernel), cosines, atol=2e-3)
    expected[0][np.arange(9), np.arange(9)] = expected[0][1, 4] = expected[0][4, 1] = 0.0
    expected[1][3, 1] = expected[2][2, 2] = 0.0
    for kernel, cosines in zip(own, expected, strict=True):
        np.testing.assert_allclose(similarities(kernel), cosines, atol=2e-3)


def test_objectives_over_embeddings(caches: Caches) -> None:
    pool, dev, old = caches.blocks("pool", "dev", "old")
    goal, chosen_from = objective_over(pool, dev, None, "flmi", KernelOptions())
    assert chosen_from is pool
    cosines = np.maximum(plain(caches, "pool") @ plain(caches, "dev").T, 0.0)
    cosines[3, 1] = 0.0
    np.testing.assert_allclose(goal.bonus, cosines.max(axis=1), atol=2e-3)
    goal, _ = objective_over(pool, None, old, "flcg", KernelOptions())
    assert goal.start.min() > 0
    with pytest.raises(InputError, match="not a pool scored against itself"):
        objective_over(dev, None, None, "fl", KernelOptions())


def test_kept_embeddings_need_no_model(caches: Caches) -> None:
    first = caches.blocks("pool", "dev")
    again = caches.blocks("pool", "dev", model_allowed=False)
    for block, other in zip(first, again, strict=True):
        for made, read in zip(block._embeddings, other._embeddings, strict=True):
            assert made.tobytes() == read.tobytes()
    caches.blocks("part", model_allowed=False)  # its budget was spent with their help
    # the pool's are shared by the caches it is in; those of the same records elsewhere are not looked for
    for file in (caches.folder / "part" / "baselines").iterdir():
        file.unlink()
    with pytest.raises(AssertionError, match="the model was opened"):
        caches.blocks("part", model_allowed=False)
    caches.blocks("pool", "part", model_allowed=False)
    for file in (caches.folder / "pool" / "baselines").iterdir():
        file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(AssertionError, match="the model was opened"):
        caches.blocks("pool", model_allowed=False)
    caches.blocks("pool")
    caches.blocks("pool", model_allowed=False)


def test_keeping_takes_a_twentieth_of_the_time_at_most(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in 10 s; keeping them takes 2 s the first time."""
    clock, durations, kept_at = [0.0], iter((2.0, 0.0, 0.0)), []

    def parts(_engine: Any, texts: Any, _report: Any) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        for start in range(len(texts)):
            clock[0] += 10.0
            yield start, np.full((2, 1, 3), start, np.float32)

    def keep(_file: Path, array: npt.NDArray[np.float32]) -> None:
        kept_at.append((clock[0], int(np.isfinite(array[0, :, 0]).sum())))
        clock[0] += next(durations)

    monkeypatch.setattr(embeddings, "_in_parts", parts)
    monkeypatch.setattr(embeddings, "keep", keep)
    monkeypatch.setattr(embeddings, "read_kept", lambda *_, **__: None)
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: clock[0])
    cache = open_cache(caches.folder / "pool")
    found, _ = embeddings.embeddings_of(cache, lambda: caches.open(cache), lambda done: None)
    assert found[0, :, 0].tolist() == list(range(9))
    assert kept_at == [(40.0, 4), (92.0, 9)]  # 40 s are not over by 82; the end, whenever it comes


def test_a_large_array_is_kept_and_read_with_one_copy(tmp_path: Path) -> None:
    array = np.arange(2_000_000, dtype=np.float32).reshape(2, -1, 10)
    tracemalloc.start()
    sidecar.keep(tmp_path / "baselines" / "a.bin", array)
    kept, _ = tracemalloc.get_traced_memory()[1], tracemalloc.reset_peak()
    read = sidecar.read_kept(tmp_path / "baselines" / "a.bin", (2, 100_000, -1), np.float32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read is not None
    np.testing.assert_array_equal(read, array)
    assert kept < 0.1 * array.nbytes
    assert peak < 2.5 * array.nbytes  # the file and the array, and whether it is finite


def test_another_model_is_refused(caches: Caches, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    other = tiny_model(seed=7)
    (tmp_path / "one.jsonl").write_bytes(jsonl([pair(number) for number in range(3)]))
    assert score(tmp_path / "one.jsonl", "-o", tmp_path / "c", "-q").code == 0
    for file in (tmp_path / "c" / "baselines").iterdir():
        file.unlink()  # what scoring kept needs no model
    for method in ("embedding", "ifd"):
        refused = delift("select", tmp_path / "c", "--method", method, "-m", other).refusal()
        assert "was scored with tiny" in refused
        assert f"{other} is another model" in refused
        assert "no such file" in delift("select", tmp_path / "c", "--method", method, "-m", "none.gguf").refusal()


def test_selection_is_plain_greedy_over_cosines(caches: Caches) -> None:
    result = delift("select", "pool", "--method", "embedding", "-k", "4", "--with-scores", "-m", model())
    assert result.code == 0, result.err
    assert "embedding: cosines" in result.err
    taken = [json.loads(line)["delift"] for line in result.out.splitlines()]
    s = similarities(kernels(caches.blocks("pool"), KernelOptions())[0])
    covered = np.zeros(9)
    ids = [f"r{number}" if number != 4 else "copy" for number in range(9)]
    for line in taken:
        gains = np.maximum(s - covered, 0.0).sum(axis=1)
        assert line["gain"] == pytest.approx(gains.max(), rel=1e-5)
        covered = np.maximum(covered, s[ids.index(line["id"])])
    # a cache of some of the pairs holds the same records
    assert (
        delift("select", "part", "--method", "embedding", "-k", "4", "-q", "-m", model()).out
        == delift("select", "pool", "--method", "embedding", "-k", "4", "-q").out
    )


def test_the_real_model_knows_what_is_alike(smollm2: Path, threads: int) -> None:
    file = ModelFile(smollm2)
    texts = [
        "What is the capital of France? Paris.",
        "Which city is the capital of Italy? Rome.",
        "def add(a, b):\n    return a + b",
        "def multiply(a, b):\n    return a * b",
    ]
    tokens = [np.array(file.vocabulary.tokenize(text, special=False), np.int32) for text in texts]
    points = embedded(smollm2, tokens, threads=threads, kv_type="f16", flash_attention="auto")
    cosines = points @ points.T - 2 * np.eye(4)
    assert cosines.argmax(axis=1).tolist() == [1, 0, 3, 2]

"""Pairs evaluated one sequence at a time, what batched scoring is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from delift_cli.data.record import Message, Record, RecordSet
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import FLASH_ATTENTION, KV_TYPES, Model, Settings
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import EncodedExamples, EncodedTargets, encode_examples, encode_targets
from delift_cli.scoring.pairs import Scoring, TargetTokens, Work, cells_needed, score_rows

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
        records.append(Record.of_pair(str(at), turns, response, b"", at + 1))
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

    def missing(self, example: int) -> np.ndarray:
        return np.arange(int(self.rows["done"][example]), self.distance.shape[1])

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
        targets = TargetTokens(self.targets)
        return score_rows(Scoring(models, self.examples, targets), targets, cache)  # type: ignore[arg-type]


class Alone:
    """One sequence at a time through llama.cpp's low-level interface, and NumPy in float64."""

    def __init__(
        self, path: Path, *, threads: int, kv_type: str = "f16", flash_attention: str = "auto", batch: int = 1024
    ) -> None:
        self._size = batch
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
        """ln p of the last `response` tokens, evaluated `batch` at a time."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        given = []
        for start in range(0, len(tokens), self._size):
            part = tokens[start : start + self._size]
            batch = self._batch
            batch.n_tokens = len(part)
            for at, token in enumerate(part):
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, start + at, 1, 0
                batch.logits[at] = True
            assert llama_cpp.llama_decode(self._context, batch) == 0
            for at in range(max(len(tokens) - response - 1 - start, 0), min(len(tokens) - 1 - start, len(part))):
                row = llama_cpp.llama_get_logits_ith(self._context, at)
                logits = np.ctypeslib.as_array(row, (self._n_vocab,)).astype(np.float64)
                top = logits.max()
                given.append(logits[tokens[start + at + 1]] - top - np.log(np.exp(logits - top).sum()))
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

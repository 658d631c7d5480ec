"""Roads that the scorer is compared with and that only benchmarks need: the careful loop, and transformers.

Both take the same pairs as token ids and return the same numbers, so that a comparison of speeds is also a comparison
of results. Loading the model is not timed. The raw rate and the high-level loop are in `delift_cli.rates`; the
comparison itself is `tests.bench.scoring`.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import llama_cpp as llama
import numpy as np

_silent = llama.llama_log_callback(lambda level, text, data: None)  # llama.cpp keeps the pointer

Tokens = Sequence[int]
Pair = tuple[Tokens, Tokens]
"""(everything before the response, the response with its end-of-turn token), as token ids."""


@dataclass(frozen=True)
class Settings:
    """What every road shares; n_ctx must hold the longest pair and one token more."""

    threads: int = os.cpu_count() or 1
    flash_attention: bool = True
    n_batch: int = 512
    n_ctx: int = 2048
    gpu_layers: int = 0


@dataclass(frozen=True)
class Result:
    """Seconds, tokens of the pairs (evaluated ones, where the road chooses), and [pair] arrays in float64."""

    seconds: float
    tokens: int
    distance: np.ndarray
    logprob: np.ndarray

    @property
    def pairs_per_second(self) -> float:
        return len(self.distance) / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def summarize(logprobs: np.ndarray) -> tuple[float, float]:
    """(distance, mean log-probability) of one response from its tokens' log-probabilities [L]."""
    missing = 1.0 - np.exp(logprobs)
    return float(np.sqrt(np.mean(missing**2))), float(np.mean(logprobs))


def _result(seconds: float, tokens: int, logprobs: Sequence[np.ndarray]) -> Result:
    distance, mean = np.array([summarize(row) for row in logprobs]).T
    return Result(seconds, tokens, distance, mean)


class Session:
    """A model and a context through llama.cpp's own functions."""

    def __init__(self, path: str | Path, settings: Settings) -> None:
        llama.llama_log_set(_silent, ctypes.c_void_p(0))
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = settings.gpu_layers
        self.model = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            raise OSError(f"llama.cpp cannot load {path}")
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch = settings.n_ctx, settings.n_batch
        params.n_ubatch = min(512, settings.n_batch)
        params.n_threads = params.n_threads_batch = settings.threads
        params.flash_attn_type = int(settings.flash_attention)
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            raise OSError(f"llama.cpp cannot make a context for {path}")
        self.memory = llama.llama_get_memory(self.context)
        self.n_batch = settings.n_batch
        self.batch = llama.llama_batch_init(settings.n_batch, 0, 1)

    def close(self) -> None:
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text with control tokens parsed and none added."""
        data = text.encode()
        buffer = (llama.llama_token * (len(data) + 8))()
        n = llama.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), False, True)
        return list(buffer[:n])

    def decode(self, tokens: Tokens, start: int, outputs: range) -> None:
        """Evaluate tokens at positions start, start + 1, ...; logits for positions in outputs."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = start + i in outputs
        if llama.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def logits(self, n: int) -> np.ndarray:
        """The n rows of logits that the last evaluation gave, [n, vocabulary], as a float64 copy."""
        buffer = llama.llama_get_logits(self.context)
        return np.ctypeslib.as_array(buffer, (n, self.n_vocab)).astype(np.float64)

    def logprobs(self, context: Tokens, response: Tokens) -> np.ndarray:
        """Log-probability of every response token [L], the pair evaluated alone in a cleared memory."""
        llama.llama_memory_clear(self.memory, False)
        tokens = [*context, *response[:-1]]
        outputs = range(len(context) - 1, len(tokens))
        found = []
        for start in range(0, len(tokens), self.n_batch):
            stop = min(start + self.n_batch, len(tokens))
            self.decode(tokens[start:stop], start, outputs)
            wanted = range(max(start, outputs.start), stop)
            if wanted:
                logits = self.logits(len(wanted))
                logits -= logits.max(axis=1, keepdims=True)
                targets = [response[position - outputs.start] for position in wanted]
                chosen = logits[np.arange(len(wanted)), targets]
                found.append(chosen - np.log(np.exp(logits).sum(axis=1)))
        return np.concatenate(found)


@contextmanager
def session(path: str | Path, settings: Settings) -> Iterator[Session]:
    opened = Session(path, settings)
    try:
        yield opened
    finally:
        opened.close()


def careful_loop(path: str | Path, pairs: Sequence[Pair], settings: Settings) -> Result:
    """What a careful user would write: one evaluation a pair, logits only for the response.

    The last response token is not evaluated, for nothing is predicted from it.
    """
    with session(path, settings) as model:
        model.logprobs(*pairs[0])  # the first evaluation pays for allocations
        started = time.perf_counter()
        logprobs = [model.logprobs(context, response) for context, response in pairs]
        seconds = time.perf_counter() - started
    return _result(seconds, sum(len(c) + len(r) - 1 for c, r in pairs), logprobs)


def transformers_loop(path: str | Path, pairs: Sequence[Pair], settings: Settings, rows: int = 8) -> Result:
    """The teacher-forced path as published implementations have it: transformers, float32, padded batches.

    Log-softmax over the logits of every position, then a gather of the response tokens. The weights are those
    of the GGUF file, dequantized. Needs torch, transformers, accelerate and gguf.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise SystemExit("this road needs: pip install torch transformers accelerate gguf") from error
    torch.set_num_threads(settings.threads)
    transformers.utils.logging.disable_progress_bar()
    path = Path(path).resolve()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    model.eval()

    def batch_logprobs(batch: Sequence[Pair]) -> list[np.ndarray]:
        sequences = [torch.tensor([*context, *response]) for context, response in batch]
        tokens = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True)
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        every = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        chosen = every.gather(2, tokens[:, 1:, None])[:, :, 0].double().numpy()
        return [
            row[len(context) - 1 : len(context) + len(response) - 1]
            for row, (context, response) in zip(chosen, batch, strict=True)
        ]

    with torch.inference_mode():
        batch_logprobs(pairs[:1])
        logprobs: list[np.ndarray] = []
        started = time.perf_counter()
        for start in range(0, len(pairs), rows):
            logprobs += batch_logprobs(pairs[start : start + rows])
        seconds = time.perf_counter() - started
    return _result(seconds, sum(len(c) + len(r) for c, r in pairs), logprobs)

"""The roads that the scorer is compared with: what others would write, and the raw rate of the hardware.

Every road takes the same pairs as token ids and returns the same numbers, so that a comparison of speeds is
also a comparison of results. Loading the model is not timed. Run as a script, it prints a table:

    python tests/bench/baselines.py model.gguf records.jsonl [--pairs 40] [--roads raw careful high]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def raw_rate(path: str | Path, settings: Settings, n_tokens: int = 512, seconds: float = 5.0) -> float:
    """Tokens/s of prompt processing: n_tokens at a time in a cleared memory, logits of the last only."""
    with session(path, settings) as model:
        tokens = np.random.default_rng(0).integers(0, model.n_vocab, n_tokens).tolist()

        def once() -> None:
            llama.llama_memory_clear(model.memory, False)
            for start in range(0, n_tokens, settings.n_batch):
                model.decode(tokens[start : start + settings.n_batch], start, range(n_tokens - 1, n_tokens))
            llama.llama_synchronize(model.context)

        once()
        started, rounds = time.perf_counter(), 0
        while rounds < 2 or time.perf_counter() - started < seconds:
            once()
            rounds += 1
        return rounds * n_tokens / (time.perf_counter() - started)


def high_level_loop(path: str | Path, pairs: Sequence[Pair], settings: Settings) -> Result:
    """What a user would write first: llama-cpp-python's completion call with echo and logprobs.

    One pair a call. The call takes text only, so the pairs are turned back into text; the response's
    log-probabilities are the last of the list, but for the one token that must be generated. llama-cpp-python
    0.3.36 pairs each token with the logits after it, unless the text begins with the BOS token, which it
    drops: only then are the numbers right. It also leaves out every later BOS token, and evaluates only what
    a prompt does not share with the one before it.
    """
    model = llama.Llama(
        str(path),
        n_ctx=settings.n_ctx,
        n_batch=settings.n_batch,
        n_threads=settings.threads,
        n_threads_batch=settings.threads,
        flash_attn=settings.flash_attention,
        n_gpu_layers=settings.gpu_layers,
        logits_all=True,
        verbose=False,
    )
    try:
        texts = [model.detokenize([*context, *response], special=True).decode() for context, response in pairs]
        logprobs, tokens = [], 0
        started = time.perf_counter()
        for text, (_, response) in zip(texts, pairs, strict=True):
            answer: Any = model.create_completion(text, max_tokens=1, echo=True, logprobs=1, temperature=0)
            listed = answer["choices"][0]["logprobs"]["token_logprobs"]
            end = len(listed) - answer["usage"]["completion_tokens"]
            logprobs.append(np.array(listed[end - len(response) : end], dtype=np.float64))
            tokens += answer["usage"]["prompt_tokens"]
        seconds = time.perf_counter() - started
    finally:
        model.close()
    return _result(seconds, tokens, logprobs)


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


def convert(path: str | Path, out: str | Path, ftype: str) -> Path:
    """Write the model in another number format (f32, f16, bf16, q8_0, q4_0, q4_1, ...) with llama.cpp."""
    llama.llama_log_set(_silent, ctypes.c_void_p(0))
    name = "LLAMA_FTYPE_ALL_F32" if ftype == "f32" else f"LLAMA_FTYPE_MOSTLY_{ftype.upper()}"
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, name)
    params.allow_requantize = True
    params.nthread = os.cpu_count() or 1
    if llama.llama_model_quantize(str(path).encode(), str(out).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp cannot convert {path} to {ftype}")
    return Path(out)


def chatml_pairs(path: str | Path, records: str | Path, n: int, settings: Settings) -> list[Pair]:
    """n pairs in ChatML from a JSONL file with `prompt` and `response`: each record before the next ones.

    Each record serves as the example of eight targets. Tokenized in pieces, as a scorer does it.
    """
    with open(records, encoding="utf-8") as lines:
        pool = [json.loads(line) for line in lines if line.strip()]
    chosen = [pool[i] for i in np.random.default_rng(0).permutation(len(pool))]
    with session(path, settings) as model:

        def turn(record: dict[str, str]) -> tuple[list[int], list[int]]:
            head = f"<|im_start|>user\n{record['prompt']}<|im_end|>\n<|im_start|>assistant\n"
            return model.tokenize(head), model.tokenize(record["response"] + "<|im_end|>")

        system = model.tokenize("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
        newline = model.tokenize("\n")
        pairs: list[Pair] = []
        for i in range(n):
            example, target = turn(chosen[i // 8]), turn(chosen[(i // 8 + 1 + i % 8) % len(chosen)])
            pairs.append(([*system, *example[0], *example[1], *newline, *target[0]], target[1]))
    return pairs


ROADS = {"careful": careful_loop, "high": high_level_loop, "transformers": transformers_loop}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("records", help="JSONL with prompt and response")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--roads", nargs="+", default=["raw", "careful", "high"])
    parser.add_argument("--threads", type=int, default=Settings.threads)
    parser.add_argument("--batch", type=int, default=Settings.n_batch)
    parser.add_argument("--ctx", type=int, default=Settings.n_ctx)
    parser.add_argument("--no-flash-attention", action="store_true")
    parser.add_argument("--convert", metavar="FTYPE", help="convert the weights first, to a temporary file")
    arguments = parser.parse_args()
    settings = Settings(arguments.threads, not arguments.no_flash_attention, arguments.batch, arguments.ctx)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.model)
        if arguments.convert:
            path = convert(path, Path(folder) / f"{arguments.convert}.gguf", arguments.convert)
        pairs = chatml_pairs(path, arguments.records, arguments.pairs, settings)
        lengths = [len(c) + len(r) for c, r in pairs]
        print(f"{len(pairs)} pairs, {np.mean(lengths):.0f} tokens a pair, {settings}")
        first: Result | None = None
        for road in arguments.roads:
            if road == "raw":
                print(f"{road:13s} {raw_rate(path, settings):8.1f} tokens/s")
                continue
            result = ROADS[road](path, pairs, settings)
            line = f"{road:13s} {result.tokens_per_second:8.1f} tokens/s {result.pairs_per_second:8.3f} pairs/s"
            if first is None:
                first = result
            else:
                apart = np.abs(result.distance - first.distance), np.abs(result.logprob - first.logprob)
                line += f"   max |d distance| {apart[0].max():.1e}, max |d log-probability| {apart[1].max():.1e}"
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""How fast this machine could score, and how fast what one would write first does it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import llama_cpp
import numpy as np

from .encoding import EncodedExamples, EncodedTargets
from .model import Model, ModelFile, Settings
from .template import Tokens

RAW_TOKENS = 512


class Pair(NamedTuple):
    """One sequence: everything before the response, and the response with its end of turn."""

    context: Tokens
    response: Tokens


class LoopRate(NamedTuple):
    """Pairs and tokens per second of a loop, and each pair's mean log-probability (float64 [pair])."""

    pairs_per_second: float
    tokens_per_second: float
    logprob: np.ndarray


def raw_rate(file: ModelFile, settings: Settings, *, tokens: int = RAW_TOKENS, seconds: float = 5.0) -> float:
    """Tokens/s of prompt processing: one sequence of `tokens` at a time, the logits of its last token only.

    The rate that llama.cpp's own benchmark calls pp512: what the hardware gives when nothing else is asked of it.
    """
    with Model(file, settings, cells=tokens) as model:
        random = np.random.default_rng(0).integers(0, model.vocabulary_size, tokens).astype(np.int32)
        places = np.arange(tokens, dtype=np.int32)
        ones, zeros = np.ones(tokens, np.int32), np.zeros(tokens, np.int32)
        last = places == tokens - 1
        size = settings.batch

        def once() -> None:
            model.clear()
            for start in range(0, tokens, size):
                part = slice(start, start + size)
                model.decode(random[part], places[part], zeros[part], ones[part], last[part])

        once()
        rounds, started = 0, time.perf_counter()
        while rounds < 2 or time.perf_counter() - started < seconds:
            once()
            rounds += 1
        return rounds * tokens / (time.perf_counter() - started)


def high_level_loop(file: ModelFile, settings: Settings, pairs: Sequence[Pair]) -> LoopRate:
    """What a user would write first: llama-cpp-python's completion call with echo and logprobs, a pair a call.

    Its numbers are not ours: llama-cpp-python 0.3.36 reports each token with the logits that follow it unless the
    text begins with a BOS token, which it drops.
    """
    longest = max(len(pair.context) + len(pair.response) for pair in pairs)
    model = llama_cpp.Llama(
        str(file.path),
        n_ctx=longest + 8,
        n_batch=settings.batch,
        n_threads=settings.resolved_threads(),
        n_threads_batch=settings.resolved_threads(),
        n_gpu_layers=settings.resolved_gpu_layers(),
        flash_attn=settings.flash_attention != "off",
        logits_all=True,
        verbose=False,
    )
    try:
        tokens, means = 0, []
        started = time.perf_counter()
        for pair in pairs:
            text = model.detokenize([*pair.context.tolist(), *pair.response.tolist()], special=True).decode()
            answer = model.create_completion(text, max_tokens=1, echo=True, logprobs=1, temperature=0)
            listed = answer["choices"][0]["logprobs"]["token_logprobs"]  # type: ignore[index]
            end = len(listed) - answer["usage"]["completion_tokens"]  # type: ignore[index]
            means.append(np.mean(np.array(listed[end - len(pair.response) : end], np.float64)))
            tokens += answer["usage"]["prompt_tokens"]  # type: ignore[index]
        seconds = time.perf_counter() - started
    finally:
        model.close()
    return LoopRate(len(pairs) / seconds, tokens / seconds, np.array(means))


def some_pairs(examples: EncodedExamples, targets: EncodedTargets, count: int) -> list[Pair]:
    """`count` pairs spread over the block, whole sequences each."""
    n, m = len(examples.prefixes), len(targets.targets)
    picks = np.random.default_rng(0).choice(n * m, size=min(count, n * m), replace=False)
    pairs = []
    for example, target in zip(*np.divmod(picks, m), strict=True):
        found = targets.targets[target]
        repeated = targets.systems[target] not in (None, examples.systems[example])
        behind = found.after_system if repeated else found.after
        pairs.append(Pair(np.concatenate([examples.prefixes[example], behind]), found.response))
    return pairs

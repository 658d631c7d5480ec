"""The loop that one would write first: llama-cpp-python's completion call, a pair a call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt

from .gguf import ModelFile
from .llama import Settings


class Pair(NamedTuple):
    """One sequence: everything before the response, and the response with its end of turn."""

    context: npt.NDArray[np.int32]
    response: npt.NDArray[np.int32]


class LoopRate(NamedTuple):
    """Pairs and tokens per second of a loop, and each pair's mean log-probability (float64 [pair])."""

    pairs_per_second: float
    tokens_per_second: float
    logprob: np.ndarray


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

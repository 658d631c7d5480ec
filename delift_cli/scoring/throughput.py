"""How fast this machine could score, and pairs to measure with."""

from __future__ import annotations

import time

import numpy as np

from ..model.gguf import ModelFile
from ..model.high_level import Pair
from ..model.llama import Model, Settings
from ..prompt.encoding import EncodedExamples, EncodedTargets

RAW_TOKENS = 512


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

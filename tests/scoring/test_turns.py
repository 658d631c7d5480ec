"""Several scored turns in one pass: the number is what evaluating that one conversation alone gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from one_by_one import EXACT, Alone, Block, pool

from delift_cli.data.record import Message, Record, RecordSet
from delift_cli.model.llama import Settings

TEXTS = [
    "What is the capital?",
    "The capital is Paris.",
    "Who wrote it?",
    "She wrote it.",
    "Add 12 and 30",
    "42",
    "no",
    "yes",
]


def conversations() -> list[Record]:
    """Chats of two to four exchanges, some turns of them not scored, one with a system message."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(9):
        turns = [Message("system", "You are kind.")] if number % 4 == 3 else []
        for exchange in range(1 + number % 4):
            question, said = (TEXTS[at] for at in rng.integers(0, len(TEXTS), 2))
            scored = exchange == number % 4 or bool(rng.integers(0, 2))
            turns += [Message("user", question), Message("assistant", said, scored=scored)]
        made.append(Record(str(number), tuple(turns), b"", number + 1))
    return made


@pytest.mark.parametrize("batch", [16, 512])
def test_conversations_are_as_if_evaluated_alone(tiny_model: Callable[..., Path], threads: int, batch: int) -> None:
    records: RecordSet = pool([("a", "b")])
    records.records[:] = conversations()
    block = Block(tiny_model(), records)
    assert any(not target.scored.all() for target in block.targets.targets)
    cache = block.score(Settings(threads=threads, batch=batch, **EXACT))
    reference = Alone(block.file.path, threads=threads, **EXACT)
    for row, (prefix, shown) in enumerate(zip(block.examples.prefixes, block.examples.systems, strict=True)):
        for column, (target, own) in enumerate(zip(block.targets.targets, block.targets.systems, strict=True)):
            behind = target.after if own is None or own == shown else target.after_system
            said = reference.log_probabilities(
                np.concatenate([prefix, behind, target.response]).tolist(), len(target.response)
            )[target.scored]
            assert abs(cache.logprob[row, column] - said.mean()) < 1e-4
            assert abs(cache.distance[row, column] - np.sqrt(np.mean((1 - np.exp(said)) ** 2))) < 1e-4
    for column, target in enumerate(block.targets.targets):
        tokens = np.concatenate([target.alone, target.response]).tolist()
        said = reference.log_probabilities(tokens, len(target.response))[target.scored]
        assert abs(cache.base_logprob[column] - said.mean()) < 1e-4
    reference.close()


def test_every_scored_turn_counts(tiny_model: Callable[..., Path], threads: int) -> None:
    """The mean over a conversation is the mean over its turns' tokens, each turn behind what precedes it."""
    turns = [Message("user", "What is it?"), Message("assistant", "two words", scored=True)]
    turns += [Message("user", "Who wrote it?"), Message("assistant", "She wrote it.", scored=True)]
    both = Record("both", tuple(turns), b"", 1)
    first = Record("first", tuple(turns[:2]), b"", 2)
    last = Record("last", (turns[0], turns[1]._replace(scored=False), *turns[2:]), b"", 3)
    records: RecordSet = pool([("a", "b")])
    records.records[:] = [both, first, last]
    block = Block(tiny_model(), records)
    cache = block.score(Settings(threads=threads, **EXACT))
    counts = np.array([int(target.scored.sum()) for target in block.targets.targets])
    assert counts[0] == counts[1] + counts[2]
    for logprob in (cache.base_logprob, *cache.logprob):
        np.testing.assert_allclose(counts[0] * logprob[0], counts[1:] @ logprob[1:], rtol=1e-4)

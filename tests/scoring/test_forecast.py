"""How many tokens a run will evaluate is known before it, without laying out everything for every example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import WORDS, jsonl

from delift_cli.data.reading import parse_records
from delift_cli.model.gguf import ModelFile
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.trie import build_trie
from delift_cli.scoring import job


def inputs_of(tiny_model: Callable[..., Path], systems: list[str | None]) -> job.Inputs:
    file = ModelFile(tiny_model())
    rows = []
    for at, system in enumerate(systems):
        turns = [{"role": "user", "content": WORDS[at % 13]}, {"role": "assistant", "content": WORDS[at % 7]}]
        rows.append({"messages": [{"role": "system", "content": system}, *turns] if system else turns})
    records = parse_records(jsonl(rows), "pool")
    template = load_template("chatml", None, file.vocabulary)
    return job.prepare(records, None, template, context=512, truncate=False, skip_invalid=False)


def one_by_one(inputs: job.Inputs) -> int:
    """Tokens by laying out all targets for each example."""
    examples, targets = inputs.encoded_examples, inputs.target_tokens
    head = len(job.common_start(examples.prefixes))
    return head + sum(
        len(prefix) - head + len(targets.behind(system, targets.all)[0].tokens)
        for prefix, system in zip(examples.prefixes, examples.systems, strict=True)
    )


@pytest.mark.parametrize("different", [1, 3, 16])
def test_tokens_are_exact_for_few_system_messages(tiny_model: Callable[..., Path], different: int) -> None:
    systems = [f"be {WORDS[at % different % 13]} {at % different}" if at % different else None for at in range(32)]
    inputs = inputs_of(tiny_model, systems)
    assert job.expected_tokens(inputs)[0] == one_by_one(inputs)


def test_of_many_system_messages_some_are_laid_out(tiny_model: Callable[..., Path]) -> None:
    inputs = inputs_of(tiny_model, [None] * 40 + [f"be {WORDS[at % 13]} {at}" for at in range(60)])
    laid_out: list[Any] = []

    def counting(*arguments: Any) -> Any:
        laid_out.append(arguments)
        return build_trie(*arguments)

    tokens, _ = job.expected_tokens(inputs, counting)
    assert len(laid_out) <= job.LAID_OUT
    assert tokens == pytest.approx(one_by_one(inputs), rel=0.02)

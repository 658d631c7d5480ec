"""Which records stand for each other's answers."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_runs

from delift_cli.data.record import Record, copy_groups
from delift_cli.data.shared_answers import answer_groups, shared_answers

REFUSAL = "I am sorry, but I cannot help with that request."
PLANET = "It is Jupiter, eleven times as wide as the earth."
LABEL = "The two sentences say the same thing."


def read(*told: tuple[str, str]) -> list[Record]:
    lines = [{"prompt": prompt, "response": response} for prompt, response in told]
    return tiny_runs.records(tiny_runs.jsonl(lines)).records


def test_unlike_prompts_with_one_long_answer_are_a_group() -> None:
    records = read(
        ("Is seven a prime number?", "Yes"),
        ("How far is the moon from the earth?", REFUSAL),
        ("Which is the largest planet in our solar system?", PLANET),
        ("Translate into French: the cat sleeps.", REFUSAL.upper().replace(" ", "  ")),
        ("Which planet is the largest in our solar system?", PLANET),  # asks the same
        ("how far is the MOON from the earth?", REFUSAL),  # a copy
        ("Is nine an odd number, or what is it?", "Yes"),  # short
        ("Which planet is the largest in our solar system?", PLANET + " "),  # a copy
    )
    assert copy_groups(records).tolist() == [0, 1, 2, 3, 4, 1, 6, 4]
    assert answer_groups(records).tolist() == [0, 1, 2, 1, 4, 1, 6, 4]


def test_labels_of_one_form_stay_apart() -> None:
    """A label may be long; prompts of one template are alike."""
    form = "Read both sentences and say whether they mean the same. First: {}. Second: {}. Do they mean the same?"
    records = read(
        *((form.format(a, b), LABEL) for a, b in (("Mia sleeps", "Mia is asleep"), ("It rains", "Rain falls")))
    )
    assert shared_answers(records).tolist() == [1, 1]
    assert answer_groups(records).tolist() == [0, 1]


def test_scripts_without_spaces() -> None:
    answer = "申し訳ございませんが、そのご質問には私からお答えすることができません。ご了承ください。"
    records = read(
        ("日本で一番高い山は何ですか？", answer),
        ("日本で一番高い山は何という山ですか？", answer),
        ("秋の落ち葉について短い詩を書いてください。", answer),
    )
    assert shared_answers(records).tolist() == [2, 2, 2]


def test_case_that_only_folding_knows() -> None:
    answer = "{} is written with a letter that other tongues lack"
    records = read(("Spell a road!", answer.format("Straße")), ("What did he say?", answer.format("STRASSE")))
    assert answer_groups(records).tolist() == [0, 0]


def test_of_many_prompts_of_one_answer_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    records = read(*((f"{word} " * 5, REFUSAL) for word in ("ant", "bee", "cow", "dog", "eel")))
    assert shared_answers(records).tolist() == [5] * 5
    monkeypatch.setattr("delift_cli.data.shared_answers.COMPARED", 3)
    assert shared_answers(records).tolist() == [3] * 5
    assert answer_groups(records).tolist() == [0] * 5


def test_no_records() -> None:
    assert answer_groups([]).dtype == np.int32
    assert answer_groups([]).shape == shared_answers([]).shape == (0,)

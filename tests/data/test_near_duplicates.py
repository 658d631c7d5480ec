"""Near-duplicates by their texts."""

from __future__ import annotations

import json

import numpy as np
from tiny_runs import jsonl

from delift_cli.data.near_duplicates import near_duplicates
from delift_cli.data.reading import parse_records

TEXTS = [
    ("What is the capital of Norway?", "The capital of Norway is Oslo."),
    ("Write a function that sorts a list of numbers.", "def sort(xs): return sorted(xs)"),
    ("what is  the capital of norway?", "The capital of Norway is Oslo."),
    ("Translate to French: good morning, everyone.", "Bonjour à tous."),
    ("What is the capital city of Norway?", "The capital of Norway is Oslo."),
]


def pairs_of(similarity: float) -> set[tuple[int, int]]:
    records = parse_records(jsonl([{"prompt": p, "response": r} for p, r in TEXTS]), "pool").records
    start, near = near_duplicates(records, similarity)
    assert start.dtype == np.int64
    assert len(start) == len(TEXTS) + 1
    return {(j, int(i)) for j in range(len(TEXTS)) for i in near[start[j] : start[j + 1]]}


def test_copies_up_to_case_and_space_are_found_at_once() -> None:
    assert pairs_of(1.0) == {(0, 2), (2, 0)}


def test_a_lower_similarity_takes_more_in() -> None:
    assert pairs_of(0.6) >= {(0, 2), (2, 0), (0, 4), (4, 0), (2, 4), (4, 2)}
    assert not any({1, 3} & set(pair) for pair in pairs_of(0.6))


def test_no_record_is_its_own_duplicate() -> None:
    assert all(j != i for j, i in pairs_of(0.0))


def test_one_record_alone() -> None:
    records = parse_records(json.dumps({"prompt": "a", "response": "b"}).encode(), "pool").records
    start, near = near_duplicates(records, 0.9)
    assert start.tolist() == [0, 0]
    assert len(near) == 0

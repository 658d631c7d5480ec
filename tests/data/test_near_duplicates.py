"""Near-duplicates by their texts."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from tiny_runs import jsonl

from delift_cli.data.near_duplicates import Found, Near, joined, near_copies, near_duplicates
from delift_cli.data.reading import parse_records
from delift_cli.data.record import Record

MODULE = sys.modules[Near.__module__]
TEXTS = [
    ("What is the capital of Norway?", "The capital of Norway is Oslo."),
    ("Write a function that sorts a list of numbers.", "def sort(xs): return sorted(xs)"),
    ("what is  the capital of norway?", "The capital of Norway is Oslo."),
    ("Translate to French: good morning, everyone.", "Bonjour à tous."),
    ("What is the capital city of Norway?", "The capital of Norway is Oslo."),
]


def read(texts: Sequence[tuple[str, str]]) -> Sequence[Record]:
    return parse_records(jsonl([{"prompt": p, "response": r} for p, r in texts]), "pool").records


def unpacked(found: Found, count: int) -> set[tuple[int, int]]:
    start, near = found.near
    assert (start.dtype, near.dtype) == (np.int64, np.int32)
    assert len(start) == count + 1
    return {(j, int(i)) for j in range(count) for i in near[start[j] : start[j + 1]]}


def pairs_of(similarity: float) -> set[tuple[int, int]]:
    return unpacked(near_duplicates(read(TEXTS), similarity), len(TEXTS))


def test_copies_up_to_case_and_space_are_found_at_once() -> None:
    assert pairs_of(1.0) == {(0, 2), (2, 0)}


def test_a_lower_similarity_takes_more_in() -> None:
    assert pairs_of(0.6) >= {(0, 2), (2, 0), (0, 4), (4, 0), (2, 4), (4, 2)}
    assert not any({1, 3} & set(pair) for pair in pairs_of(0.6))


def test_no_record_is_its_own_duplicate() -> None:
    assert all(j != i for j, i in pairs_of(0.0))


def test_one_record_alone() -> None:
    records = parse_records(json.dumps({"prompt": "a", "response": "b"}).encode(), "pool").records
    (start, near), cut = near_duplicates(records, 0.9)
    assert cut == 0
    assert start.tolist() == [0, 0]
    assert len(near) == 0


def questions(count: int) -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(500)]
    return [" ".join(rng.choices(words, k=15)) for _ in range(count)]


@pytest.mark.parametrize("labels", [["yes", "no"], ["yes"]])
def test_a_label_that_very_many_records_have_counts(labels: list[str]) -> None:
    asked = [(prompt, labels[n % len(labels)]) for n, prompt in enumerate(questions(300))]
    again = [(f"{prompt} so?", label) for prompt, label in asked[:9]]
    others = [(f"{prompt} so?", "perhaps") for prompt, _ in asked[20:25]]
    texts = [*asked, *again, *others]
    twins = {(n, 300 + n) for n in range(9)} | {(300 + n, n) for n in range(9)}
    assert unpacked(near_duplicates(read(texts), 0.9), len(texts)) == twins
    assert unpacked(near_copies(read(texts)), len(texts)) == twins


def test_of_a_large_cluster_every_pair_is_found() -> None:
    others = questions(100)
    texts = [(f"{others[0]} {n}", "Oslo, Bergen") for n in range(40)] + [(prompt, prompt) for prompt in others[1:]]
    everything = {(a, b) for a in range(40) for b in range(40) if a != b}
    assert unpacked(near_duplicates(read(texts), 0.8), len(texts)) == everything


def test_near_copies_have_one_answer_and_nearly_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    others = questions(40)
    passage = " ".join(others[-4:])
    texts = [
        (f"{passage} Who came first?", "Anna"),
        (f"{passage} Who came  last?", "Berta"),  # about the same passage, with another answer
        (others[0], "Anna"),  # the same answer to another question
        (f"{passage} Who came FIRST then?", " anna"),
        (others[1], "Nobody has it"),
        (f"{others[1]}?", "Nobody has it"),
        *((other, f"of its own: {n}") for n, other in enumerate(others[2:-4])),
    ]
    twins = {(0, 3), (3, 0), (4, 5), (5, 4)}
    assert unpacked(near_copies(read(texts)), len(texts)) == twins
    monkeypatch.setattr(sys.modules[near_copies.__module__], "TOGETHER", 1)  # each answer on its own
    assert unpacked(near_copies(read(texts)), len(texts)) == twins


def test_near_copies_of_nothing() -> None:
    assert near_copies([]).near.indptr.tolist() == [0]
    assert near_copies(read([("a", "b"), ("c", "d")])).near.indptr.tolist() == [0, 0, 0]


def test_of_many_copies_each_is_near_to_all_others() -> None:
    texts = [(f"Say hello to everybody in the room{' ' * (at % 5)}", "Hello everybody!") for at in range(1100)]
    for found in (near_copies(read(texts)), near_duplicates(read(texts), 0.9)):
        assert np.diff(found.near.indptr).tolist() == [1099] * 1100
        assert found.cut == 0


def test_of_too_many_copies_the_nearest_are_near_and_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "NEIGHBOURS", (2, 4))
    monkeypatch.setattr(MODULE, "PAIRS", 50)
    texts = [("Say hello to everybody in the room", "Hello everybody!")] * 10 + TEXTS
    found = near_copies(read(texts))
    assert found.cut == 10
    assert np.diff(found.near.indptr)[:10].tolist() == [5] * 10
    assert joined(found.near).tolist() == [0] * 10 + [10, 11, 10, 13, 14]
    monkeypatch.setattr(MODULE, "PAIRS", 100)
    assert near_copies(read(texts)).cut == 0


def test_what_is_joined_through_others() -> None:
    """Against a walk from record to record."""
    rng = random.Random(5)
    for n, count in ((1, 0), (40, 25), (60, 90), (200, 199)):
        chain = [(at, at + 1) for at in range(n - 1)] if count == n - 1 else []
        edges = chain or [(rng.randrange(n), rng.randrange(n)) for _ in range(count)]
        edges.sort()
        indptr = np.searchsorted([a for a, _ in edges], np.arange(n + 1)).astype(np.int64)
        found = joined(Near(indptr, np.array([b for _, b in edges], np.int32)))
        beside: dict[int, set[int]] = {at: set() for at in range(n)}
        for a, b in edges:
            beside[a].add(b)
            beside[b].add(a)
        for at in range(n):
            seen, waiting = {at}, [at]
            while waiting:
                new = beside[waiting.pop()] - seen
                seen |= new
                waiting += new
            assert found[at] == min(seen)

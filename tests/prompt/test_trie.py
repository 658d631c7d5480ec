"""Batches of a trie, run through a KV cache made of dictionaries: every token must see its own path, once."""

from __future__ import annotations

import numpy as np
import pytest

from delift_cli.prompt.trie import Batch, Int32, Int64, Sequences, Trie, batches, build_trie

Pair = tuple[list[int], list[int]]


def join(pairs: list[Pair]) -> Sequences:
    return Sequences.join([(np.array(context, np.int32), np.array(response, np.int32)) for context, response in pairs])


def random_pairs(rng: np.random.Generator, count: int, letters: int, longest: int) -> list[Pair]:
    """Pairs over a small alphabet; some repeat another's head, or all of it, or go on behind it."""
    pairs: list[Pair] = []
    for _ in range(count):
        whole = rng.integers(0, letters, rng.integers(2, longest + 1)).tolist()
        if pairs and rng.random() < 0.7:
            context, response = pairs[rng.integers(len(pairs))]
            other = context + response
            whole = other[: rng.integers(len(other) + 1)] + whole[: rng.integers(len(whole) + 1)]
            whole = [*whole, 0, 0][: max(2, len(whole))]
        cut = int(rng.integers(1, len(whole)))
        pairs.append((whole[:cut], whole[cut:]))
    return pairs


class Memory:
    """llama.cpp's KV cache as scoring uses it: for each sequence, position → the token there and what it saw."""

    def __init__(self) -> None:
        self.cells: dict[int, dict[int, tuple[int, ...]]] = {}

    def copy(self, source: int, destination: int, length: int) -> None:
        kept = {at: path for at, path in self.cells.get(source, {}).items() if length < 0 or at < length}
        self.cells[destination] = {**self.cells.get(destination, {}), **kept}

    def drop(self, sequence: int) -> None:
        self.cells.pop(sequence, None)

    def decode(self, batch: Batch) -> list[tuple[int, ...]]:
        """The path that each token of a batch sees, itself at the end.

        All tokens of a batch are stored first; then each sees the cells of its own first sequence at the
        positions before it.
        """
        for token, at, slot, slots in zip(batch.tokens, batch.positions, batch.slot, batch.slots, strict=True):
            for sequence in range(slot, slot + slots):
                cells = self.cells.setdefault(sequence, {})
                assert at not in cells, "two tokens at one place of a sequence"
                cells[at] = (int(token),)
        seen = []
        for at, slot, slots in zip(batch.positions, batch.slot, batch.slots, strict=True):
            paths = set()
            for sequence in range(slot, slot + slots):
                cells = self.cells[sequence]
                assert sorted(cells) == list(range(len(cells))), "positions of a sequence are not consecutive"
                paths.add(tuple(cells[before][-1] for before in range(at + 1)))
            assert len(paths) == 1, "the sequences of one token disagree about what precedes it"
            seen.append(paths.pop())
        return seen


def run(
    pairs: list[Pair], order: Int64, prefix: list[int], known: int, *, size: int, slots: int, cut: bool = False
) -> None:
    """Decode as scoring does, and check everything against the sequences."""
    head_slot, path_slot, first_slot = 0, 1, 2
    trie = build_trie(join(pairs), order)
    memory = Memory()
    memory.cells[head_slot] = {at: (token,) for at, token in enumerate(prefix[:known])}
    memory.copy(head_slot, path_slot, known)
    start = np.array(prefix, np.int32)

    decoded: list[tuple[int, ...]] = []
    answers: list[tuple[tuple[int, ...], int] | None] = [None] * len(trie.edge_token)
    for batch in batches(trie, start, known, size=size, first_slot=first_slot, slots=slots):
        branches = range(first_slot, first_slot + len(batch.kept))
        assert 1 <= len(batch.tokens) <= size
        assert len(batch.kept) <= slots
        assert batch.slot.min() == first_slot
        assert (batch.slot + batch.slots).max() == first_slot + len(batch.kept)
        for branch, kept in zip(branches, batch.kept.tolist(), strict=True):
            if kept:
                memory.copy(path_slot, branch, kept)
        seen = memory.decode(batch)
        decoded += seen
        rows = np.flatnonzero(batch.outputs)
        assert sorted(set(batch.edge_row.tolist())) == list(range(len(rows))), "a row of logits that nobody reads"
        assert (np.diff(batch.edge_row) >= 0).all()
        for edge, row in zip(range(*batch.edges.indices(len(answers))), batch.edge_row, strict=True):
            assert answers[edge] is None
            answers[edge] = seen[rows[row]], int(trie.edge_token[edge])
        memory.drop(path_slot)
        memory.copy(branches[-1], path_slot, -1)
        for branch in branches:
            memory.drop(branch)
    assert set(memory.cells) == {head_slot, path_slot}
    assert memory.cells[head_slot] == {at: (token,) for at, token in enumerate(prefix[:known])}

    chosen = [pairs[at] for at in order]
    needed = {tuple(prefix[:at]) for at in range(known + 1, len(prefix) + 1)}
    for context, response in chosen:
        whole = prefix + context + response
        needed |= {tuple(whole[:at]) for at in range(len(prefix) + 1, len(whole))}
    assert len(decoded) == len(set(decoded)), "a token was decoded twice"
    assert set(decoded) == needed

    assert len(set(answers)) == len(answers), "an answer was computed twice"
    for place, (context, response) in enumerate(chosen):
        edges = trie.response_edge[trie.response_bounds[place] : trie.response_bounds[place + 1]]
        assert len(edges) == len(response)
        for at, edge in enumerate(edges):
            assert answers[edge] == (tuple(prefix + context + response[:at]), response[at])


@pytest.mark.parametrize("seed", range(40))
def test_every_token_sees_its_own_path_and_is_decoded_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(12):
        pairs = random_pairs(rng, int(rng.integers(1, 30)), int(rng.integers(1, 5)), int(rng.integers(2, 12)))
        order = join(pairs).sorted_order()
        if rng.random() < 0.5:  # a part of the sequences, as when only some targets are missing
            order = order[np.sort(rng.permutation(len(order))[: rng.integers(1, len(order) + 1)])]
        prefix = rng.integers(0, 3, rng.integers(0, 14)).tolist()
        known = int(rng.integers(0, len(prefix))) if prefix else 0
        size = int(rng.choice([1, 2, 3, 5, 8, 13, 64]))
        run(pairs, order, prefix, known, size=size, slots=int(rng.integers(1, 6)))


@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("slots", [1, 2, 254])
def test_shapes_that_are_easily_wrong(size: int, slots: int) -> None:
    same: Pair = ([1, 2], [3, 4])
    cases: dict[str, list[Pair]] = {
        "one": [same],
        "equal ones": [same] * 5,
        "one token each": [([1], [2])],
        "one is the head of another": [same, ([1, 2, 3, 4, 5], [6]), ([1], [2])],
        "one's response is another's context": [([1, 2, 3], [4]), ([1], [2, 3, 4]), ([1, 2], [3, 4])],
        "nothing shared": [([at], [at + 50]) for at in range(40)],
        "all but the last shared": [([1, 2, 3], [at]) for at in range(40)],
        "a comb": [([1] * at, [2]) for at in range(1, 30)],
        "a long one": [([at % 7 for at in range(150)], [1] * 100), same],
    }
    for pairs in cases.values():
        for prefix, known in (([], 0), ([9], 0), ([9, 8, 7, 1, 2], 4), ([1] * 70, 3)):
            run(pairs, join(pairs).sorted_order(), prefix, known, size=size, slots=slots)


def test_join() -> None:
    sequences = join([([1, 2], [3]), ([4], [5, 6])])
    assert sequences.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert sequences.bounds.tolist() == [0, 3, 6]
    assert sequences.response.tolist() == [2, 1]
    empty = join([])
    assert empty.tokens.tolist() == []
    assert empty.bounds.tolist() == [0]
    assert empty.sorted_order().tolist() == []


def test_sorted_order_is_lexicographic_and_stable() -> None:
    rng = np.random.default_rng(1)
    values = [0, 1, 255, 256, 257, 65535, 65536, 49151, 2**31 - 1]  # where bytes of integers could mislead
    pairs = [(rng.choice(values, rng.integers(1, 4)).tolist(), rng.choice(values, 1).tolist()) for _ in range(300)]
    order = join(pairs).sorted_order().tolist()
    assert order == sorted(range(300), key=lambda at: pairs[at][0] + pairs[at][1])


def test_what_a_trie_holds() -> None:
    """Three sequences, drawn by hand: 1 2 [3 4], 1 2 [3 5], 1 [6]."""
    trie: Trie = build_trie(join([([1, 2], [3, 4]), ([1, 2], [3, 5]), ([1], [6])]), np.arange(3))
    assert trie.tokens.tolist() == [1, 2, 3]
    assert trie.depth.tolist() == [0, 1, 2]
    assert trie.branch.tolist() == [0, 0, 0]
    assert trie.attach.tolist() == [0]
    assert list(zip(trie.edge_source.tolist(), trie.edge_token.tolist(), strict=True)) == [
        (0, 6),
        (1, 3),
        (2, 4),
        (2, 5),
    ]
    assert trie.response_edge.tolist() == [1, 2, 1, 3, 0]
    assert trie.response_bounds.tolist() == [0, 2, 4, 5]
    tokens: Int32 = trie.tokens
    assert tokens.dtype == np.int32

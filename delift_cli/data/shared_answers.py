"""Records that are shown with another one's answer: its copies, and those that give unlike prompts one long answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .record import Record, copy_groups, plain

LONG = 30  # characters of an answer: many prompts share a shorter one, as labels are
ALIKE = 0.5  # share of their pieces that two prompts have in common which ask the same, or have one form
COMPARED = 64  # prompts of one answer
READ = 4_000  # characters of a prompt


def answer_groups(records: Sequence[Record], copies: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32]:
    """Label records that stand for each other's answers: int32 [n], for each the index of the first such record.

    Copies are (see `copy_groups`), and all records with a long answer that unlike prompts share (see
    `shared_answers`). Behind one of these a model repeats what stands in its context: that says nothing of what it
    would learn. `copies`: what `copy_groups` says of them, where it is known.
    """
    labels = copy_groups(records) if copies is None else copies.copy()
    first: dict[str, np.int32] = {}
    for place in np.flatnonzero(shared_answers(records) > 1).tolist():
        labels[place] = first.setdefault(plain(records[place].response), labels[place])
    return labels


def shared_answers(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    """int64 [n], to how many unlike prompts the record's answer is given, up to case and white space.

    0 for answers under `LONG` characters; of very many prompts of one answer the first `COMPARED` are looked at.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        answer = plain(record.response)
        if len(answer) >= LONG:
            places[answer].append(place)
    found = np.zeros(len(records), np.int64)
    found[[place for group in places.values() for place in group]] = 1
    for group in (group for group in places.values() if len(group) > 1):
        unlike: list[set[str]] = []
        for place in group[:COMPARED]:
            prompt = _grams(plain(records[place].prompt_text)[:READ])
            if all(_alike(prompt, other) < ALIKE for other in unlike):
                unlike.append(prompt)
        found[group] = len(unlike)
    return found


def _grams(text: str) -> set[str]:
    """Pieces of four characters: what words are in scripts that set no spaces between them too."""
    return {text[at : at + 4] for at in range(max(1, len(text) - 3))}


def _alike(one: set[str], other: set[str]) -> float:
    """Dice's coefficient. No piece counts for less because it is frequent, so that prompts of one form are alike."""
    return 2 * len(one & other) / (len(one) + len(other))

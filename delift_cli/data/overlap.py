"""Records that overlap a benchmark: the same prompt, or most of its word n-grams.

What counts is containment: the share of a benchmark text's word n-grams that a record has, which a longer record does
not dilute (Broder, "On the resemblance and containment of documents", 1997). N-grams of 8 to 13 words are what public
decontamination uses; 8 is the stricter end.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError
from .record import Record

WORDS = 8
_WORD = re.compile(r"\w+")


class Overlap(NamedTuple):
    """A record, by its place, and the benchmark record that it overlaps most.

    `share` is the containment, 1.0 where `exact`: the prompts are the same up to case, white space and punctuation.
    `part` says which text of the benchmark record it is, "prompt" or "response".
    """

    place: int
    other: int
    share: float
    part: str
    exact: bool


def overlaps(records: Sequence[Record], benchmark: Sequence[Record], least: float) -> list[Overlap]:
    """The records that hold at least this share of the prompt or of the response of a benchmark record.

    Texts of fewer than WORDS words have no n-grams: such a prompt counts where a record's prompt is the same, such a
    response does not. Takes some 0.1 ms a record.
    """
    exact: dict[tuple[str, ...], int] = {}
    owners: dict[int, list[tuple[int, str]]] = defaultdict(list)
    sizes: dict[tuple[int, str], int] = {}
    for other, record in enumerate(benchmark):
        asked = _words(_questions(record))
        if asked:
            exact.setdefault(tuple(asked), other)
        for part, words in (("prompt", asked), ("response", _words(record.response_text))):
            grams = _grams(words)
            if grams:
                sizes[other, part] = len(grams)
                for gram in grams:
                    owners[gram].append((other, part))
    found = []
    for place, record in enumerate(records):
        if (same := exact.get(tuple(_words(_questions(record))))) is not None:
            found.append(Overlap(place, same, 1.0, "prompt", True))
            continue
        counts: Counter[tuple[int, str]] = Counter()
        grams = set().union(*(_grams(_words(message.text)) for message in record.turns))
        for gram in grams:
            if gram in owners:
                counts.update(owners[gram])
        shares = ((count / sizes[key], -key[0], key) for key, count in counts.items())
        share, _, key = max(shares, default=(0.0, 0, (-1, "")))
        if counts and share >= least:
            found.append(Overlap(place, key[0], share, key[1], False))
    return found


def parse_not_like(text: str) -> tuple[str, float]:
    """`test.jsonl` or `test.jsonl:0.8`: the benchmark's source, and the least containment that counts (default 0.8)."""
    source, colon, share = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9.]+%?", share):
        return text, 0.8
    try:
        value = float(share.removesuffix("%")) / (100 if share.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not source or not 0 < value <= 1:
        raise InputError(f"--not-like {text}: give a file and a share of its n-grams, such as test.jsonl:0.8")
    return source, value


def _questions(record: Record) -> str:
    """What the user asks; of a text without a prompt, the text."""
    asked = [message.content for message in record.turns if message.role == "user"]
    return " ".join(asked) if asked else record.response_text


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _grams(words: list[str]) -> set[int]:
    return {hash(tuple(words[at : at + WORDS])) for at in range(len(words) - WORDS + 1)}

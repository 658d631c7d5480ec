"""What the model sees of a record, for a person to read: decoded from the very tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .conversation import Line
from .tokens import Speller, Tokens, byte_places


class Piece(NamedTuple):
    """Some of the text: does the template print it (or does it come from the record), is the model scored on it?"""

    text: str
    is_template: bool
    is_scored: bool


class View(NamedTuple):
    """The text in pieces; all of its tokens, and how many of them are scored."""

    pieces: list[Piece]
    tokens: int
    scored: int

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)


def view(tokens: Tokens, scored: npt.NDArray[np.bool_], line: Line, speller: Speller) -> View:
    """A line's tokens as text.

    Args:
        tokens: int32, of the line, with a beginning-of-sequence token in front of it where the model wants one.
        scored: bool, of the line's own tokens.
    """
    front = len(tokens) - len(scored)
    mask = np.concatenate([np.zeros(front, np.bool_), scored])
    places = speller.places(line.text, tokens[front : len(tokens) - line.ends])
    bounds = np.zeros(0, np.int64) if places is None else places[:-1]
    starts = np.full(len(tokens), -1, np.int64)
    starts[front : front + len(bounds)] = bounds
    from_record = _from_record(starts, line)
    pieces: list[Piece] = []
    for (template, marked), group in groupby(_kinds(tokens, from_record, mask), key=lambda kind: kind[1:]):
        data = b"".join(speller.vocabulary.piece(token) for token, *_ in group)
        pieces.append(Piece(data.decode("utf-8", "replace"), template, marked))
    return View(pieces, len(tokens), int(mask.sum()))


def _kinds(
    tokens: Tokens, from_record: npt.NDArray[np.bool_], scored: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, bool, bool]]:
    for token, own, marked in zip(tokens.tolist(), from_record.tolist(), scored.tolist(), strict=True):
        yield token, not own, marked


def _from_record(starts: npt.NDArray[np.int64], line: Line) -> npt.NDArray[np.bool_]:
    """bool [tokens]: does a token begin within a text of the record?"""
    lows = np.sort(byte_places(line.text, [span.start for span in line.spans]))
    highs = np.sort(byte_places(line.text, [span.stop for span in line.spans]))
    return np.searchsorted(lows, starts, side="right") > np.searchsorted(highs, starts, side="right")

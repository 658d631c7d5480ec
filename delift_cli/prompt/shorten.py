"""A record that is too long loses the middle of what is not scored, the longest turn first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..data.record import Message, Record
from ..errors import InputError

Encoded = TypeVar("Encoded")
Turns = tuple[Message, ...]

_LONGEST_TOKEN = 512  # characters; a text of more than so many for each token of a limit need not be tokenized


def shorten(
    record: Record,
    turns: Turns,
    encode: Callable[[Turns], Encoded],
    length: Callable[[Encoded], int],
    limit: int | None,
) -> Encoded:
    """`encode(turns)`, with the middle of turns that are not scored cut until its `length` is at most `limit`.

    Raises:
        InputError: it cannot be made to fit.
    """
    if limit is None:
        return encode(turns)
    if sum(len(turn.content) for turn in turns) <= limit * _LONGEST_TOKEN:
        encoded = encode(turns)
        if length(encoded) <= limit:
            return encoded
    open_to_cuts = [place for place, turn in enumerate(turns) if not turn.scored]
    shown = turns
    for place in sorted(open_to_cuts, key=lambda at: -len(turns[at].content)):
        shortest = _cut(shown, place, 0)
        encoded = encode(shortest)
        if length(encoded) > limit:
            shown = shortest
            continue
        fits, too_long, step = 0, len(shown[place].content), max(1, limit)
        while fits + step < too_long:  # a text may be a million times longer than what is kept of it
            candidate = encode(_cut(shown, place, fits + step))
            if length(candidate) > limit:
                too_long = fits + step
                break
            fits, encoded, step = fits + step, candidate, 2 * step
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            candidate = encode(_cut(shown, place, middle))
            if length(candidate) <= limit:
                fits, encoded = middle, candidate
            else:
                too_long = middle
        return encoded
    needed = length(encode(shown))
    raise InputError(
        f"record {record.id} (line {record.line}) needs {needed:,} tokens even with its prompt cut, "
        f"{limit:,} are left for it; raise --ctx or leave it out"
    )


def _cut(turns: Turns, place: int, kept: int) -> Turns:
    """`turns` with `kept` characters of one of them, half from its head and half from its tail."""
    content = turns[place].content
    shorter = f"{content[: kept - kept // 2]} […] {content[len(content) - kept // 2 :]}"
    return (*turns[:place], turns[place]._replace(content=min(content, shorter, key=len)), *turns[place + 1 :])

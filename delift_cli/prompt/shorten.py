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
    order = sorted((at for at, turn in enumerate(turns) if not turn.scored), key=lambda at: -len(turns[at].content))

    def emptied(count: int) -> Turns:
        """`turns` with the first so many of `order` cut to nothing."""
        cut = set(order[:count])
        return tuple(_cut(turn, 0) if at in cut else turn for at, turn in enumerate(turns))

    # How many lose all that they say, the last of them but for what there is room for: a chat may have thousands.
    least, fitting = 0, None
    while least < len(order) and len(turns) <= limit:
        count = min(len(order), max(1, 2 * least)) if fitting is None else (least + fitting) // 2
        candidate = encode(emptied(count))
        if length(candidate) <= limit:
            fitting, encoded = count, candidate
        else:
            least = count
        if fitting is not None and fitting - least == 1:
            break
    if fitting is None:
        needed = f"{length(encode(emptied(len(order)))):,}" if len(turns) <= limit else f"more than {len(turns):,}"
        raise InputError(
            f"record {record.id} (line {record.line}) needs {needed} tokens even with its prompt cut, "
            f"{limit:,} are left for it; raise --ctx or leave it out"
        )
    place, shown = order[fitting - 1], emptied(fitting - 1)

    def cut(kept: int) -> Turns:
        return (*shown[:place], _cut(shown[place], kept), *shown[place + 1 :])

    fits, too_long, step = 0, len(shown[place].content), max(1, limit)
    while fits + step < too_long:  # a text may be a million times longer than what is kept of it
        candidate = encode(cut(fits + step))
        if length(candidate) > limit:
            too_long = fits + step
            break
        fits, encoded, step = fits + step, candidate, 2 * step
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        candidate = encode(cut(middle))
        if length(candidate) <= limit:
            fits, encoded = middle, candidate
        else:
            too_long = middle
    return encoded


def _cut(turn: Message, kept: int) -> Message:
    """`turn` with `kept` characters, half from its head and half from its tail."""
    content = turn.content
    shorter = f"{content[: kept - kept // 2]} […] {content[len(content) - kept // 2 :]}"
    return turn._replace(content=min(content, shorter, key=len))

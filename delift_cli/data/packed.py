"""Many records in little memory: their bytes one behind the other, and a record made when it is asked for.

A Python object for each would take some 250 bytes beside its text; here it takes about 30.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

from .record import Interpret, Record, Rejected

Item = TypeVar("Item")

CHUNK = 1 << 20  # bytes
PLACE = 32  # bits of a place in a chunk
WITHIN = (1 << PLACE) - 1


class Places(Sequence[Item], ABC):
    """What is made when it is asked for, by its place."""

    @abstractmethod
    def _at(self, place: int) -> Item:
        """What stands at a place that there is, counted from the start."""

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        places = range(len(self))[at]  # IndexError where there is none
        return self._at(places) if isinstance(places, int) else list(map(self._at, places))

    def __iter__(self) -> Iterator[Item]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Pieces(Places[bytes]):
    """Byte strings in buffers of CHUNK bytes or a little more."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._chunks: list[bytes | bytearray] = [self._open]
        self._number = 0  # of the open chunk, where a start has it
        # of each piece the number of its chunk, and where it starts there
        self._starts = array("q")

    def append(self, piece: bytes) -> None:
        chunk = self._open
        at = len(chunk)
        if at >= CHUNK:
            self._chunks[-1] = bytes(chunk)  # nothing is added to it any more: it takes no more than it holds
            self._number = len(self._chunks) << PLACE
            self._open = chunk = bytearray()
            self._chunks.append(chunk)
            at = 0
        self._starts.append(self._number | at)
        chunk += piece

    def __len__(self) -> int:
        return len(self._starts)

    def _at(self, place: int) -> bytes:
        starts = self._starts
        start = starts[place]
        chunk = start >> PLACE
        end = starts[place + 1] if place + 1 < len(starts) else -1
        stop = end & WITHIN if end >> PLACE == chunk else None
        return bytes(self._chunks[chunk][start & WITHIN : stop])


class Texts(Places[str]):
    """Texts in one buffer."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def _at(self, place: int) -> str:
        return packed_text(self._pieces[place])


class Numbers(Places[str]):
    """Whole numbers as texts."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _at(self, place: int) -> str:
        return str(self._numbers[place])


def packed(text: str) -> bytes:
    """A text as a piece; JSON can hold halves of characters, which UTF-8 cannot."""
    return text.encode("utf-8", "surrogatepass")


def packed_text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogatepass")


class Records(Places[Record]):
    """Records that were read.

    Args:
        raws: of each its bytes.
        ids, lines: of each what `Record` says of them.
        interpret: finds the conversation in a record's bytes.
    """

    def __init__(self, raws: Pieces, ids: Sequence[str], lines: Sequence[int], interpret: Interpret) -> None:
        self._raws, self._ids, self._lines, self._interpret = raws, ids, lines, interpret

    def __len__(self) -> int:
        return len(self._raws)

    def _at(self, place: int) -> Record:
        return Record.of_row(self._ids[place], self._raws[place], self._lines[place], self._interpret)

    def __iter__(self) -> Iterator[Record]:
        of_row, interpret = Record.of_row, self._interpret
        for id_, raw, line in zip(self._ids, self._raws, self._lines, strict=True):
            yield of_row(id_, raw, line, interpret)

    def __repr__(self) -> str:
        return f"<{len(self):,} records>"


class Rejections(Places[Rejected]):
    """Records that were left out: the same few reasons, many times."""

    def __init__(self, rejected: Iterable[Rejected] = ()) -> None:
        self._lines = array("q")
        self._reasons: list[str] = []
        self._ids: dict[int, str] = {}
        for each in rejected:
            self.append(each)

    def append(self, rejected: Rejected) -> None:
        if rejected.id is not None:
            self._ids[len(self._lines)] = rejected.id
        self._lines.append(rejected.line)
        self._reasons.append(rejected.reason)

    def __len__(self) -> int:
        return len(self._lines)

    def _at(self, place: int) -> Rejected:
        return Rejected(self._lines[place], self._ids.get(place), self._reasons[place])

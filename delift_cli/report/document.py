"""What a report consists of, before it is a page: columns of figures over records, tables that show them, plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..data.record import Record
from .reach import Ends

Kind = Literal["id", "text", "count", "number", "signed", "share", "bar"]
Figures = Sequence[float | None] | Sequence[int] | npt.NDArray[Any]
DIGITS = 4  # of a figure that is shown


@dataclass(frozen=True)
class Column:
    """Values under a title; `about` says what they are. None where there is none."""

    key: str
    title: str
    kind: Kind
    values: Sequence[object]
    about: str = ""

    @classmethod
    def figures(
        cls, key: str, title: str, kind: Kind, values: Figures, about: str = "", *, digits: int = DIGITS
    ) -> Column:
        """A column of numbers, rounded to significant digits; NaN and infinities become None."""
        array = np.asarray([np.nan if value is None else value for value in values])
        if array.dtype.kind in "iub":
            return cls(key, title, kind, array.tolist(), about)
        return cls(key, title, kind, rounded(array, digits), about)


@dataclass(frozen=True)
class RecordColumns:
    """Records of one role with what is known of each; `ends` are pairs of theirs with records of the set `with_`."""

    name: str
    records: Sequence[Record]
    columns: Mapping[str, Column]
    ends: Sequence[Pairs] = ()


@dataclass(frozen=True)
class Pairs:
    """Of each record some of its pairs: a title, the set that the others are in, and which they are."""

    title: str
    with_: str
    ends: Ends


@dataclass(frozen=True)
class Table:
    """Rows of a set of records (`of`), or rows of their own.

    Attributes:
        rows: which records; None: `columns` alone say everything.
        keys, after: the set's columns that are shown before and behind its own.
        columns: those that only this table has, aligned with the rows. empty: what is said where there are none.
    """

    id: str
    title: str
    about: str
    of: str | None = None
    rows: npt.NDArray[np.int64] | None = None
    keys: Sequence[str] = ()
    columns: Sequence[Column] = ()
    empty: str = "none"
    after: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else len(self.columns[0].values) if self.columns else 0


@dataclass(frozen=True)
class Line:
    """A curve: a name and its points; `marks` are (x, y, word)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True)
class Plot:
    """Curves (`lines`) or a cloud of records (`places`, `x`, `y`, of the set `of`) that columns can colour; `equal`: a
    line is drawn where x = y."""

    id: str
    title: str
    about: str
    axes: tuple[str, str]
    lines: Sequence[Line] = ()
    of: str | None = None
    places: npt.NDArray[np.int64] | None = None
    x: Sequence[object] = ()
    y: Sequence[object] = ()
    colours: Sequence[str] = ()
    equal: bool = False


@dataclass(frozen=True)
class Tile:
    """A figure that matters, a few words on it, and the id of the element where there is more."""

    figure: str
    words: str
    to: str

    @classmethod
    def of(cls, number: int, thing: str, what: str, to: str) -> Tile:
        """How many things there are, and what of them."""
        return cls(f"{number:,}", f"{thing}{'' if number == 1 else 's'}{what}", to)


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    id: str
    title: str
    about: str = ""
    tiles: Sequence[Tile] = ()
    facts: Sequence[tuple[str, str]] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Document:
    """A report: what it is about, and its sections over sets of records."""

    title: str
    lead: str
    sections: Sequence[Section]
    sets: Mapping[str, RecordColumns] = field(default_factory=dict)


def rounded(values: npt.NDArray[Any], digits: int = DIGITS) -> list[float | None]:
    """Numbers with this many significant digits; None for what is none."""
    array = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(array)))
        scale = 10.0 ** (digits - 1 - np.where(np.isfinite(size), size, 0))
        short = np.where(np.isfinite(array), np.round(array * scale) / scale, np.nan)
    return [None if value != value else value for value in short.tolist()]

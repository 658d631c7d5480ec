"""CSV and TSV to rows: each a JSON object of texts under the names in the first line.

Quotes are CSV's (RFC 4180) and nothing else: read leniently, one that is not closed would swallow the rows behind it.
Of TSV, in which many write cells as they are, either may be meant.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from ..amount import counted
from ..errors import InputError
from .fields import Fault, row_text

DELIMITERS = {"csv": ",", "tsv": "\t", "csv;": ";", "csv|": "|"}  # by the form that a file of it has
LITERAL = "quotes are part of the text, since they do not enclose cells as in CSV"
_QUOTES = ("expected after", "unexpected end of data")  # what the library says of quotes
_ESCAPED = re.compile("[\udc80-\udcff]")
_HEADER = re.compile(rb'\s*"?[A-Za-z_][\w .-]*"?(?:[,;\t|]\s*"?[A-Za-z_][\w .-]*"?)+\s*')


class Separated(NamedTuple):
    """Which of DELIMITERS it is, the rows, and what there is to say of them once they are read."""

    form: str
    rows: Iterator[tuple[int, bytes]]
    said: Counter[str]


def separated(stream: IO[bytes], source: str, *, tabs: bool) -> Separated:
    """The line that each row starts on, and the row as JSON or a `Fault`. The delimiter is found in the first line,
    unless it is known to be a tab.

    Raises:
        InputError: names repeat or are not UTF-8, or the quotes do not close, so that there is no telling where rows
            end.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    first = text.readline()
    delimiter = "\t" if tabs else delimiter_of(first.encode(errors="replace"))
    form = next(form for form, mark in DELIMITERS.items() if mark == delimiter)
    said: Counter[str] = Counter()
    return Separated(form, _rows(_chain(first, text), source, delimiter, said), said)


def _rows(lines: Iterable[str], source: str, delimiter: str, said: Counter[str]) -> Iterator[tuple[int, bytes]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    number = 1
    literal = False
    try:
        if delimiter == "\t":
            lines = [*lines]
            literal = not _quoted(lines)
        reader = csv.reader(
            lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if literal else csv.QUOTE_MINIMAL, strict=True
        )
        header = _header(next(reader, []), source)
        number = reader.line_num + 1
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                if literal and any('"' in cell for cell in row):
                    said[LITERAL] += 1
                yield number, _row(header, row)
            number = reader.line_num + 1
    except csv.Error as error:
        if any(words in str(error) for words in _QUOTES):
            raise InputError(
                f"{source}:{number}: the quotes of this row do not close as they do in CSV ({error}); in a quoted cell "
                'a quote is written twice, "" and not \\"'
            ) from None
        raise InputError(f"{source}:{number}: not CSV: {error}") from None


def _quoted(lines: list[str]) -> bool:
    """Do the quotes of a TSV enclose cells, as those of CSV? Not where they do not close, nor where all they would do
    is to join lines that have all their cells each."""
    try:
        rows = sum(1 for row in csv.reader(lines, delimiter="\t", strict=True) if row)
    except csv.Error:
        return False
    widths = [len(row) for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    return rows == len(widths) or len({*widths}) > 1


def _header(names: list[str], source: str) -> list[str]:
    if not any(name.strip() for name in names):
        raise InputError(f"{source}: it is empty, or its first line does not name the columns")
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}:1: two columns have the name {twice!r}")
    if fault := _not_utf8(names):
        raise InputError(f"{source}:1: {fault}")
    return names


def _row(header: list[str], row: list[str]) -> bytes:
    if len(row) != len(header):
        return _fault(
            f"the row has {counted(len(row), 'cell')}, the first line names {counted(len(header), 'column')}; "
            "a cell with a delimiter or a line break in it must be in quotes"
        )
    try:
        return row_text(dict(zip(header, row, strict=True)))
    except TypeError:  # orjson takes no text that UTF-8 has no form for
        return _fault(_not_utf8(row))


def _fault(reason: str) -> Fault:
    return Fault(reason.encode())


def _not_utf8(cells: list[str]) -> str:
    """What is wrong with cells in which bytes that are not UTF-8 escaped as surrogates; empty where nothing is."""
    found = _ESCAPED.search("".join(cells))
    return f"not UTF-8: byte 0x{ord(found[0]) - 0xDC00:02x}" if found else ""


def delimiter_of(first: bytes) -> str:
    """The likeliest delimiter of a first line."""
    return max(DELIMITERS.values(), key=lambda mark: first.count(mark.encode()))


def looks_separated(first: bytes) -> str | None:
    """What a line that is no JSON is where it looks like the names of columns."""
    if not _HEADER.fullmatch(first.rstrip(b"\r\n")):
        return None
    names = [name.strip().strip('"') for name in first.decode("utf-8", "replace").split(delimiter_of(first))]
    kind = "TSV" if delimiter_of(first) == "\t" else "CSV"
    return f"{kind} with the columns {', '.join(names[:6])}"


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest

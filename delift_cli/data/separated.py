"""CSV and TSV to rows: each a JSON object of texts under the names in the first line."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from typing import IO

from ..errors import InputError
from .fields import row_text

_DELIMITERS = (",", "\t", ";", "|")
_HEADER = re.compile(rb'\s*"?[A-Za-z_][\w .-]*"?(?:[,;\t|]\s*"?[A-Za-z_][\w .-]*"?)+\s*')


def csv_rows(stream: IO[bytes], source: str, delimiter: str | None) -> Iterator[tuple[int, bytes]]:
    """The line that a row ends on, and the row as JSON. The delimiter is found in the first line where none is given.

    Raises:
        InputError: the text is not UTF-8, a row has more cells than there are names, or names repeat.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    number = 1
    try:
        first = text.readline()
        reader = csv.reader(_chain(first, text), delimiter=delimiter or delimiter_of(first.encode()))
        header = next(reader, [])
        if not any(name.strip() for name in header):
            raise InputError(f"{source}: it is empty, or its first line does not name the columns")
        if len({*header}) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise InputError(f"{source}:1: two columns have the name {twice!r}")
        number = reader.line_num + 1
        for row in reader:
            if row:
                if len(row) > len(header):
                    raise InputError(
                        f"{source}:{number}: the row has {len(row)} cells, the first line names {len(header)} columns; "
                        "a cell with a delimiter or a line break in it must be in quotes"
                    )
                cells = dict(zip(header, row, strict=False))
                yield number, row_text(cells)
            number = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(f"{source}:{number}: not UTF-8: byte 0x{error.object[error.start]:02x}") from None
    except csv.Error as error:
        raise InputError(f"{source}:{number}: not CSV: {error}") from None


def delimiter_of(first: bytes) -> str:
    """The likeliest delimiter of a first line."""
    return max(_DELIMITERS, key=lambda mark: (first.count(mark.encode()), -_DELIMITERS.index(mark)))


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

"""Records out in the container that they came in: lines, an array, CSV, Parquet or Arrow.

A table keeps its schema where its file is still there and its rows are the ones that were read; else the types are
found in the rows again, and that is said.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from ..amount import counted
from ..errors import InputError
from . import tables
from .containers import content
from .fields import BYTES, holds_bytes
from .folders import files_of, kind_of
from .record import Record
from .separated import DELIMITERS
from .tables import TABLES

FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "array",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


def form_of(destination: Path | None, form: str) -> str:
    """The form of an output: that of its name where it says one, else the one that came in.

    A `.json` may have lines as well, a `.csv` the delimiter that came in; not so a tab, whose files end in `.tsv`.
    """
    asked = None if destination is None else FORMS.get(kind_of(destination.name))
    if asked is None or (asked, form) in (("array", "jsonl"), ("csv", "csv;"), ("csv", "csv|")):
        return form
    return asked


def ending_of(form: str) -> str:
    """How the name of a file in this form ends, for `form_of` and for who reads it: CSV is known by its name alone."""
    return next(ending for ending, known in FORMS.items() if known == form.rstrip(";|"))


def packed(data: bytes, destination: Path) -> bytes:
    """A file's content, compressed where its name says that it is; InputError where zstandard is not installed."""
    name = destination.name.lower()
    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    if name.endswith(".zst"):
        try:
            import zstandard
        except ImportError:
            raise InputError(
                f'{destination}: to compress with zstd: pip install "delift-cli[data]"; or give a name without .zst'
            ) from None
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def written(
    lines: Sequence[bytes],
    form: str,
    *,
    records: Sequence[Record] = (),
    came: str = "",
    source: str = "",
    folders: Sequence[Path] = (Path(),),
    added: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> tuple[bytes, str]:
    """A file of these records, and what there is to say of it.

    Args:
        lines: the JSON text of each record.
        records: the records themselves, for a table that is to keep its schema. came, source: the form that they came
            in and the files that they were read from, as in RecordSet. folders: where these are looked for.
        added: fields that the lines have and the records lack, by name, with a value for each.

    Raises:
        InputError: records that are no objects cannot be rows of a table; pyarrow is not installed.
    """
    table, said = None, []
    if form in TABLES and came in TABLES:
        arrow = tables.library(source)
        places = dict.fromkeys(tuple(str(folder / name) for name in source.split(", ")) for folder in folders)
        tried = (_from_source(arrow, records, names, added) for names in places)
        table = next((one for one in tried if one is not None), None)
        if table is None:
            said.append(
                f"{source} is not what was read (any more), or not there: the types of the columns are found in the "
                "rows again"
            )
    if table is None and (binary := sum(map(holds_bytes, lines))):
        said.append(f'{counted(binary, "record")} with bytes that are no text, which are written as {{"{BYTES}": …}}')
    return _content(lines, form, table), "; ".join(said)


def _content(lines: Sequence[bytes], form: str, table: Any) -> bytes:
    if form == "array":
        return b"[\n" + b",\n".join(lines) + b"\n]\n"
    if form in DELIMITERS:
        return _separated(_rows(lines, form), DELIMITERS[form])
    if form in TABLES:
        arrow = tables.library(form)
        return _serialized(arrow, _from_rows(arrow, _rows(lines, form)) if table is None else table, form)
    return b"".join(line + b"\n" for line in lines)


def _rows(lines: Sequence[bytes], form: str) -> list[dict[str, Any]]:
    rows = [orjson.loads(line) for line in lines]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"records that are lists of turns cannot be rows of {form}; write them as .jsonl")
    return rows


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values under each name that any of the rows has; null where one lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _separated(rows: Sequence[Mapping[str, Any]], delimiter: str) -> bytes:
    columns = _columns(rows)
    out = _Lines()
    if not columns:  # no record, no name of a column: a file with nothing in it, not an empty line
        return b""
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in zip(*columns.values(), strict=True))
    return "".join(out).encode()


class _Lines(list[str]):
    """Takes rows and ends each with a line feed alone. The writer is to end them with both characters: it puts into
    quotes only those cells that have a character of a row's end in them, and readers take either for one."""

    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _from_rows(arrow: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    try:
        return arrow.table(_columns(rows))
    except (arrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"the records do not go into one table ({cause}); write them as .jsonl") from None


def _serialized(arrow: Any, table: Any, form: str) -> bytes:
    sink = arrow.BufferOutputStream()
    if form == "parquet":
        arrow.parquet.write_table(table, sink)
    else:
        with arrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_source(
    arrow: Any, records: Sequence[Record], names: Sequence[str], added: Mapping[str, Sequence[Any]]
) -> Any:
    """The rows out of the tables that they were read from, with more columns; None where those do not have them (any
    more)."""
    wanted: dict[tuple[int, bytes], list[int]] = {}
    for place, record in enumerate(records):
        wanted.setdefault((record.line, record.raw), []).append(place)
    parts: list[Any] = []
    order: list[int] = []
    try:
        for name in names:
            for path, called in files_of(name):
                data = content(path, called)
                kind = tables.kind_of(data[:8])
                if kind is None:
                    return None
                rows = []
                for place, raw in tables.table_rows(data, kind, called):
                    if left := wanted.get((place, raw)):
                        order.append(left.pop(0))
                        rows.append(place - 1)
                parts.append(tables.read_table(data, kind, called).take(rows))
        if len(order) < len(records):
            return None
        table = arrow.concat_tables(parts).take(sorted(range(len(order)), key=order.__getitem__))
    except (OSError, InputError, arrow.ArrowException):
        return None
    for name, values in added.items():  # in the place of one of an earlier selection
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, arrow.array(values))
    return table

"""Records out in the container that they came in: lines, an array, CSV, Parquet or Arrow.

A table keeps its schema where its file is still there and its rows are the ones that were read; else the types are
found in the rows again, and that is said.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from . import tables
from .folders import files_of, kind_of
from .record import Record
from .separated import delimiter_of

FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "array",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
TABLES = ("parquet", "arrow")


def form_of(destination: Path | None, form: str) -> str:
    """The form of an output: that of its name where it says one, else the one that came in."""
    asked = None if destination is None else FORMS.get(kind_of(destination.name))
    if asked is None or (asked == "array" and form in ("array", "jsonl")) or (asked == form):
        return form
    return asked


def written(
    lines: Sequence[bytes], form: str, *, records: Sequence[Record] = (), source: str = ""
) -> tuple[bytes, str]:
    """A file of these records, and what there is to say of it.

    Args:
        lines: the JSON text of each record; for a table that is to keep its schema, with no field added.
        records: the records themselves, for a table that is to keep its schema. source: the files that they were read
            from, as in RecordSet.

    Raises:
        InputError: records that are no objects cannot be rows of a table; pyarrow is not installed.
    """
    if form == "array":
        return b"[\n" + b",\n".join(lines) + b"\n]\n", ""
    if form in ("csv", "tsv"):
        return _separated(lines, source, form), ""
    if form in TABLES:
        return _table(lines, form, records, source)
    return b"".join(line + b"\n" for line in lines), ""


def _rows(lines: Sequence[bytes], form: str) -> list[dict[str, Any]]:
    rows = [orjson.loads(line) for line in lines]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"records that are lists of turns cannot be rows of {form}; write them as .jsonl")
    return rows


def _separated(lines: Sequence[bytes], source: str, form: str) -> bytes:
    rows = _rows(lines, form)
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter="\t" if form == "tsv" else _delimiter(source), lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue().encode()


def _delimiter(source: str) -> str:
    """The delimiter of a file that is still there; a comma otherwise."""
    if kind_of(source) == ".tsv":
        return "\t"
    try:
        with open(source, "rb") as file:
            return delimiter_of(file.readline()) if kind_of(source) == ".csv" else ","
    except OSError:
        return ","


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _table(lines: Sequence[bytes], form: str, records: Sequence[Record], source: str) -> tuple[bytes, str]:
    arrow = tables.library(source or form)
    said = ""
    table = None
    if records:
        table = _from_source(arrow, records, source)
        if table is None:
            said = f"{source} is no longer what was read: the types of the columns are found in the rows again"
    if table is None:
        try:
            table = arrow.Table.from_pylist(_rows(lines, form))
        except (arrow.ArrowException, TypeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise InputError(f"the records do not go into one table ({cause}); write them as .jsonl") from None
    sink = arrow.BufferOutputStream()
    if form == "parquet":
        arrow.parquet.write_table(table, sink)
    else:
        with arrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes(), said


def _from_source(arrow: Any, records: Sequence[Record], source: str) -> Any:
    """The rows out of the tables that they were read from; None where those do not have them (any more)."""
    wanted: dict[bytes, list[int]] = {}
    for place, record in enumerate(records):
        wanted.setdefault(record.raw, []).append(place)
    parts: list[Any] = []
    order: list[int] = []
    try:
        for name in source.split(", "):
            for path, called in files_of(name):
                data = path.read_bytes()
                kind = tables.kind_of(data[:8])
                if kind is None:
                    return None
                rows = []
                for place, raw in tables.table_rows(data, kind, called):
                    if left := wanted.get(raw):
                        order.append(left.pop(0))
                        rows.append(place - 1)
                parts.append(tables.read_table(data, kind, called).take(rows))
        if len(order) < len(records):
            return None
        return arrow.concat_tables(parts).take(sorted(range(len(order)), key=order.__getitem__))
    except (OSError, InputError, arrow.ArrowException):
        return None

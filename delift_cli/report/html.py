"""A document as one HTML file that needs nothing else: no network, no other file, no code but its own.

Figures and texts are JSON, gzipped, inside the page; texts lie in parts of their own that are unpacked when a record is
opened. The first rows of each table stand in the page as plain HTML, for readers without JavaScript. A content security
policy names the page's own scripts and styles by their hashes and allows nothing else, so that no text from a record
can run. The same document gives the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import orjson

from ..data.record import Record
from ..errors import InputError
from ..visible import visible
from .document import Column, Document, Plot, RecordColumns, Table

SCRIPTS = ("data.js", "dialog.js", "tables.js", "plots.js", "start.js")
STATIC_ROWS = 10  # of each table, in the page itself
PART = 1_000  # records whose texts are packed together
# Bytes of text that are kept of a record: as much as the page has room for, which is first tried with ALL_TEXT in all.
MOST_TEXT, LEAST_TEXT, ALL_TEXT = 20_000, 200, 22_000_000
ROOM, ROOM_EACH = 3_000_000, 320  # bytes of a page and of each record in it: 4.6 MB of 5,000 records, 19 MB of 50,000


def render(document: Document) -> bytes:
    """The page in UTF-8.

    Raises:
        InputError: the drawing library is not installed.
    """
    library, library_style = drawing_library()
    styles = [library_style, _own("style.css")]
    scripts = [library, "(() => {\n" + "\n".join(map(_own, SCRIPTS)) + "\n})();"]
    tables = [table for section in document.sections for table in section.tables]
    blocks = dict(_blocks(document, tables))
    page = _environment().get_template("page.html")
    return page.render(
        document=document,
        styles=styles,
        scripts=scripts,
        policy=_policy(styles, scripts),
        blocks=blocks,
        columns_of=lambda table: columns_of(document, table),
        class_of=class_of,
        static_rows=lambda table: static_rows(document, table),
        rows=STATIC_ROWS,
    ).encode("utf-8", "backslashreplace")


def drawing_library() -> tuple[str, str]:
    """uPlot's script and style (MIT, Leon Sorokin) out of the package uplot-python; InputError where it is missing."""
    found = find_spec("uplot")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "static"
        if (folder / "uPlot.iife.js").exists():
            return (folder / "uPlot.iife.js").read_text("utf-8"), (folder / "uPlot.min.css").read_text("utf-8")
    raise InputError(
        "a report is drawn with uPlot, which is not installed; install it: pip install 'delift-cli[report]'"
    )


def columns_of(document: Document, table: Table) -> list[Column]:
    """What a table shows, from left to right: columns of its records that there are, and its own among them."""
    known = document.sets[table.of].columns if table.of else {}
    before, after = ([known[key] for key in keys if key in known] for keys in (table.keys, table.after))
    return [*before, *table.columns, *after]


def class_of(column: Column) -> str:
    """The class of its cells: texts of records are long and share the room that is left."""
    return "text said" if column.key in ("prompt", "response") else column.kind


def static_rows(document: Document, table: Table) -> list[list[str]]:
    """The first rows as text, as the page's own script would write them."""
    count = min(STATIC_ROWS, len(table))
    places = range(count) if table.rows is None else table.rows[:count].tolist()
    known = document.sets[table.of].columns if table.of else {}
    cells = []
    for column in columns_of(document, table):
        at = places if known.get(column.key) is column else range(count)
        cells.append([cell(column.kind, column.values[place]) for place in at])
    return [list(row) for row in zip(*cells, strict=True)]


def cell(kind: str, value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if kind in ("share", "bar"):
        return f"{value:.1%}"
    if kind == "signed":
        return f"{value:+.4g}"
    if kind in ("count", "number"):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return visible(str(value), lines=True)


def _blocks(document: Document, tables: Sequence[Table]) -> Iterator[tuple[str, str]]:
    """Packed data by the id of the element that holds it."""
    sets = {
        name: {
            "count": len(found.records),
            "part": PART,
            "columns": [_column(column) for column in found.columns.values()],
            "ends": [{"title": pairs.title, "with": pairs.with_} for pairs in found.ends],
        }
        for name, found in document.sets.items()
    }
    shown = [
        {
            "id": table.id,
            "of": table.of,
            "rows": _runs(table),
            "keys": list(table.keys),
            "after": list(table.after),
            "columns": [_column(column) for column in table.columns],
        }
        for table in tables
    ]
    plots = [_plot(plot) for section in document.sections for plot in section.plots]
    data = pack({"sets": sets, "tables": shown, "plots": plots})
    yield "data", data
    yield from _parts(document, len(data)).items()


def _parts(document: Document, taken: int) -> dict[str, str]:
    """Texts and pairs of all records, texts cut so far that the page keeps its size; `taken` bytes of it are spent."""
    total = sum(len(found.records) for found in document.sets.values())
    room = ROOM + ROOM_EACH * total - taken
    most = max(LEAST_TEXT, min(MOST_TEXT, ALL_TEXT // max(1, total)))
    while True:
        parts = {
            f"{name}-{start // PART}": pack(_part(found, start, most))
            for name, found in document.sets.items()
            for start in range(0, len(found.records), PART)
        }
        size = sum(map(len, parts.values()))
        if size <= room or most <= LEAST_TEXT:
            return parts
        most = max(LEAST_TEXT, min(int(0.95 * most * room / size), most - 1))


def _column(column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "title": visible(column.title),
        "kind": column.kind,
        "about": column.about,
        "values": list(map(visible, map(str, column.values))) if column.kind == "text" else column.values,
    }


def _runs(table: Table) -> list[int] | int | None:
    """Which rows; a number where they are simply the first so many."""
    if table.rows is None:
        return None
    if len(table.rows) and (table.rows == np.arange(len(table.rows))).all():
        return len(table.rows)
    return [int(place) for place in table.rows]


def _plot(plot: Plot) -> dict[str, Any]:
    found: dict[str, Any] = {"id": plot.id, "axes": plot.axes, "of": plot.of}
    if plot.of is None:
        return {**found, "lines": [{**vars(line), "name": visible(line.name)} for line in plot.lines]}
    assert plot.places is not None
    return {
        **found,
        "places": plot.places.tolist(),
        "x": plot.x,
        "y": plot.y,
        "colours": plot.colours,
        "equal": plot.equal,
    }


def _part(found: RecordColumns, start: int, most: int) -> dict[str, Any]:
    """Texts and pairs of up to PART records."""
    stop = start + PART
    ends = [
        {
            "other": pairs.ends.other[start:stop].tolist(),
            "utility": [
                [None if v != v else round(v, 4) for v in row] for row in pairs.ends.utility[start:stop].tolist()
            ],
        }
        for pairs in found.ends
    ]
    return {"turns": [_turns(record, most) for record in found.records[start:stop]], "ends": ends}


def _turns(record: Record, most: int) -> list[list[str]]:
    """Roles and texts, the response first in line for the room that there is."""
    turns = [(turn.role, visible(turn.content, lines=True)) for turn in record.turns]
    left = most
    shown = []
    for place, (role, text) in enumerate(reversed(turns)):
        room = max(most // 4, left // 2) if place == 0 else max(0, left)
        short = text.encode("utf-8")[:room].decode("utf-8", "ignore")
        left -= len(short.encode("utf-8"))
        more = len(text) - len(short)
        shown.append([role, short + (f"… ({more:,} more characters)" if more else "")])
    return shown[::-1]


def pack(data: object) -> str:
    """JSON, gzipped, in base64."""
    return base64.b64encode(gzip.compress(orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY), 6, mtime=0)).decode()


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    def named(texts: Sequence[str]) -> str:
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {named(scripts)}; style-src {named(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _own(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text("utf-8")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_own),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=_finalize,
    )


def _finalize(value: object) -> object:
    """Names of files and fields come from outside as records do; what is marked as safe is the page's own."""
    return visible(value, lines=True) if type(value) is str else value

"""Value and gain against the number of records: what `--curve` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import orjson

from ..submodular.select import Selection


def curve_rows(selection: Selection, ids: Sequence[str], whole: float) -> list[dict[str, object]]:
    """One row for each selected record: k, id, gain, value, share of the whole pool's value."""
    return [
        {
            "k": k,
            "id": ids[index],
            "gain": float(gain),
            "value": float(value),
            "share": float(value / whole) if whole > 0 else None,
        }
        for k, (index, gain, value) in enumerate(
            zip(selection.indices.tolist(), selection.gains, selection.curve, strict=True), start=1
        )
    ]


def render_curve(rows: Sequence[dict[str, object]], form: str) -> bytes:
    """The rows as `json` or `csv`."""
    if form == "json":
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, ("k", "id", "gain", "value", "share"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

"""A record's fields: found by name, its id among them, and how messages speak of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from .record import Record

ID_FIELDS = ("id", "uid", "uuid", "_id", "example_id", "record_id")
ABSENT = object()  # what a field is that is not there


class RecordError(Exception):
    """What is wrong with one record; the message is the reason that the user reads."""


def record_field(record: Record, name: str) -> str | None:
    """Any field of the record as it came in, as text ("task", or "meta.source" for a nested one).

    Numbers and truth values give their JSON text, a field that is absent, null, a list or an object gives
    None.
    """
    value = lookup(orjson.loads(record.raw), name)
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, int | float) else None


def lookup(fields: Any, name: str) -> object:
    """The value of a field that may be nested, or ABSENT; a field whose name has the dots goes first."""
    if isinstance(fields, dict) and name in fields:
        return fields[name]
    value = fields
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def first_present(fields: dict[str, Any], names: Sequence[str]) -> str | None:
    """The first of these names whose field is there and not null."""
    return next((name for name in names if fields.get(name) is not None), None)


def own_id(fields: dict[str, Any]) -> str | None:
    """The id that a record brings, on one line."""
    for value in map(fields.get, ID_FIELDS):
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            # Ids are printed one a line.
            text = " ".join(str(value).splitlines()).strip()
            if text:
                return text
    return None


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def quoted(name: str) -> str:
    """A name out of the data, fit for a one-line message."""
    return json.dumps(name if len(name) <= 40 else name[:39] + "…", ensure_ascii=False)


def listing(fields: dict[str, Any]) -> str:
    """The names of the fields that there are, for messages."""
    names = [quoted(name) for name in fields]
    rest = [f"{len(names) - 12} more"] if len(names) > 12 else []
    return f"its fields are {', '.join(names[:12] + rest)}" if names else "it has no fields"

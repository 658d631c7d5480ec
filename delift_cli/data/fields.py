"""A record's fields: found by name, as text, and how messages speak of them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from .record import Record

ABSENT = object()  # what a field is that is not there
BYTES = "bytes in base64"  # the one key of the object that stands for bytes that are no text
_BYTES = b'{"%s":' % BYTES.encode()
_DEEPEST = 8  # lists and objects in each other that may be nothing but nulls
BLANK: tuple[object, ...] = (None, "", [], {})


class RecordError(Exception):
    """What is wrong with one record; the message is the reason that the user reads."""


class UnknownLayoutError(RecordError):
    """None of the record's fields has a meaning that is known."""


class Fault(bytes):
    """In the place of a row's text: what is wrong with the row."""


class _Literal(str):
    """A number as it stands in its source."""


def row_text(row: Any, other: Callable[[Any], Any] | None = None) -> bytes:
    """A table's row as JSON; `other`: what JSON has no form for. It is a copy, since what orjson gives lies in a larger
    piece of memory, most of which it would hold on to for as long as the record is there."""
    return bytes(memoryview(orjson.dumps(row, default=other)))


def holds_bytes(raw: bytes) -> bool:
    """Are there bytes that are no text in a table's row? No text looks so: its quotes are escaped."""
    return _BYTES in raw


def with_bytes(fields: Any) -> list[str]:
    """The names of a record's fields that have bytes in them that are no text."""
    named = fields.items() if isinstance(fields, dict) else ()
    return [name for name, value in named if holds_bytes(orjson.dumps(value))]


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


def literal(raw: bytes, name: str, value: bool | int | float) -> str:
    """A number or truth value as it stands in the record's source: 1.10 stays 1.10, whatever its size."""
    if isinstance(value, bool):
        return as_text(value)
    try:
        again = json.loads(raw, parse_int=_Literal, parse_float=_Literal)
    except (ValueError, RecursionError):
        return as_text(value)
    found = lookup(again, name)
    return str(found) if isinstance(found, _Literal) else as_text(value)


def as_text(value: bool | int | float) -> str:
    """The JSON text of a number or truth value."""
    return orjson.dumps(value).decode()


def as_list(text: str, field: str) -> Any:
    """The value of a JSON text (or of a Python list's, as pandas writes it into CSV)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return python_value(text.strip())
        except ValueError:
            raise RecordError(f"{field} is a text that is not JSON: {error.msg}") from None


def python_value(text: str) -> Any:
    """The value of a Python literal. Raises ValueError where there is none that JSON could have: no sets, no bytes."""
    try:
        value = ast.literal_eval(text)
        if _is_json(value):
            return value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise ValueError("no Python literal that JSON could have")


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | bool | int | float)


def not_json(raw: bytes, error: Exception, *, columns: bool = True) -> str:
    """Why a source text is no JSON, in words; `columns`: is it as it stands in the file?"""
    position = getattr(error, "colno", 0)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        where = f" (column {len(raw[: bad.start].decode()) + 1})" if columns else ""
        return f"not UTF-8: byte 0x{raw[bad.start]:02x}{where}"
    where = f" (column {position})" if columns else ""
    start = max(position - 1, 0)
    for word in ("-Infinity", "NaN", "Infinity"):
        if text.startswith(word, start - (word[0] == "-")):
            return f"not JSON: {word} is no JSON value{where}; write null in its place"
    return f"not JSON: {getattr(error, 'msg', error)}{where}"


def first_present(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these names whose field is there and not null."""
    return next((name for name in names if fields.get(name) is not None), None)


def blank(value: object) -> bool:
    """Does a value say nothing?"""
    return value in BLANK or (isinstance(value, str) and value.isspace()) or null_filled(value)


def null_filled(value: object, depth: int = _DEEPEST) -> bool:
    """Is it a list or an object that has nothing but nulls in it, as a table has where other rows have values?"""
    if not isinstance(value, list | dict) or not depth:
        return False
    inner = value.values() if isinstance(value, dict) else value
    return bool(value) and all(each is None or null_filled(each, depth - 1) for each in inner)


def without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, null where they have nothing but nulls in them."""
    return {name: None if null_filled(value) else value for name, value in fields.items()}


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def quoted(name: str) -> str:
    """A name out of the data, fit for a one-line message."""
    return json.dumps(name if len(name) <= 40 else name[:39] + "…", ensure_ascii=False)


def listing(fields: Mapping[str, Any]) -> str:
    """The names of the fields that there are, for messages."""
    names = [quoted(name) for name in islice(fields, 12)]
    rest = [f"{len(fields) - 12} more"] if len(fields) > 12 else []
    return f"its fields are {', '.join(names + rest)}" if names else "it has no fields"

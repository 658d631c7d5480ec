"""A JSON array to the source texts of its elements; and the array that stands in an object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import InputError
from .chats import opens_chat
from .fields import quoted

MOST_FIELDS = 100_000  # of an object that is looked through
_WHITE = " \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_BREAK = re.compile(r"[\r\n][ \t\r\n]*")
# The values are not kept: only where they end counts, so that numbers may have any number of digits.
_decode = json.JSONDecoder(parse_int=bool, parse_float=bool).raw_decode
# What a value's end is found by, without making it.
_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
# A byte a character: one emoji would make the text of a whole file four times as large.
_BYTES = "latin-1"


class NoListError(InputError):
    """There is no list of records in an object."""


def array_rows(data: bytes, source: str) -> Iterator[tuple[int, bytes]]:
    """Line number and source text, on one line, of each element of a JSON array.

    Bytes that are not UTF-8 pass through, so that only the element that holds them is refused.

    Raises:
        InputError: the array's own syntax is at fault: there is no telling where the next element would start.
    """
    text = data.decode(_BYTES)
    del data  # nobody else holds it
    yield from _elements(text, text.index("["), source, whole=True)


def first_element(data: bytes) -> Any:
    """The first element of an array, or None where there is none or it cannot be read."""
    text = data.decode(_BYTES)
    try:
        return _decode(text, _skip(text, text.index("[") + 1))[0]
    except (json.JSONDecodeError, RecursionError):
        return None


def list_in_object(data: bytes, source: str, key: str | None) -> tuple[str, Iterator[tuple[int, bytes]]]:
    """The list of objects in a JSON object: its key, and its rows as `array_rows` gives them.

    `key` ("data", or "splits.train") says which list; without it there has to be one alone.

    Raises:
        InputError: it is no JSON object, or there are several such lists. NoListError: there is none.
    """
    text = data.decode(_BYTES)
    at = _skip(text, 0)
    for part in key.split(".") if key else ():
        found = dict(_members(text, at, source))
        if part not in found:
            raise InputError(f"{source}: there is no {part!r} for --records {key}; there are {', '.join(found)}")
        at = found[part]
    if key is None:
        lists = {name: place for name, place in _members(text, at, source) if _starts_list_of_records(text, place)}
        if len(lists) > 1:
            raise InputError(
                f"{source}: one JSON object with several lists of objects: {', '.join(lists)}; "
                "say which with --records KEY"
            )
        if not lists:
            raise NoListError(f"{source}: one JSON object, which is no record and has no list of records in it")
        ((key, at),) = lists.items()
    elif text[at] != "[":
        raise InputError(f"{source}: --records {key} names something that is no list")
    return key, _elements(text, at, source, whole=False)


def check_object(data: bytes, source: str) -> None:
    """InputError where `data` is not one JSON object as a whole."""
    text = data.decode(_BYTES)
    for _ in _members(text, _skip(text, 0), source, whole=True):
        pass


def _elements(text: str, start: int, source: str, *, whole: bool) -> Iterator[tuple[int, bytes]]:
    line, counted = 1, 0
    at = _skip(text, start + 1)
    more = text[at : at + 1] != "]"
    try:
        while more:
            line, counted = line + text.count("\n", counted, at), at
            _, end = _decode(text, at)
            yield line, _one_line(text[at:end])
            at = _skip(text, end)
            more = text[at : at + 1] == ","
            if more:
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("a comma or the end of the array is missing", text, at)
        if whole and (at := _skip(text, at + 1)) != len(text):
            raise json.JSONDecodeError("something follows the end of the array", text, at)
    except json.JSONDecodeError as error:
        cause = error.msg if text[error.pos :].strip() else "the array breaks off"
        raise InputError(
            f"{source}:{error.lineno}: not JSON: {cause} (column {_column(error)}); "
            "an array cannot be read past a fault in its syntax, even with --skip-invalid"
        ) from None
    except RecursionError:
        raise InputError(f"{source}:{line}: the JSON is nested too deep to be read") from None


def _members(text: str, start: int, source: str, *, whole: bool = False) -> Iterator[tuple[str, int]]:
    """The keys of the object that starts at `start`, each with where its value starts."""
    try:
        if text[start : start + 1] != "{":
            raise json.JSONDecodeError("an object is expected", text, start)
        at = _skip(text, start + 1)
        count = 0
        while text[at : at + 1] != "}":
            count += 1
            if count > MOST_FIELDS:
                raise InputError(f"{source}: one JSON object of more than {MOST_FIELDS:,} fields, which is no record")
            name, end = _decode(text, at)
            key, at = text[at:end], _skip(text, end)
            if not isinstance(name, str) or text[at : at + 1] != ":":
                raise json.JSONDecodeError("a key and a colon are expected", text, at)
            at = _skip(text, at + 1)
            yield _text(key), at
            at = _skip(text, _end(text, at))
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "}":
                raise json.JSONDecodeError("a comma or the end of the object is missing", text, at)
        if whole and (at := _skip(text, at + 1)) != len(text):
            raise json.JSONDecodeError("something follows the end of the object", text, at)
    except json.JSONDecodeError as error:
        cause = error.msg if text[error.pos :].strip() else "the object breaks off"
        raise InputError(
            f"{source}:{error.lineno}: not JSON: {cause} (column {_column(error)}); records over several lines have to "
            f"be in one array, or each on a line of its own (jq -c . {quoted(source)})"
        ) from None
    except RecursionError:
        raise InputError(f"{source}: the JSON is nested too deep to be read") from None


def _end(text: str, at: int) -> int:
    """Where the value that starts at `at` ends; what is in a list or an object is not looked at."""
    opening = text[at : at + 1]
    if opening == '"' and (string := _PARTS.match(text, at)):
        return string.end()
    if opening not in ("[", "{"):
        return int(_decode(text, at)[1])
    depth = 0
    for part in _PARTS.finditer(text, at):
        opening = text[part.start()]
        if opening != '"':
            depth += 1 if opening in "[{" else -1
            if depth == 0:
                return part.end()
    raise json.JSONDecodeError("the value breaks off", text, len(text))


def _starts_list_of_records(text: str, at: int) -> bool:
    """Is there a list of objects or lists, which are not the turns of one chat?"""
    first = _skip(text, at + 1)
    if text[at : at + 1] != "[" or text[first : first + 1] not in ("{", "["):
        return False
    try:
        return not opens_chat(_decode(text, first)[0])
    except (json.JSONDecodeError, RecursionError):
        return True  # what is wrong will be said where it is read


def one_line(data: bytes) -> bytes:
    """A JSON text without its line breaks."""
    return _one_line(data.decode(_BYTES).lstrip(_WHITE))


def _one_line(text: str) -> bytes:
    # A line break is never inside a JSON string, so nothing that carries meaning changes here.
    return _LINE_BREAK.sub(" ", text.rstrip(_WHITE)).encode(_BYTES)


def _text(key: str) -> str:
    """What a key says, of its source text a byte a character."""
    return str(json.loads(key.encode(_BYTES).decode("utf-8", "surrogateescape")))


def _column(error: json.JSONDecodeError) -> int:
    """Where in its line, in characters."""
    line = error.doc[error.doc.rfind("\n", 0, error.pos) + 1 : error.pos]
    return len(line.encode(_BYTES).decode("utf-8", "replace")) + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at

"""Records in: from a file's bytes to the source text of each record, and to what is in it.

A source is JSONL or one JSON array, plain or gzipped, in UTF-8 with or without a byte-order mark. What the fields of
a record mean is for `layouts` to say.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from .fields import RecordError, kind, own_id
from .layouts import read_pair
from .record import Message, Record, RecordSet, Rejected

_FOREIGN = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"GGUF": "a GGUF model",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_ACCEPTED = "delift reads one JSON record a line or one JSON array of records, in UTF-8, plain or gzipped"
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_BREAK = re.compile(r"[\r\n][ \t\r\n]*")


def read_records(
    source: str | Path,
    *,
    prompt_field: str | None = None,
    response_field: str | None = None,
    skip_invalid: bool = False,
) -> RecordSet:
    """Read the records of a file, or of standard input when `source` is "-".

    Options and errors are those of `parse_records`; a file that cannot be read raises InputError too.
    """
    name = str(source)
    if name == "-":
        data, name = sys.stdin.buffer.read(), "<stdin>"
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None
    return parse_records(
        data, name, prompt_field=prompt_field, response_field=response_field, skip_invalid=skip_invalid
    )


def parse_records(
    data: bytes,
    source: str,
    *,
    prompt_field: str | None = None,
    response_field: str | None = None,
    skip_invalid: bool = False,
) -> RecordSet:
    """Read the records in `data`, the content of a file that errors call `source`.

    `prompt_field` and `response_field` name the fields where no layout fits. A dot leads into a nested
    object, and a number into a list ("answers.text.0"). With one of them alone the other side must bear a
    usual name (prompt, question, instruction; response, completion, answer, output); `prompt_field` alone may
    also name a whole chat.

    The first record that cannot be used raises InputError with file, line, id and cause; with `skip_invalid`
    such records go to `rejected` instead. InputError is raised in any case when the source as a whole cannot
    be read (empty, a damaged gzip, an array that breaks off) and when no record is left.
    """
    data = _plain(data, source)
    form = "array" if data.lstrip()[:1] == b"[" else "jsonl"
    records: list[Record] = []
    layouts: dict[str, int] = {}
    rejected: list[Rejected] = []
    pairs: set[tuple[tuple[Message, ...], str]] = set()
    used_ids: dict[str, int] = {}
    spans = _elements(data, source) if form == "array" else _lines(data)
    for place, (line, raw) in enumerate(spans, start=1):
        own = None
        try:
            fields = _fields(raw, form)
            own = own_id(fields)
            layout, prompt, response = read_pair(fields, prompt_field, response_field)
        except RecordError as error:
            rejected.append(Rejected(line, own, str(error)))
            if not skip_invalid:
                who = f" (id {own})" if own else ""
                # When the very first line is no JSON, the file as a whole may be of another kind.
                hint = f"{_ACCEPTED}; " if place == 1 and str(error).startswith("not JSON") else ""
                raise InputError(f"{source}:{line}{who}: {error}; {hint}--skip-invalid goes on without it") from None
            continue
        wanted = own or str(place if form == "array" else line)
        records.append(Record.of_pair(_unique(wanted, used_ids), prompt, response, raw, line))
        layouts[layout] = layouts.get(layout, 0) + 1
        pairs.add((prompt, response))
    if not records:
        fault = f"line {rejected[0].line}: {rejected[0].reason}" if rejected else "the array is empty"
        raise InputError(f"{source}: there is no record that can be used; {fault}")
    return RecordSet(records, source, form, layouts, rejected, len(records) - len(pairs))


def _plain(data: bytes, source: str) -> bytes:
    """The content without compression and byte-order mark; InputError for what cannot hold records at all."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except EOFError:
            raise InputError(f"{source}: the gzip data breaks off: the file is not complete") from None
        except (OSError, zlib.error) as error:
            raise InputError(f"{source}: the gzip data is damaged: {error}") from None
    for magic, what in _FOREIGN.items():
        if data.startswith(magic):
            raise InputError(f"{source}: this is {what}; {_ACCEPTED}")
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise InputError(f"{source}: {'there is nothing but white space in it' if data else 'it is empty'}")
    return data


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each line that is not blank."""
    return ((number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip())


def _elements(data: bytes, source: str) -> Iterator[tuple[int, bytes]]:
    """Line number and source text, on one line, of each element of a JSON array.

    Bytes that are not UTF-8 pass through, so that only the element that holds them is refused. A fault in the
    array's own syntax raises InputError: there is no telling where the next element would start.
    """
    text = data.decode("utf-8", "surrogateescape")
    decode = json.JSONDecoder().raw_decode

    def skip_space(at: int) -> int:
        match = _SPACE.match(text, at)
        return match.end() if match else at

    line, counted = 1, 0
    at = skip_space(text.index("[") + 1)
    more = text[at : at + 1] != "]"
    try:
        while more:
            line, counted = line + text.count("\n", counted, at), at
            _, end = decode(text, at)
            # A line break is never inside a JSON string, so nothing that carries meaning changes here.
            yield line, _LINE_BREAK.sub(" ", text[at:end]).encode("utf-8", "surrogateescape")
            at = skip_space(end)
            more = text[at : at + 1] == ","
            if more:
                at = skip_space(at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("a comma or the end of the array is missing", text, at)
        if (at := skip_space(at + 1)) != len(text):
            raise json.JSONDecodeError("something follows the end of the array", text, at)
    except json.JSONDecodeError as error:
        cause = error.msg if text[error.pos :].strip() else "the array breaks off"
        raise InputError(
            f"{source}:{error.lineno}: not JSON: {cause} (column {error.colno}); "
            "an array cannot be read past a fault in its syntax, even with --skip-invalid"
        ) from None
    except RecursionError:
        raise InputError(f"{source}:{line}: the JSON is nested too deep to be read") from None


def _fields(raw: bytes, form: str) -> dict[str, Any]:
    """The fields of one record, from its source text."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # An array's element was put on one line, so a column in it says nothing.
        where = f" (column {error.colno})" if form == "jsonl" else ""
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as bad:
            where = f" (column {len(raw[: bad.start].decode()) + 1})" if form == "jsonl" else ""
            raise RecordError(f"not UTF-8: byte 0x{raw[bad.start]:02x}{where}") from None
        raise RecordError(f"not JSON: {error.msg}{where}") from None
    if not isinstance(value, dict):
        raise RecordError(f"{kind(value)} where an object with fields is expected")
    return value


def _unique(wanted: str, uses: dict[str, int]) -> str:
    """`wanted`, or the first free "wanted#2", "wanted#3", …; `uses` remembers what was given.

    A record's id does not depend on later ones, so that it stays when the file grows at its end.
    """
    given = wanted
    while given in uses:
        uses[wanted] += 1
        given = f"{wanted}#{uses[wanted]}"
    uses[given] = 1
    return given

"""Pairs in: from a file to prompts and responses, each with its id and the very bytes that it came from.

A source is JSONL or one JSON array, plain or gzipped, in UTF-8 with or without a byte-order mark. What a
record's fields mean is recognised record by record:

    prompt/response, prompt/completion, question/answer    two texts
    instruction/output, instruction/response               Alpaca, GPTeacher, Dolly: an "input" (or "context")
                                                           that is not blank follows after an empty line
    messages                                               OpenAI chat: a list of {role, content}
    conversations                                          ShareGPT: a list of {from, value}

The first of these whose fields are all there (null counts as absent) is taken. In a chat the last assistant
turn is the response and what precedes it the prompt; turns after it are ignored, for nothing in them can be
scored. Where a text is expected a list of turns is taken too (TRL's conversational prompt/completion). A
top-level "system" (or "system_prompt") text becomes a system turn unless the chat begins with one.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from delift_cli.errors import InputError


class Message(NamedTuple):
    """One turn of a chat; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with its response, and where it came from.

    `id` is unique within its set: the record's own (see ID_FIELDS), else its line number (JSONL) or its place
    in the array, counted from 1; a second "a" becomes "a#2". `prompt` ends with a user turn. `raw` is the
    line as it came in without its "\\n" (a "\\r" stays, a byte-order mark does not); of an array it is the
    element's source text, with each line break and the indentation after it made one space. `line`, counted
    from 1, is where the record starts.
    """

    id: str
    prompt: tuple[Message, ...]
    response: str
    raw: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was left out: where it starts, its own id where it has one, and what is wrong with it."""

    line: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """All records of one source, in its order.

    `form` is "jsonl" or "array"; `layouts` counts records by layout, in order of first use; `duplicates`
    counts records whose prompt and response repeat an earlier record's exactly (they are in `records` all the
    same).
    """

    records: list[Record]
    source: str
    form: str
    layouts: dict[str, int]
    rejected: list[Rejected]
    duplicates: int


ID_FIELDS = ("id", "uid", "uuid", "_id", "example_id", "record_id")
_PAIR_LAYOUTS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
)
_CHAT_LAYOUTS = ("messages", "conversations")
LAYOUTS = (*map("/".join, _PAIR_LAYOUTS), *_CHAT_LAYOUTS)
_PROMPT_FIELDS, _RESPONSE_FIELDS = (tuple(dict.fromkeys(side)) for side in zip(*_PAIR_LAYOUTS, strict=True))
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
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
_ABSENT = object()


class _RecordError(Exception):
    """What is wrong with one record; the message is the reason that the user reads."""


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
        own_id = None
        try:
            fields = _fields(raw, form)
            own_id = _own_id(fields)
            layout, prompt, response = _read_pair(fields, prompt_field, response_field)
        except _RecordError as error:
            rejected.append(Rejected(line, own_id, str(error)))
            if not skip_invalid:
                who = f" (id {own_id})" if own_id else ""
                # When the very first line is no JSON, the file as a whole may be of another kind.
                hint = f"{_ACCEPTED}; " if place == 1 and str(error).startswith("not JSON") else ""
                raise InputError(f"{source}:{line}{who}: {error}; {hint}--skip-invalid goes on without it") from None
            continue
        wanted = own_id or str(place if form == "array" else line)
        records.append(Record(_unique(wanted, used_ids), prompt, response, raw, line))
        layouts[layout] = layouts.get(layout, 0) + 1
        pairs.add((prompt, response))
    if not records:
        fault = f"line {rejected[0].line}: {rejected[0].reason}" if rejected else "the array is empty"
        raise InputError(f"{source}: there is no record that can be used; {fault}")
    return RecordSet(records, source, form, layouts, rejected, len(records) - len(pairs))


def record_field(record: Record, name: str) -> str | None:
    """Any field of the record as it came in, as text ("task", or "meta.source" for a nested one).

    Numbers and truth values give their JSON text, a field that is absent, null, a list or an object gives
    None.
    """
    value = _lookup(orjson.loads(record.raw), name)
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, int | float) else None


def copy_groups(records: Sequence[Record]) -> NDArray[np.int32]:
    """Label copies: int32 [n], for each record the index of the first one whose prompt and response equal its
    own up to white space and case."""
    first: dict[tuple[str, ...], int] = {}
    labels = np.empty(len(records), dtype=np.int32)
    for index, record in enumerate(records):
        texts = (text for message in record.prompt for text in message)
        key = tuple(" ".join(text.casefold().split()) for text in (*texts, record.response))
        labels[index] = first.setdefault(key, index)
    return labels


# ---- bytes to the source text of single records ----


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
            raise _RecordError(f"not UTF-8: byte 0x{raw[bad.start]:02x}{where}") from None
        raise _RecordError(f"not JSON: {error.msg}{where}") from None
    if not isinstance(value, dict):
        raise _RecordError(f"{_kind(value)} where an object with fields is expected")
    return value


# ---- fields to prompt and response ----


def _read_pair(
    fields: dict[str, Any], prompt_field: str | None, response_field: str | None
) -> tuple[str, tuple[Message, ...], str]:
    """Layout, prompt and response of one record."""
    if prompt_field is None and response_field is None:
        layout, turns = _recognise(fields)
    else:
        layout, turns = _named(fields, prompt_field, response_field)
    if turns[0].role != "system":
        given = (fields.get(name) for name in ("system", "system_prompt"))
        turns[:0] = [Message("system", text) for text in given if isinstance(text, str) and text.strip()][:1]
    *prompt, response = turns
    if not prompt or prompt[-1].role != "user":
        before = f"follows a turn of the {prompt[-1].role}" if prompt else "is the first turn"
        raise _RecordError(f"the response {before}, not one of the user")
    return layout, tuple(prompt), response.content


def _recognise(fields: dict[str, Any]) -> tuple[str, list[Message]]:
    """The layout, by the fields that are there, and the turns up to and with the response."""
    for prompt, response in _PAIR_LAYOUTS:
        if fields.get(prompt) is not None and fields.get(response) is not None:
            return _both(fields, prompt, response)
    for name in _CHAT_LAYOUTS:
        if fields.get(name) is not None:
            return name, _chat(fields[name], name, until_response=True)
    for layout in LAYOUTS:
        names = layout.split("/")
        if all(name in fields for name in names):
            raise _RecordError(f'field "{next(name for name in names if fields[name] is None)}" is null')
    raise _RecordError(
        f"no layout that delift knows: {_listing(fields)}; known are {', '.join(LAYOUTS)}; "
        "for another one name the fields with --prompt-field and --response-field"
    )


def _named(fields: dict[str, Any], prompt_field: str | None, response_field: str | None) -> tuple[str, list[Message]]:
    """The same for fields that the user named, both or one of them."""
    prompt = prompt_field or _first_present(fields, _PROMPT_FIELDS)
    response = response_field or _first_present(fields, _RESPONSE_FIELDS)
    if prompt and response:
        return _both(fields, prompt, response)
    if prompt and isinstance(chat := _lookup(fields, prompt), list):
        return prompt, _chat(chat, prompt, until_response=True)
    missing, usual = ("response", _RESPONSE_FIELDS) if prompt else ("prompt", _PROMPT_FIELDS)
    raise _RecordError(
        f"no field for the {missing}: {_listing(fields)}, none of which is {', '.join(usual)}; "
        f"name it with --{missing}-field"
    )


def _both(fields: dict[str, Any], prompt: str, response: str) -> tuple[str, list[Message]]:
    return f"{prompt}/{response}", _turns(fields, prompt, "user") + _turns(fields, response, "assistant")


def _turns(fields: dict[str, Any], name: str, role: str) -> list[Message]:
    """What field `name` says: a text as one turn of `role` ("user" or "assistant"), or a list of turns."""
    value = _lookup(fields, name)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _chat(value, name, until_response=role == "assistant")
    text = _text(fields, name)
    if (name, role) == ("instruction", "user"):
        # Alpaca and GPTeacher say "input", Dolly says "context".
        extra = next((key for key in ("input", "context") if fields.get(key) not in (None, "")), None)
        if extra and str(fields[extra]).strip():
            text = f"{text}\n\n{_text(fields, extra)}"
    return [Message(role, text)]


def _text(fields: dict[str, Any], name: str) -> str:
    value = _lookup(fields, name)
    if isinstance(value, str) and value.strip():
        return value
    if value is _ABSENT:
        raise _RecordError(f"no field {_quoted(name)}: {_listing(fields)}")
    fault = "empty" if isinstance(value, str) else f"{_kind(value)}, not text"
    raise _RecordError(f"field {_quoted(name)} is {fault}")


def _chat(value: object, name: str, *, until_response: bool) -> list[Message]:
    """The turns of a chat in field `name`; with `until_response` up to the assistant's last.

    A turn is {role, content} or {from, value}. Only a system turn may be blank: to a template a blank one can
    mean something else than none.
    """
    field = f"field {_quoted(name)}"
    if not isinstance(value, list):
        raise _RecordError(f"{field} is {_kind(value)}, not a list of turns")
    names = [turn.get("role", turn.get("from")) if isinstance(turn, dict) else None for turn in value]
    roles = [_ROLES.get(name.strip().lower()) if isinstance(name, str) else None for name in names]
    end = len(value)
    if until_response:
        if "assistant" not in roles:
            raise _RecordError(f"{field} has no assistant turn")
        end -= roles[::-1].index("assistant")
    messages = []
    for place, (turn, role) in enumerate(zip(value[:end], roles, strict=False), start=1):
        where = f"{field}, turn {place}"
        if role is None:
            said = names[place - 1]
            what = f"the role {_quoted(said)} is unknown" if isinstance(said, str) else "there is no role"
            raise _RecordError(f"{where}: {what}; known are {', '.join(_ROLES)}")
        content = _content(turn.get("content", turn.get("value")), where)
        if role != "system" and not content.strip():
            raise _RecordError(f"{where} ({role}) is empty")
        messages.append(Message(role, content))
    if not messages:
        raise _RecordError(f"{field} is empty")
    return messages


def _content(value: object, where: str) -> str:
    """A turn's text: a string, or OpenAI's list of text parts, which are joined as chat templates do."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _RecordError(f"{where}: the content is {_kind(value)}, not text")
    texts = [part.get("text") if isinstance(part, dict) else part for part in value]
    if not all(isinstance(text, str) for text in texts):
        raise _RecordError(f"{where}: a part of the content is not text")
    return "".join(map(str, texts))


# ---- fields, ids, messages ----


def _lookup(fields: Any, name: str) -> object:
    """The value of a field that may be nested, or _ABSENT; a field whose name has the dots goes first."""
    if isinstance(fields, dict) and name in fields:
        return fields[name]
    value = fields
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value


def _first_present(fields: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _own_id(fields: dict[str, Any]) -> str | None:
    for value in map(fields.get, ID_FIELDS):
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            # Ids are printed one a line.
            text = " ".join(str(value).splitlines()).strip()
            if text:
                return text
    return None


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


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def _quoted(name: str) -> str:
    """A name out of the data, fit for a one-line message."""
    return json.dumps(name if len(name) <= 40 else name[:39] + "…", ensure_ascii=False)


def _listing(fields: dict[str, Any]) -> str:
    names = [_quoted(name) for name in fields]
    rest = [f"{len(names) - 12} more"] if len(names) > 12 else []
    return f"its fields are {', '.join(names[:12] + rest)}" if names else "it has no fields"

"""Bytes to rows: what kind of file it is, and the source text of each of its records.

A file is recognised by what is in it, whatever its name; only CSV and TSV need theirs. A row is its line (or its
place, in a table) and its JSON text on one line.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from ..errors import InputError
from . import tables
from .arrays import NoListError, array_rows, check_object, first_element, list_in_object, one_line
from .chats import opens_chat
from .separated import delimiter_of, looks_separated, separated

_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ\x00": "compressed with xz: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"GGUF": "a GGUF model",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF file",
    b"\x80\x04\x95": "a Python pickle",
}
ACCEPTED = (
    "delift reads JSON records a line each, a JSON array of them, CSV or TSV, Parquet and Arrow, in UTF-8, "
    "also compressed with gzip or zstd"
)
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 18
_STEP = 1 << 12  # bytes of zstd that are expanded at once, 32,768 times as many at most
LONGEST = 1 << 24  # bytes of a record: no model's context holds as much
_LARGEST = 1 << 30  # bytes that a line may have, and what a file may expand to without question
_EXPANSION = 300  # times its size that a compressed file may grow beyond that; records reach a tenth of it


class Rows(NamedTuple):
    """The rows of a source.

    Attributes:
        form: as in RecordSet.
        rows: the line of each (or its place), and its JSON text or a `Fault`.
        inner: where there is one JSON object: the key of the list in it, and its rows, should it be no record itself.
        key: of the list in one JSON object whose rows these are, because it is no record itself.
        said: what there is to say of rows once they are read, and of how many.
    """

    form: str
    rows: Iterator[tuple[int, bytes]]
    inner: Callable[[], tuple[str, Iterator[tuple[int, bytes]]]] | None = None
    key: str = ""
    said: Mapping[str, int] = MappingProxyType({})


def rows_of_file(path: Path, name: str, key: str | None) -> Rows:
    """The rows of a file; `key` names the list in a file that holds one JSON object.

    Raises:
        InputError: it cannot be read, or holds no records at all.
    """
    with no_fault(name):
        return rows_of_stream(path.open("rb"), name, key, path.name, path.stat().st_size)


def content(path: Path, name: str) -> bytes:
    """All that is in a file, without compression; InputError where it cannot be read."""
    with no_fault(name), path.open("rb") as file:
        return _expanded(file, name, path.stat().st_size).read()


def rows_of_stream(stream: Any, name: str, key: str | None, file_name: str, size: int) -> Rows:
    """The rows of an open file of `size` bytes; `name` is what errors call it."""
    plain = _expanded(_buffered(stream), name, size)
    ending = file_name.lower().removesuffix(".gz").removesuffix(".zst")
    head = bytes(plain.peek(512)[:512])
    if (kind := tables.kind_of(head)) is not None:
        return Rows(kind, tables.table_rows(plain.read(), kind, name))
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{name}: this is {what}; {ACCEPTED}")
    if head[257:262] == b"ustar":
        raise InputError(f"{name}: this is a tar archive: unpack it; {ACCEPTED}")
    if head.startswith(_BOM):
        plain.read(3)
        head = head[3:]
    if ending.endswith((".csv", ".tsv")):
        form, rows, said = separated(plain, name, tabs=ending.endswith(".tsv"))
        return Rows(form, rows, said=said)
    return _json(plain, name, key)


def _json(plain: io.BufferedReader, name: str, key: str | None) -> Rows:
    """JSON Lines, an array, or an object with a list of records in it: what it is, the first line that is not blank
    tells."""
    number, first = _first_line(plain, name)
    opening = first.lstrip()[:1]
    # an array of records on one line is not made objects of at once: they take several times its size
    value = None if len(first) > LONGEST or (opening == b"[" and _opens_records(first)) else _value(first)
    if opening == b"[" and not (isinstance(value, list) and _is_row(value, more=bool(plain.peek(1).strip()))):
        data = _joined(number, first, plain.read())
        if _is_row([first_element(data)], more=False):
            return Rows("jsonl", iter([(number, one_line(data))]))
        return Rows("array", array_rows(data, name))
    lists = len(first) > LONGEST or (isinstance(value, dict) and any(isinstance(part, list) for part in value.values()))
    alone = lists and not plain.peek(1)
    if opening == b"{" and (key is not None or value is None or alone):
        data = _joined(number, first, plain.read())
        value, first = None if value is None else {}, b""
        if key is not None:
            return Rows("array", list_in_object(data, name, key)[1])
        if alone or _one_value(data):
            if len(data) > LONGEST:
                with contextlib.suppress(NoListError):
                    key, rows = list_in_object(data, name, None)
                    return Rows("array", rows, key=key)
                return Rows("jsonl", iter([(number, data)]))  # no record, either
            check_object(data, name)
            whole = (number, one_line(data))
            return Rows("jsonl", iter([whole]), lambda: list_in_object(data, name, None))
        plain, number = _buffered(io.BytesIO(data)), 1
    if value is None and (header := looks_separated(first)):
        raise InputError(
            f"{name}:{number}: this is no JSON but looks like {header}; for delift to read it the name must end in "
            f"{'.tsv' if delimiter_of(first) == chr(9) else '.csv'}"
        )
    return Rows("jsonl", _lines(plain, name, number, first))


def _joined(number: int, first: bytes, rest: bytes) -> bytes:
    """The whole of a file of which `number` - 1 blank lines and the first other one were read."""
    return first if number == 1 and not rest else b"\n" * (number - 1) + first + rest


def _first_line(plain: io.BufferedReader, name: str) -> tuple[int, bytes]:
    """The first line that is not blank, and its number."""
    number = 0
    while line := plain.readline(_LARGEST):
        number += 1
        if not line.isspace():
            return number, line
    raise InputError(f"{name}: there is nothing in it" + (" but white space" if number else ""))


def _is_row(value: list[Any], *, more: bool) -> bool:
    """Is a list that fills a line, after which `more` come or not, a list of turns and not an array of records?"""
    first = value[0] if value else None
    pair = more and isinstance(first, list) and len(first) == 2 and all(isinstance(text, str) for text in first)
    return isinstance(first, str) or pair or opens_chat(first)


def _opens_records(line: bytes) -> bool:
    """Does an array begin with an object that is no turn of a chat?"""
    head = first_element(line)
    return isinstance(head, dict) and not _is_row([head], more=False)


def _one_value(data: bytes) -> bool:
    """Is there one JSON object over several lines, rather than a first line that is broken?"""
    lines = [line for line in data.split(b"\n", 64)[:64] if line.strip()]
    return len(lines) > 1 and _value(lines[1]) is None and not lines[0].rstrip().endswith(b"}")


def _value(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _lines(plain: io.BufferedReader, name: str, number: int, first: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not blank, without its end: `first`, which was read already where it is
    not empty, and those that follow."""
    left = [first]  # the pieces of a line whose end was not seen yet
    if first.endswith(b"\n"):
        left = []
        first = first[:-1]
        yield number, first
        number, first = number + 1, b""
    while block := plain.read1(_BLOCK):
        lines = block.split(b"\n")
        if len(lines) == 1:
            left.append(block)
            if sum(map(len, left)) > _LARGEST:
                raise InputError(f"{name}:{number}: a line of more than {_LARGEST >> 30} GiB is no record")
            continue
        lines[0] = b"".join([*left, lines[0]])
        left = [lines.pop()]
        for line in lines:
            if line and not line.isspace():
                yield number, line
            number += 1
    last = b"".join(left)
    if last.strip():
        yield number, last


def _buffered(stream: Any) -> io.BufferedReader:
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, 1 << 18)


# ------------------------------------------------------------------ compression


def _expanded(stream: io.BufferedReader, name: str, size: int) -> io.BufferedReader:
    """The content without compression."""
    head = stream.peek(4)[:4]
    if head[:2] == b"\x1f\x8b":
        return _buffered(_Bounded(gzip.GzipFile(fileobj=stream), name, "gzip", size))
    if head == b"\x28\xb5\x2f\xfd":
        try:
            import zstandard
        except ImportError:
            raise InputError(f'{name}: it is compressed with zstd: pip install "delift-cli[data]" to read it') from None
        return _buffered(_Bounded(_Frames(stream, zstandard.ZstdDecompressor()), name, "zstd", size))
    return stream


class _Bounded(io.RawIOBase):
    """What a decompressor gives, until it is more than any file of records would be; its faults as messages, whoever
    reads."""

    def __init__(self, reader: Any, name: str, packing: str, size: int) -> None:
        self._reader, self._name, self._packing, self._size, self._given = reader, name, packing, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with no_fault(self._name, self._packing):
            data = self._reader.read(len(buffer))
        self._given += len(data)
        if self._given > max(_LARGEST, _EXPANSION * self._size):
            raise InputError(
                f"{self._name}: its {self._size:,} bytes expand to more than {self._given - len(data):,}, as no "
                "file of records does; unpack it first if it is one all the same"
            )
        buffer[: len(data)] = data
        return len(data)


class _Frames:
    """Zstd frames, one after the other. The library's own reader takes the end of a file for that of its last frame."""

    def __init__(self, stream: io.BufferedReader, decompressor: Any) -> None:
        self._stream, self._decompressor = stream, decompressor
        self._frame: Any = None
        self._packed = b""
        self._content = memoryview(b"")

    def read(self, size: int) -> memoryview:
        """Some bytes, up to `size`; none at the end. EOFError where a frame breaks off."""
        while not self._content:
            if not self._packed and not (packed := self._stream.read(_STEP)):
                if self._frame is not None:
                    raise EOFError
                break
            self._packed = self._packed or packed
            self._frame = self._frame or self._decompressor.decompressobj()
            self._content = memoryview(self._frame.decompress(self._packed))
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        data, self._content = self._content[:size], self._content[size:]
        return data


@contextlib.contextmanager
def no_fault(name: str, packing: str = "") -> Iterator[None]:
    """Faults of a file while it is read, as messages."""
    try:
        yield
    except EOFError:
        raise InputError(f"{name}: the {packing} data breaks off: the file is not complete") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: the gzip data is damaged: {error}") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise InputError(f"{name}: the zstd data is damaged: {error}") from None

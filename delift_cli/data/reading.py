"""Records in: from files to the records in them, with what was understood, left out and refused.

What kind of file it is, is for `containers` to say; what the fields of a record mean, for `layouts`.
"""

from __future__ import annotations

import contextlib
import gc
import io
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ..errors import InputError
from .containers import ACCEPTED, LONGEST, Rows, no_fault, rows_of_file, rows_of_stream
from .fields import Fault, RecordError, UnknownLayoutError, holds_bytes, kind, listing, not_json, quoted, with_bytes
from .folders import files_of
from .ids import ID_FIELDS, own_id, unique_ids
from .layouts import UNNAMED, Read, holds_pairs, interpret
from .options import Reading
from .packed import Numbers, Pieces, Records, Rejections, Texts, packed, packed_text
from .plans import Plans, hash_of
from .record import Conversation, RecordSet, Rejected
from .separated import DELIMITERS

AS_IT_COMES = Reading()
MOST_REJECTED = 1_000_000  # records: of a file with more the rest is not looked at
_NO_TEXT = "field {} has bytes that are no text in UTF-8"
UNKNOWN = 1 << 24  # bytes that a source may have whose size cannot be asked for


def read_records(source: str | Path | Sequence[str | Path], reading: Reading = AS_IT_COMES) -> RecordSet:
    """Read the records of one source or of several, one after the other.

    A source is a file (JSON Lines, a JSON array, an object with a list in it, CSV, TSV, Parquet, Arrow; also gzipped
    or, as all but the first four, with the extra `data`), a folder of such files or one that `datasets` saved,
    "hf:owner/name[:split]", or "-" for standard input.

    Raises:
        InputError: the first record that cannot be used, by file, line, id and cause (with `reading.skip_invalid`
            such records go to `rejected` instead); a source as a whole that cannot be read; no record is left.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    with _no_collection():
        return _read(sources, reading)


def _read(sources: Sequence[str | Path], reading: Reading) -> RecordSet:
    tally = _Tally(reading)
    for name in map(str, sources):
        if not name:
            raise InputError("the name of a file of records is empty, as of a shell's variable that is not set")
        if name == "-":
            with no_fault("<stdin>"):
                rows = rows_of_stream(sys.stdin.buffer, "<stdin>", reading.records, "<stdin>", UNKNOWN)
            tally.take(rows, "<stdin>")
        else:
            notes: list[str] = []
            before = len(tally.raws)
            for path, called in files_of(name, notes.append):
                tally.take(rows_of_file(path, called, reading.records), called)
            tally.said["notes"].update(dict.fromkeys(notes, len(tally.raws) - before))
    return tally.result(", ".join("<stdin>" if name == "-" else name for name in map(str, sources)))


def parse_records(data: bytes, source: str, reading: Reading = AS_IT_COMES) -> RecordSet:
    """Read the records in `data`, the content of a file that errors call `source`; errors as `read_records`."""
    tally = _Tally(reading)
    tally.take(rows_of_stream(io.BytesIO(data), source, reading.records, source, len(data)), source)
    return tally.result(source)


def parse_lines(
    data: bytes, source: str, reading: Reading = AS_IT_COMES, origins: Sequence[tuple[str, int]] | None = None
) -> RecordSet:
    """Read records that are known to be one a line, such as those that a cache keeps.

    Args:
        origins: the id of each and the line where it came from, in place of what is found here.

    Raises:
        InputError: as `read_records`. ValueError: `origins` are not as many as the records.
    """
    tally = _Tally(reading)
    tally.take(Rows("jsonl", ((at, line) for at, line in enumerate(data.split(b"\n"), 1) if line.strip())), source)
    if origins is not None:
        tally.rename(origins)
    return tally.result(source)


def check_named_fields(sets: Sequence[RecordSet], reading: Reading) -> None:
    """The fields that the user named must be those of a record of one of the sets at least.

    Raises:
        InputError: they are none's, as with a name that is mistyped; what the first record has.
    """
    given = {"--prompt-field": reading.prompt_field, "--response-field": reading.response_field}
    named = [f"{quoted(name)} ({option})" for option, name in given.items() if name]
    if named and all(found.notes.get(UNNAMED, 0) == len(found.records) for found in sets):
        fields = loaded(sets[0].records[0].raw)
        has = f"of the first record {listing(fields)}" if isinstance(fields, dict) else "the first record is a list"
        what = f"both {' and '.join(named)}" if named[1:] else f"the field {named[0]}"
        raise InputError(f"{', '.join(found.source for found in sets)}: no record has {what}; {has}")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small objects that all stay: looking for garbage among them would take a third of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@dataclass(frozen=True)
class Interpreter:
    """Finds the conversation in the bytes of a record that was read before."""

    reading: Reading

    def __call__(self, raw: bytes) -> Conversation:
        read = interpret(orjson.loads(raw), raw, self.reading)
        return read.turns, read.tools


def read_row(raw: bytes, reading: Reading) -> Read:
    """What one record says.

    Raises:
        RecordError: as `interpret`, and for what is no object or list. JSONDecodeError: it is no JSON.
    """
    return _interpreted(loaded(raw), raw, reading)


def _interpreted(fields: Any, raw: bytes, reading: Reading) -> Read:
    """What a record says, and that none of it is bytes that are no text."""
    binary = with_bytes(fields) if holds_bytes(raw) else []
    try:
        read = interpret(_checked(fields), raw, reading)
    except RecordError as error:
        if binary:
            error.args = (f"{error}; {_NO_TEXT.format(quoted(binary[0]))}",)
        raise
    for name in binary:
        if name not in read.said.ignored and name.lower() not in ID_FIELDS:
            raise RecordError(_NO_TEXT.format(quoted(name)))
        read.said.note(f"{quoted(name)} has bytes that are no text, which stay as base64")
    return read


def loaded(raw: bytes) -> Any:
    """A record's fields; RecordError where the row is at fault or too long, JSONDecodeError where it is no JSON."""
    if isinstance(raw, Fault):
        raise RecordError(raw.decode())
    if len(raw) > LONGEST:
        raise RecordError(f"it has {len(raw):,} bytes; a record may have {LONGEST:,}, no model's context holds more")
    return orjson.loads(raw)


class _Tally:
    """Reads source after source, and counts."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.plans = Plans(reading)
        self.interpreter = Interpreter(reading)
        self.raws = Pieces()
        self.lines = array("q")
        self.numbers = array("q")  # what a record without an own id is called by
        self.own = Pieces()  # the id that a record brings, or nothing
        self.hashes = array("q")  # of these ids
        self.known_as: Pieces | None = None  # in place of any of these
        self.rejected = Rejections()
        self.files: list[tuple[str, int]] = []
        self.form = ""
        self.said: dict[str, Counter[str]] = {name: Counter() for name in ("notes", "ambiguous", "dropped", "layouts")}
        self.ignored: dict[str, Counter[str]] = {}
        self.seen = array("q")  # of each record what `hash_of` gives

    def take(self, source: Rows, name: str) -> None:
        """Read the rows of one file."""
        before = len(self.raws)
        rows = source.rows
        if source.inner is not None:
            line, raw = next(iter(rows))
            rows = iter([(line, raw)])
            if self._is_no_record(raw, name):
                key, rows = source.inner()
                source = Rows("array", rows, key=key)
        with no_fault(name):
            self._read(rows, name, by_line=source.form == "jsonl" or source.form in DELIMITERS)
        count = len(self.raws) - before
        self.said["notes"].update(source.said)
        if source.key:
            self.said["notes"][f"the records are the list {source.key!r} of one JSON object"] += count
        self.form = self.form or source.form
        self.files.append((name, count))

    def _is_no_record(self, raw: bytes, source: str) -> bool:
        """Is the one object of a file no record, but the list in it the records?"""
        try:
            fields = loaded(raw)
            layout = interpret(_checked(fields), raw, self.reading).layout
        except (UnknownLayoutError, orjson.JSONDecodeError):
            return True
        except RecordError:
            return False  # it will be said where the record is read
        if not holds_pairs(fields, layout) or layout.lower() == "items":
            return layout.lower() == "items"
        note = f"{layout} is one chat, of pairs; --records {layout} makes each of them a record"
        if self.reading.strict:
            raise InputError(f"{source}: it can be read in two ways: {note}; leave out --strict to go on")
        self.said["ambiguous"][note] += 1
        return False

    def _read(self, rows: Iterable[tuple[int, bytes]], name: str, *, by_line: bool) -> None:
        quick, seen = self.plans.quick, self.seen
        raws, lines, numbers, own, hashes = self.raws, self.lines, self.numbers, self.own, self.hashes
        for place, (line, raw) in enumerate(rows, start=1):
            fields: Any = None
            try:
                fields = loaded(raw)
                if (conversation := None if holds_bytes(raw) else quick(fields)) is None:
                    read = _interpreted(fields, raw, self.reading)
                    self._count(read)
                    conversation = hash_of(read.turns, read.tools)
                    self.plans.learn(fields, read, conversation)
            except (RecordError, orjson.JSONDecodeError) as error:
                self._reject(line, raw, fields, error, name, first=place == 1, by_line=by_line)
                continue
            seen.append(conversation)
            raws.append(raw)
            lines.append(line)
            numbers.append(line if by_line else place)
            called = own_id(fields)
            own.append(packed(called or ""))
            if called:
                hashes.append(hash(called))

    def rename(self, origins: Sequence[tuple[str, int]]) -> None:
        """Call the records of one file otherwise; ValueError where these are others in number."""
        if len(origins) != len(self.raws):
            raise ValueError(f"{len(origins)} names of {len(self.raws)} records")
        self.known_as = Pieces()
        self.lines = array("q", (line for _, line in origins))
        for name, _ in origins:
            self.known_as.append(packed(name))

    def _count(self, read: Read) -> None:
        self.said["layouts"][read.layout] += 1
        self.said["notes"].update(read.said.notes)
        self.said["ambiguous"].update(read.said.ambiguous)
        self.said["dropped"].update(read.dropped)
        if read.said.ignored:
            self.ignored.setdefault(read.layout, Counter()).update(read.said.ignored)

    def _reject(
        self, line: int, raw: bytes, fields: Any, error: Exception, name: str, *, first: bool, by_line: bool
    ) -> None:
        reason = str(error) if isinstance(error, RecordError) else not_json(raw, error, columns=by_line)
        own = own_id(fields)
        self.rejected.append(Rejected(line, own, sys.intern(reason)))
        if len(self.rejected) > MOST_REJECTED:
            raise InputError(
                f"{name}:{line}: more than {MOST_REJECTED:,} records cannot be used, the first at line "
                f"{self.rejected[0].line}: {self.rejected[0].reason}; is this the right file?"
            ) from None
        if not self.reading.skip_invalid:
            who = f" (id {own})" if own else ""
            # When the very first line is no JSON, the file as a whole may be of another kind.
            hint = f"{ACCEPTED}; " if first and reason.startswith("not JSON") else ""
            raise InputError(f"{name}:{line}{who}: {reason}; {hint}--skip-invalid goes on without it") from None

    def result(self, source: str) -> RecordSet:
        if not self.raws:
            fault = f"line {self.rejected[0].line}: {self.rejected[0].reason}" if self.rejected else self._nothing()
            raise InputError(f"{source}: there is no record that can be used; {fault}")
        self.plans.count_into(self.said["layouts"], self.ignored)
        ids, repeated = self._ids()
        records = Records(self.raws, ids, self.lines, self.interpreter)
        return RecordSet(
            records,
            source,
            self.form,
            dict(self.said["layouts"]),
            self.rejected,
            len(records) - _distinct(self.seen),
            notes=dict(self.said["notes"] + self.said["ambiguous"]),
            ambiguous=dict(self.said["ambiguous"]),
            dropped=dict(self.said["dropped"]),
            ignored={layout: dict(names) for layout, names in self.ignored.items()},
            repeated_ids=repeated,
            files=tuple(self.files),
        )

    def _nothing(self) -> str:
        return "the array is empty" if self.form == "array" else "it holds none"

    def _ids(self) -> tuple[Sequence[str], int]:
        """The id of each record, and how many own ids an earlier record has already."""
        count = len(self.raws)
        if self.known_as is not None:
            return Texts(self.known_as), 0
        if len(self.files) == 1 and not self.hashes:
            return Numbers(self.numbers), 0
        if len(self.hashes) == count == _distinct(self.hashes):
            return Texts(self.own), 0
        return unique_ids([packed_text(name) for name in self.own], self._fallbacks())

    def _fallbacks(self) -> Iterator[str]:
        """What records without an own id are called: by their line, or by their place where there are no lines."""
        if len(self.files) == 1:
            yield from map(str, self.numbers)
            return
        numbers = iter(self.numbers)
        for name, count in self.files:
            yield from (f"{Path(name).name}:{number}" for number in islice(numbers, count))


def _distinct(numbers: array[int]) -> int:
    """How many different ones there are; they are in another order then."""
    if not numbers:
        return 0
    sorted_ = np.frombuffer(numbers, np.int64)
    sorted_.sort()
    return 1 + int((sorted_[1:] != sorted_[:-1]).sum())


def _checked(value: Any) -> dict[str, Any] | list[Any]:
    if not isinstance(value, dict | list):
        raise RecordError(f"{kind(value)} where an object with fields is expected")
    return value

"""Which record is meant: the ids that records bring, those that they are given, and how a name is looked up.

A record's own id is the first of ID_FIELDS that it has (`ID` in capitals is `id`): a text, or a number as it stands
in JSON (1.0 stays "1.0"), or the value in MongoDB's {"$oid": …}; anything else, a blank text and a truth value are
none. An id is put on one line, and one of more than 128 characters is cut to 100 of them and a hash of the whole; it
can be named either way. The second record with the own id "a" is "a#2". A record without an own id is called by its
line (JSONL) or its place (an array, a table), as "line:7" where "7" is another's own id, and as "file.jsonl:7" where
several files are read.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from ..errors import InputError
from .record import Record

ID_FIELDS = ("id", "uid", "uuid", "_id", "example_id", "record_id")
LONGEST, HEAD = 128, 100
_MOST_DIGITS = 15  # of a line's number; Python reads no text of thousands


KEPT_NAMES = 256  # a record with more is no row of a table, whose names would come again


def own_id(fields: Any) -> str | None:
    """The id that a record brings, on one line."""
    if type(fields) is not dict:
        return None
    id_names = _id_names if len(fields) <= KEPT_NAMES else _id_names.__wrapped__
    for name in id_names(tuple(fields)):
        if found := _id_text(fields[name]):
            return found
    return None


@functools.lru_cache(maxsize=1024)
def _id_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a record's names that an id may be under, as written before others in capitals."""
    others = [name for name in names if name not in ID_FIELDS]
    return tuple(
        [name for name in ID_FIELDS if name in names]
        + [name for wanted in ID_FIELDS for name in others if name.lower() == wanted]
    )


def _id_text(value: Any) -> str | None:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
        value = next(iter(value.values()))
    if isinstance(value, str):
        return shortened(value if value.isprintable() else " ".join(value.splitlines()))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return orjson.dumps(value).decode()
    return None


def shortened(text: str) -> str:
    """An id as it is shown and looked up."""
    text = text.strip()
    if len(text) <= LONGEST:
        return text
    return f"{text[:HEAD]}…{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def unique_ids(own: Sequence[str], fallbacks: Iterable[str]) -> tuple[list[str], int]:
    """An id for each record, and how many own ids an earlier record has already.

    Args:
        own: the id that each record brings, or nothing.
        fallbacks: what records without one are called, each at its place.
    """
    taken = {*own}
    uses: dict[str, int] = {}
    ids, repeated = [], 0
    for name, place in zip(own, fallbacks, strict=True):
        repeated += bool(name) and name in uses
        wanted = name or (place if place not in taken else f"line:{place}")
        given = wanted
        while given in uses:
            uses[wanted] += 1
            given = f"{wanted}#{uses[wanted]}"
        uses[given] = 1
        ids.append(given)
    return ids, repeated


class Names:
    """The records of a set by the names that a user may give them."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self._places = {record.id: place for place, record in enumerate(records)}
        self._repeated: dict[str, list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            if "#" in record.id and (own := own_id(orjson.loads(record.raw))) not in (None, record.id):
                self._repeated[str(own)].append(place)

    @functools.cached_property
    def _on_line(self) -> dict[int, list[int]]:
        on_line: dict[int, list[int]] = defaultdict(list)
        for place, record in enumerate(self.records):
            on_line[record.line].append(place)
        return on_line

    def find(self, name: str) -> int:
        """The place of the record that `name` means.

        An own id goes before a line number; `line:7` is the record on line 7 (of a table its seventh row), and
        `record:7` the seventh record, whatever their ids.

        Raises:
            InputError: no record is called so, or several are.
        """
        name = name.strip()
        if (numbered := self._numbered(name)) is not None:
            return self._by_number(*numbered, name)
        name = shortened(name)
        places = self._called(name)
        if len(places) > 1:
            lines = [self.records[place].line for place in places]
            shown = ", ".join(map(str, lines[:8])) + (f" and {len(lines) - 8} more" if len(lines) > 8 else "")
            raise InputError(
                f"{len(places):,} records have the id {name}, on lines {shown}; "
                f"name the one that you mean as line:{lines[0]}"
            )
        if not places:
            near = difflib.get_close_matches(name, self._places, n=3)
            like = f" (like it: {', '.join(near)})" if near else ""
            raise InputError(f"there is no record with the id {name}{like}; one is also found as line:7 or record:7")
        return places[0]

    def meant(self, name: str) -> bool:
        """Is this a record's name, or that of several, as far as it can be told from other text?"""
        name = name.strip()
        return self._numbered(name) is not None or bool(self._called(shortened(name)))

    def _numbered(self, name: str) -> tuple[str, int] | None:
        """What `line:7` and `record:7` count, and how far, unless it is an id."""
        sort, colon, number = name.partition(":")
        counted = number.isdecimal() and len(number) <= _MOST_DIGITS
        if colon and sort in ("line", "record") and counted and name not in self._places:
            return sort, int(number)
        return None

    def _called(self, name: str) -> list[int]:
        """The places of the records with this id."""
        places = list(self._repeated.get(name, ()))
        known = self._places.get(name)
        if known is not None and (not places or own_id(orjson.loads(self.records[known].raw)) == name):
            places.insert(0, known)
        return places

    def name(self, place: int) -> str:
        """What `find` finds this record by: its id, or its place where several bring the same one."""
        id_ = self.records[place].id
        return f"record:{place + 1}" if id_ in self._repeated else id_

    def _by_number(self, sort: str, number: int, name: str) -> int:
        if sort == "record":
            places = [number - 1] if 1 <= number <= len(self.records) else []
        else:
            places = self._on_line.get(number, [])
        if len(places) > 1:
            raise InputError(
                f"{len(places):,} records are on line {number}; name one by its place, as record:{places[0] + 1}"
            )
        if not places:
            raise InputError(f"there is no {name}: it holds no record, or one that was left out")
        return places[0]


def find_record(records: Sequence[Record], name: str | int) -> int:
    """The place of the record that `name` means; see `Names.find`. A number is an id that is one, or a line."""
    return Names(records).find(str(name))

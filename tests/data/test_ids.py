"""Which record is meant: own ids, line numbers, repeated and odd ids."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from delift_cli.data.ids import find_record, own_id, shortened
from delift_cli.data.limits import listed_indices, named_indices
from delift_cli.data.options import Reading
from delift_cli.data.reading import parse_records, read_records
from delift_cli.data.record import Record
from delift_cli.errors import InputError

FILES = Path(__file__).parent / "layouts"
PAIR = {"prompt": "p", "response": "r"}


def parse(*ids: Any) -> list[Record]:
    rows = [{**PAIR, **({} if given is None else {"id": given})} for given in ids]
    return parse_records(b"".join(json.dumps(row).encode() + b"\n" for row in rows), "x").records


def refusal(records: list[Record], name: str) -> str:
    with pytest.raises(InputError) as caught:
        find_record(records, name)
    return str(caught.value)


def test_own_ids_go_before_line_numbers() -> None:
    found = read_records(FILES / "ids_like_line_numbers.jsonl")
    assert [record.id for record in found.records] == ["line:1", "line:2", "1", "2"]
    assert [find_record(found.records, name) for name in ("1", "2", "line:1", "line:3", "record:4")] == [2, 3, 0, 2, 3]
    # in a cache from before, the line had the number and the own id another name
    old = [
        record.renamed(name, record.line) for record, name in zip(found.records, ("1", "2", "1#2", "2#2"), strict=True)
    ]
    assert [find_record(old, name) for name in ("1", "2", "line:1")] == [2, 3, 0]


def test_repeated_and_odd_ids() -> None:
    found = read_records(FILES / "odd_ids.jsonl")
    assert [record.id for record in found.records] == ["b", "b#2", "b#3", "2.0", "77e", "capital"]
    assert found.repeated_ids == 2
    assert "3 records have the id b, on lines 1, 2, 3; name the one that you mean as line:1" in refusal(
        found.records, "b"
    )
    assert [find_record(found.records, name) for name in ("b#2", "line:3", "2.0", "77e", "capital")] == [1, 2, 3, 4, 5]


def test_an_own_id_that_looks_like_a_second_one() -> None:
    records = parse("a", "a", "a#2")
    assert [record.id for record in records] == ["a", "a#2", "a#2#2"]
    assert find_record(records, "a#2") == 2
    assert "2 records have the id a" in refusal(records, "a")


def test_names_that_mean_nothing() -> None:
    records = parse("a", None)
    for name in ("b", "line:9", "record:0", "record:3", "1", ""):
        assert "there is no" in refusal(records, name)
    assert find_record(records, " a ") == 0
    assert find_record(records, "2") == 1


def test_an_id_that_is_called_line() -> None:
    records = parse("x", "line:1")
    assert find_record(records, "line:1") == 1
    assert find_record(records, "record:1") == 0


def test_records_on_one_line() -> None:
    records = parse_records(json.dumps([PAIR, PAIR]).encode(), "x").records
    assert "2 records are on line 1; name one by its place, as record:1" in refusal(records, "line:1")
    assert find_record(records, "record:2") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7, "7"),
        (1.0, "1.0"),
        (-0.5, "-0.5"),
        ({"$oid": "65f"}, "65f"),
        ({"$uuid": "u"}, "u"),
        (" a\nb\t", "a b"),
        ("a\u2028b", "a b"),
        (True, None),
        ("", None),
        (" \n", None),
        ([1], None),
        ({"x": 1}, None),
    ],
)
def test_what_is_an_id(given: Any, expected: str | None) -> None:
    assert own_id({"id": given}) == expected


def test_names_of_id_fields() -> None:
    assert own_id({"ID": "a"}) == own_id({"Uuid": "a"}) == own_id({"id": None, "_id": "a"}) == "a"
    assert own_id({"ID": "a", "uid": "b"}) == "b"  # as written goes before capitals
    assert own_id(["a"]) is None


def test_very_long_ids_are_cut_and_found_either_way() -> None:
    long = "x" * 3000
    records = parse(long + "a", long + "b", "c" * 128)
    assert [len(record.id) for record in records] == [113, 113, 128]
    assert records[0].id != records[1].id
    assert [find_record(records, name) for name in (long + "a", long + "b", records[1].id)] == [0, 1, 1]
    assert shortened(records[0].id) == records[0].id


def test_files_of_ids(tmp_path: Path) -> None:
    records = parse("a", "b", "b", None)
    file = tmp_path / "ids"
    file.write_bytes(b"\xef\xbb\xbfa\r\n\nline:3\n4\na\n")
    assert named_indices(file, records) == [0, 2, 3]
    file.write_bytes(b"a\nb\n")
    with pytest.raises(InputError, match=r"ids:2: 2 records have the id b, on lines 2, 3"):
        named_indices(file, records)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="cannot read the ids in"):
        named_indices(file, records)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("line:3\na\n", [2, 0]),
        ("record:2\nb#2\n4\n", [1, 2, 3]),
        ("\ufeff\n  a  \n", [0]),
        ('{"id": "a", "prompt": "p", "response": "r"}\n', None),
        ("nobody\na\n", None),
        ("", None),
    ],
)
def test_a_file_that_begins_with_a_name_is_a_list_of_them(tmp_path: Path, text: str, places: list[int] | None) -> None:
    file = tmp_path / "ids"
    file.write_text(text, encoding="utf-8")
    assert listed_indices(file, parse("a", "b", "b", None)) == places


def test_a_list_that_begins_with_a_name_of_several_is_one_too(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    for text, match in (("b\na\n", "ids:1: 2 records have the id b"), ("record:9\n", "ids:1: there is no record:9")):
        file.write_text(text)
        with pytest.raises(InputError, match=match):
            listed_indices(file, parse("a", "b", "b", None))


def test_a_record_is_a_value() -> None:
    (record,) = parse("a")
    assert pickle.loads(pickle.dumps(record)) == record
    other = dataclasses.replace(record, id="b")
    assert (other.id, other.turns, other.raw) == ("b", record.turns, record.raw)
    assert record.renamed("b", 1) == other
    assert record != other
    assert len({record, record.renamed("a", 1), other}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.id = "c"  # type: ignore[misc]


def test_a_reading_survives_a_manifest() -> None:
    for reading in (
        Reading("q", None, "last", (("ai", "assistant"),)),
        Reading(None, "a.b"),
        Reading(turns="all", roles=(("x", "call"), ("y", "user"))),
    ):
        assert Reading.from_fields(json.loads(json.dumps(reading.as_fields()))) == reading
    assert (
        Reading.from_fields({"prompt": None, "response": None}).turns == "last"
    )  # as caches before there was a choice


def test_a_number_that_no_line_has() -> None:
    for name in ("line:" + "9" * 5000, "record:" + "9" * 5000):
        assert "there is no record with the id" in refusal(parse(None, None), name)

"""Records in little memory: they are what was read, and take little beside their text."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import pytest

from delift_cli.data import containers, packed
from delift_cli.data.containers import LONGEST
from delift_cli.data.options import Reading
from delift_cli.data.packed import Pieces, Rejections
from delift_cli.data.reading import parse_records
from delift_cli.data.record import Rejected
from delift_cli.errors import InputError

PAIR = {"prompt": "p", "response": "r"}
ANY = Reading(skip_invalid=True)


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_pieces_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "CHUNK", 16)
    given = [b"", b"a", b"x" * 40, b"", b"bc", b"y" * 16, b"z", b""]
    pieces = Pieces()
    for count, piece in enumerate(given, start=1):
        pieces.append(piece)
        assert list(pieces) == [pieces[at] for at in range(count)] == given[:count]
    assert pieces[2:-1] == given[2:-1]
    assert pieces[-2] == b"z"
    with pytest.raises(IndexError):
        pieces[len(given)]


def test_records_are_the_same_by_place_by_slice_and_in_turn() -> None:
    rows = [{"id": f"r{at}", "prompt": f"p{at}", "response": "é" * at + "."} for at in range(50)]
    found = parse_records(lines(*rows), "pool").records
    assert list(found) == [found[at] for at in range(50)] == found[:]
    assert found[-1].id == "r49"
    assert found[10:14] == [found[at] for at in range(10, 14)]
    assert [json.loads(record.raw) for record in found] == rows
    assert pickle.loads(pickle.dumps(found)) == found
    assert found != found[:-1]
    with pytest.raises(IndexError):
        found[50]


@pytest.mark.parametrize("own", [False, True])
def test_short_records_take_less_than_three_times_their_file(own: bool) -> None:
    data = lines(*({**PAIR, "id": f"r{at}"} if own else PAIR for at in range(100_000)))
    parse_records(data[:2000].rpartition(b"\n")[0], "warm")
    tracemalloc.start()
    try:
        found = parse_records(data, "pool")
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.records) == 100_000
    assert held < 2.5 * len(data)
    assert peak < 3 * len(data)


def test_ids_with_halves_of_characters_stay() -> None:
    found = parse_records(b'{"id": "a\\ud800", "prompt": "p", "response": "r"}\n' + lines(PAIR), "pool", ANY)
    assert found.records[-1].id == "2"


def test_rejected_records_are_given_back() -> None:
    rejected = [Rejected(3, None, "blank"), Rejected(5, "a", "blank"), Rejected(9, None, "odd")]
    found = Rejections(rejected)
    assert found == rejected
    assert list(found) == [found[0], found[-2], found[2]] == rejected
    assert found[1:] == rejected[1:]


@pytest.mark.parametrize("before", [b"", lines(PAIR)])
def test_a_record_of_more_than_a_context_holds_is_left_out(before: bytes) -> None:
    long = lines({"prompt": "word " * (LONGEST // 5), "response": "r"})
    found = parse_records(before + long + lines(PAIR), "pool", ANY)
    assert [record.line for record in found.records] == ([1, 3] if before else [2])
    assert "bytes; a record may have 16,777,216, no model's context holds more" in found.rejected[0].reason
    with pytest.raises(InputError, match=r"pool:\d: it has 16,777,2\d\d bytes"):
        parse_records(before + long, "pool")


def test_a_long_object_is_read_for_its_list_and_a_long_chat_is_one_record() -> None:
    rows = [{"prompt": "x" * 1000, "response": f"r{at}"} for at in range(LONGEST // 1000)]
    found = parse_records(json.dumps({"by": ["me"], "data": rows}).encode(), "pool")
    assert len(found.records) == len(rows)
    assert found.notes == {"the records are the list 'data' of one JSON object": len(rows)}
    turns = [{"role": ("user", "assistant")[at % 2], "content": "x" * 1000} for at in range(LONGEST // 1000)]
    with pytest.raises(InputError, match="a record may have 16,777,216"):
        parse_records(json.dumps({"messages": turns}).encode(), "pool")
    with pytest.raises(InputError, match=r"several lists of objects: a, b"):
        parse_records(json.dumps({"a": rows, "b": rows[:1]}).encode(), "pool")


def test_an_object_of_very_many_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "LONGEST", 1 << 20)
    data = json.dumps({f"f{at}": 1 for at in range(100_001)}).encode()
    assert len(data) > 1 << 20
    with pytest.raises(InputError, match="one JSON object of more than 100,000 fields"):
        parse_records(data, "pool")

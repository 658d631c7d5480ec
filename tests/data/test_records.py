from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delift_cli.data.fields import RecordError, record_field
from delift_cli.data.options import Reading
from delift_cli.data.reading import parse_records, read_records
from delift_cli.data.record import Message, RecordSet, copy_groups
from delift_cli.data.scored import up_to_last_scored
from delift_cli.errors import InputError

SAMPLES = Path(__file__).parents[2] / "samples"
SHARED = Path(__file__).parents[3] / "shared" / "data"
PAIR = {"prompt": "p", "response": "r"}


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def parse(*records: Any, **options: Any) -> RecordSet:
    return parse_records(lines(*records), "train.jsonl", Reading(**options))


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def turns(*pairs: tuple[str, Any], keys: tuple[str, str] = ("role", "content")) -> list[dict[str, Any]]:
    return [dict(zip(keys, pair, strict=True)) for pair in pairs]


def failure(data: bytes, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse_records(data, "train.jsonl", Reading(**options))
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- layouts ----


@pytest.mark.parametrize(
    ("fields", "layout", "prompt"),
    [
        ({"prompt": "p", "response": "r"}, "prompt/response", "p"),
        ({"prompt": "p", "completion": "r"}, "prompt/completion", "p"),
        ({"question": "p", "answer": "r"}, "question/answer", "p"),
        ({"instruction": "p", "output": "r"}, "instruction/output", "p"),
        ({"instruction": "p", "input": " \n", "output": "r"}, "instruction/output", "p"),
        ({"instruction": "p", "input": None, "output": "r"}, "instruction/output", "p"),
        ({"instruction": "p", "input": "i", "output": "r"}, "instruction/output", "p\n\ni"),
        ({"instruction": "p", "input": "i", "response": "r"}, "instruction/response", "p\n\ni"),
        ({"instruction": "p", "context": "c", "response": "r"}, "instruction/response", "p\n\nc"),
        ({"messages": turns(("user", "p"), ("assistant", "r"))}, "messages", "p"),
        (
            {"conversations": turns(("human", "p"), ("gpt", "r"), keys=("from", "value"))},
            "conversations",
            "p",
        ),
        ({"prompt": None, "response": None, "question": "p", "answer": "r"}, "question/answer", "p"),
        ({"prompt": "unused", "messages": turns(("user", "p"), ("assistant", "r"))}, "messages", "p"),
    ],
)
def test_layout(fields: dict[str, Any], layout: str, prompt: str) -> None:
    found = parse(fields)
    assert found.layouts == {layout: 1}
    assert found.records[0].prompt == user(prompt)
    assert found.records[0].response == "r"


def test_layouts_are_counted_in_order_of_first_use() -> None:
    found = parse({"question": "q", "answer": "a"}, PAIR, {"question": "s", "answer": "b"})
    assert list(found.layouts.items()) == [("question/answer", 2), ("prompt/response", 1)]


def test_white_space_of_texts_stays() -> None:
    record = parse({"prompt": " p\n", "response": "\nr "}).records[0]
    assert (record.prompt, record.response) == (user(" p\n"), "\nr ")


def test_chat_with_several_turns() -> None:
    chat = turns(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    record = parse({"messages": chat}).records[0]
    assert record.prompt == (
        Message("system", "s"),
        Message("user", "a"),
        Message("assistant", "b", scored=True),
        Message("user", "c"),
    )
    assert record.response == "d"
    last = parse({"messages": chat}, turns="last").records[0]
    assert [message.scored for message in last.turns] == [False, False, False, False, True]


def test_turns_behind_the_last_scored_one_are_left_out_and_counted() -> None:
    chat = turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", ""), ("user", "d"))
    found = parse({"messages": chat})
    assert (found.records[0].prompt, found.records[0].response) == (user("a"), "b")
    assert found.dropped == {"unanswered": 2, "empty": 1}


def test_content_as_text_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    assert parse({"messages": turns(("user", parts), ("assistant", "r"))}).records[0].prompt == user("a b")


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_system_field_beside_the_layout(name: str) -> None:
    chat = turns(("human", "p"), ("gpt", "r"), keys=("from", "value"))
    for fields in ({"conversations": chat}, PAIR):
        assert parse({**fields, name: "s"}).records[0].prompt == (
            Message("system", "s"),
            Message("user", "p"),
        )
        assert parse({**fields, name: " "}).records[0].prompt == user("p")
        assert parse({**fields, name: 3}).records[0].prompt == user("p")


def test_system_turn_of_the_chat_wins_and_may_be_blank() -> None:
    chat = turns(("system", ""), ("user", "p"), ("assistant", "r"))
    record = parse({"messages": chat, "system": "s"}).records[0]
    assert record.prompt == (Message("system", ""), Message("user", "p"))


def test_prompt_and_completion_as_turns() -> None:
    prompt = turns(("system", "s"), ("user", "p"))
    record = parse({"prompt": prompt, "completion": turns(("assistant", "r"))}).records[0]
    assert (record.prompt, record.response) == ((Message("system", "s"), Message("user", "p")), "r")
    several = turns(("assistant", "a"), ("user", "b"), ("assistant", "r"))
    record = parse({"prompt": "p", "completion": several}).records[0]
    assert [message.content for message in record.prompt] == ["p", "a", "b"]
    assert record.response == "r"


def test_named_fields() -> None:
    record = {"data": {"q": "p"}, "answers": [{"text": "r"}], "a.b": "literal"}
    found = parse(record, prompt_field="data.q", response_field="answers.0.text")
    assert found.layouts == {"data.q/answers.0.text": 1}
    assert (found.records[0].prompt, found.records[0].response) == (user("p"), "r")
    assert parse(record, prompt_field="data.q", response_field="a.b").records[0].response == "literal"


def test_named_fields_go_before_a_layout() -> None:
    record = {"prompt": "p", "response": "worse", "chosen": "r"}
    assert parse(record, prompt_field="prompt", response_field="chosen").records[0].response == "r"
    assert parse(record, response_field="chosen").records[0].response == "r"


def test_one_named_field_with_a_usual_one() -> None:
    found = parse({"q": "p", "completion": "r"}, prompt_field="q")
    assert found.layouts == {"q/completion": 1}
    found = parse({"instruction": "p", "input": "i", "chosen": "r"}, response_field="chosen")
    assert found.records[0].prompt == user("p\n\ni")


def test_prompt_field_alone_may_name_a_chat() -> None:
    found = parse({"dialog": turns(("user", "p"), ("assistant", "r"))}, prompt_field="dialog")
    assert (found.layouts, found.records[0].response) == ({"dialog": 1}, "r")


# ---- forms of the source ----


def test_raw_lines_join_to_the_lines_that_are_not_blank() -> None:
    rng = random.Random(0)
    for _ in range(50):
        parts = []
        for _ in range(rng.randrange(1, 20)):
            spaces = rng.choice(["", " ", "\t"])
            text = json.dumps({"response": "ü\u2028\x85", "n": rng.random(), "prompt": "a\nb"}, ensure_ascii=False)
            parts.append(rng.choice([spaces, spaces + text, spaces + text + spaces]) + rng.choice(["", "\r"]))
        parts.append(json.dumps(PAIR))
        data = "\n".join(parts + [""] * rng.randrange(2)).encode()
        found = parse_records(data, "x")
        kept = [line for line in data.split(b"\n") if line.strip()]
        assert [record.raw for record in found.records] == kept
        assert [data.split(b"\n")[record.line - 1] for record in found.records] == kept


def test_crlf_blank_lines_and_no_newline_at_the_end() -> None:
    found = parse_records(b'\r\n{"prompt":"p","response":"r"}\r\n\r\n{"prompt":"q","response":"r"}', "x")
    assert [(record.line, record.raw[-1:]) for record in found.records] == [(2, b"\r"), (4, b"}")]
    assert [record.id for record in found.records] == ["2", "4"]


@pytest.mark.parametrize("data", [lines(PAIR), json.dumps([PAIR]).encode()])
def test_byte_order_mark(data: bytes) -> None:
    found = parse_records(b"\xef\xbb\xbf" + data, "x")
    assert json.loads(found.records[0].raw) == PAIR
    assert found.records == parse_records(data, "x").records


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
def test_array(indent: int | str | None, newline: str) -> None:
    items = [{"prompt": "a\n  b", "response": "[}", "n": [1, {"x": 2.50}]}, {**PAIR, "ü": " \u2028\n"}]
    text = "\n" + json.dumps(items, indent=indent, ensure_ascii=False).replace("\n", newline) + "\n\n"
    found = parse_records(text.encode(), "x")
    assert found.form == "array"
    assert [json.loads(record.raw) for record in found.records] == items
    assert [record.id for record in found.records] == ["1", "2"]
    assert not any(b"\n" in record.raw or b"\r" in record.raw for record in found.records)
    source_lines = text.split("\n")
    assert all("{" in source_lines[record.line - 1] for record in found.records)
    if indent is not None:
        assert found.records[0].line == 3
    # Written out as JSONL, the elements are the same records.
    again = parse_records(b"\n".join(record.raw for record in found.records), "x")
    assert [r.prompt for r in again.records] == [r.prompt for r in found.records]


def test_array_element_keeps_its_source_text() -> None:
    element = b'{"response":"\\u00fc",   "score": 1.50e+00, "prompt":"p"}'
    assert parse_records(b"[ " + element + b" ]", "x").records[0].raw == element
    spread = element.replace(b",   ", b", \r\n\n\t ")
    expected = element.replace(b",   ", b",  ")
    assert parse_records(b"[" + spread + b"]", "x").records[0].raw == expected


@pytest.mark.parametrize("data", [lines(PAIR, PAIR), json.dumps([PAIR, PAIR]).encode()])
def test_gzip_by_content(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(gzip.compress(data[:5], mtime=0) + gzip.compress(data[5:], mtime=0))
    found = read_records(path)
    assert found.source == str(path)
    assert found.records == parse_records(data, "x").records


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(lines(PAIR), mtime=0))))
    found = read_records("-")
    assert (found.source, found.form, len(found.records)) == ("<stdin>", "jsonl", 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(InputError, match=r"^<stdin>:1: not JSON"):
        read_records("-")


# ---- ids, duplicates, copies, other fields ----


def test_ids() -> None:
    given = ["a", "a", 7, "7", "a#2", "a", " b\n", True, "", None, 2.5]
    found = parse(*({"id": value, **PAIR} for value in given))
    expected = ["a", "a#2", "7", "7#2", "a#2#2", "a#3", "b", "8", "9", "10", "2.5"]
    assert [record.id for record in found.records] == expected


@pytest.mark.parametrize("name", ["id", "uid", "uuid", "_id", "example_id", "record_id"])
def test_usual_id_fields(name: str) -> None:
    assert parse({name: "x", **PAIR}).records[0].id == "x"


def test_ids_are_unique_and_do_not_change_when_records_are_appended() -> None:
    rng = random.Random(1)
    records = [{"id": rng.choice(["a", "a#2", "a#2#2", "2", "3", None]), **PAIR} for _ in range(60)]
    ids = [record.id for record in parse(*records).records]
    assert len(set(ids)) == 60
    assert [record.id for record in parse(*records[:40]).records] == ids[:40]


def test_duplicates_are_kept_and_counted() -> None:
    found = parse(PAIR, {"question": "p", "answer": "r"}, {**PAIR, "response": "R"}, PAIR, PAIR)
    assert (len(found.records), found.duplicates) == (5, 3)


def test_copy_groups() -> None:
    found = parse(
        {"prompt": "What is  it?", "response": "A cat"},
        {"prompt": "What is it?", "response": "A dog"},
        {"prompt": " what\nis IT?", "response": "a  CAT "},
        {"prompt": "What is it? A", "response": "cat"},
        {"prompt": "What is it?", "response": "A dog", "system": "s"},
        {"question": "What is it?", "answer": "a dog"},
    )
    labels = copy_groups(found.records)
    assert labels.dtype == np.int32
    assert labels.tolist() == [0, 1, 0, 3, 4, 1]
    assert copy_groups([]).shape == (0,)


def test_record_field() -> None:
    fields = {"task": "t", "n": 3, "ok": True, "none": None, "meta": {"tags": ["x"]}}
    record = parse({**PAIR, **fields}).records[0]
    names = ("task", "n", "ok", "none", "absent", "meta", "meta.tags.0", "meta.tags.1")
    assert [record_field(record, name) for name in names] == ["t", "3", "true", None, None, None, "x", None]


# ---- bad input ----

GOOD = lines({"id": "g", **PAIR})


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (b'{"id": "q", "prompt": "p", ', "train.jsonl:3: not JSON: "),
        (b'{"prompt": "p", "response": NaN}', "column 29"),
        (b'{"prompt": "\\ud83d", "response": "r"}', "train.jsonl:3: not JSON: "),
        (b"prompt,response", "not JSON"),
        ('{"prompt": "é'.encode() + b'\xe9", "response": "r"}', "3: not UTF-8: byte 0xe9 (column 14)"),
        (b"[1, 2]", "train.jsonl:3: a list where an object with fields, or a list of turns"),
        (b"null", "train.jsonl:3: null where an object"),
        (lines({"id": "q", "prompt": "p", "response": ""}), '3 (id q): field "response" is empty'),
        (lines({"id": 5, "prompt": "p", "response": " \n"}), '3 (id 5): field "response" is empty'),
        (lines({"prompt": "\t", "response": "r"}), 'field "prompt" is empty'),
        (lines({"prompt": "p", "response": None}), 'field "response" is null'),
        (lines({"messages": None}), 'field "messages" is null'),
        (lines({"question": "q", "answer": []}), 'field "answer" is empty'),
        (lines({"question": "q", "answer": [["a"]]}), "a part of the content is a list, not text"),
        (lines({"question": {}, "answer": "a"}), 'field "question" is an object, not text'),
        (lines({"premise": "p", "verdict": "r"}), 'its fields are "premise", "verdict"; known are prompt/resp'),
        (lines({"inputs": "p"}), "--prompt-field"),
        (lines({}), "it has no fields"),
        (lines({f"f{i}": i for i in range(30)}), "18 more"),
        (lines({"a\nb": 1}), r'"a\nb"'),
        (lines({"messages": "hello"}), 'field "messages" is a text, not a list of turns'),
        (lines({"messages": []}), 'field "messages" has no assistant turn'),
        (lines({"messages": turns(("user", "p"))}), 'field "messages" has no assistant turn'),
        (lines({"messages": turns(("assistant", "r"))}), "the response is the first turn"),
        (lines({"messages": turns(("system", "s"), ("assistant", "r"))}), "follows a turn of the system"),
        (lines({"messages": turns(("user", "p"), ("assistant", " "))}), "turn 2 (assistant) is empty"),
        (lines({"messages": turns(("user", ""), ("assistant", "r"))}), "turn 1 (user) is empty"),
        (lines({"messages": turns(("user", "p"), ("assistant", None))}), "turn 2 (assistant) is empty"),
        (
            lines({"messages": turns(("user", "p"), ("assistant", "r"), ("narrator", "n"))}),
            'the role "narrator" is unkn',
        ),
        (lines({"messages": ["p", *turns(("assistant", "r"))]}), "turn 1: there is no role"),
        (
            lines({"messages": turns(("user", [{"type": "image_url"}]), ("assistant", "r"))}),
            "turn 1: a part of the content is an image (image_url), which a text model cannot see",
        ),
        (lines({"prompt": turns(("user", "p")), "completion": turns(("user", "r"))}), "no assistant turn"),
    ],
)
def test_bad_record(bad: bytes, cause: str) -> None:
    data = GOOD + b"\n" + bad.rstrip(b"\n") + b"\n" + GOOD
    message = failure(data)
    assert message.startswith("train.jsonl:3")
    assert cause in message
    assert message.endswith("--skip-invalid goes on without it")

    found = parse_records(data, "train.jsonl", Reading(skip_invalid=True))
    assert [record.id for record in found.records] == ["g", "g#2"]
    assert [rejected.line for rejected in found.rejected] == [3]
    assert found.rejected[0].reason in message


def test_bad_record_in_an_array() -> None:
    data = b'[\n {"prompt": "p", "response": "r"},\n {\n"id": "q", "prompt": "p\xff", "response": ""},\n 3,\n'
    data += b' {"prompt": "p", "response": "r", "x": NaN},\n {"prompt": "p", "response": "s"}]'
    assert failure(data).startswith("train.jsonl:3: not UTF-8: byte 0xff;")
    found = parse_records(data, "train.jsonl", Reading(skip_invalid=True))
    assert [(record.id, record.line) for record in found.records] == [("1", 2), ("5", 7)]
    assert [rejected.line for rejected in found.rejected] == [3, 5, 6]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b'[\n{"prompt": "p", "response": "r"},\n', "train.jsonl:3: not JSON: the array breaks off"),
        (b'[{"prompt": "p", "response": "r"}', "the array breaks off"),
        (b'[{"prompt": "p"\n "response": "r"}]', "train.jsonl:2: not JSON: Expecting"),
        (b'[{"prompt": "p", "response": "r"}\n{}]', "train.jsonl:2: not JSON: a comma or the end"),
        (b'[{"prompt": "p", "response": "r"}]\n[]', "train.jsonl:2: not JSON: something follows"),
        (b'[{"prompt": "p", "response": "a\nb"}]', "train.jsonl:1: not JSON: Invalid control character"),
        (b"[" * 100_000, "nested too deep"),
        (b"[]", "the array is empty"),
        (b"", "there is nothing in it"),
        (b" \r\n\n", "nothing in it but white space"),
        (b"\xef\xbb\xbf", "there is nothing in it"),
        (gzip.compress(b"", mtime=0), "there is nothing in it"),
        (gzip.compress(GOOD, mtime=0)[:-9], "the gzip data breaks off"),
        (gzip.compress(GOOD, mtime=0)[:5], "the gzip data breaks off"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"12345678", "the gzip data is damaged"),
        (gzip.compress(GOOD, mtime=0) + b"rest", "the gzip data is damaged"),
        ("{}".encode("utf-16"), "this is UTF-16 text"),
        (b"PAR1...", "the parquet data is damaged"),
        (b"GGUF...", "this is a GGUF model"),
    ],
)
def test_bad_source(data: bytes, cause: str) -> None:
    for skip_invalid in (False, True):
        message = failure(data, skip_invalid=skip_invalid)
        assert message.startswith("train.jsonl:")
        assert cause in message


def test_file_of_another_kind_is_named_as_such() -> None:
    assert "looks like CSV with the columns id, prompt, response" in failure(b"id,prompt,response\n1,p,r\n")
    assert "one JSON object, which is no record" in failure(b'{\n "data": []\n}\n')
    assert "delift reads JSON records a line each, a JSON array" in failure(b"hello\n")


def test_a_conversation_without_a_turn_is_no_record() -> None:
    with pytest.raises(RecordError, match="there is no turn in it"):
        up_to_last_scored([], "all", in_chat=True, alone=False)


def test_no_record_left() -> None:
    message = failure(lines({**PAIR, "response": ""}, 3), skip_invalid=True)
    assert message.startswith("train.jsonl: there is no record that can be used; line 1: field ")


def test_a_file_without_a_name_is_not_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pool.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the name of a file of records is empty"):
        read_records("")


def test_a_file_that_holds_hardly_a_record_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delift_cli.data.reading.MOST_REJECTED", 10)
    data = lines(PAIR, *range(11), PAIR)
    assert failure(data, skip_invalid=True) == (
        "train.jsonl:12: more than 10 records cannot be used, the first at line 2: a number where an object with "
        "fields is expected; is this the right file?"
    )
    assert len(parse_records(lines(PAIR, *range(10), PAIR), "train.jsonl", Reading(skip_invalid=True)).rejected) == 10


def test_named_field_that_is_missing() -> None:
    message = failure(lines({"q": "p", "r": "r"}), prompt_field="q", response_field="answer.text")
    assert 'train.jsonl:1: no field "answer.text": its fields are "q", "r"' in message
    message = failure(lines({"q": "p", "r": "r"}), prompt_field="q")
    assert "no field for the response" in message
    assert "--response-field" in message
    message = failure(lines({"q": "p", "r": "r"}), response_field="r")
    assert "no field for the prompt" in message
    assert "--prompt-field" in message


def test_source_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read: No such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a folder without any file of records"):
        read_records(tmp_path)


# ---- the files that ship, and real data ----


def sample(name: str) -> RecordSet:
    return read_records(SAMPLES / name)


def test_samples() -> None:
    pool, target, existing = (sample(f"{name}.jsonl") for name in ("pool", "target", "existing"))
    assert [len(found.records) for found in (pool, target, existing)] == [35, 8, 8]
    everything = [*pool.records, *target.records, *existing.records]
    assert len({record.id for record in everything}) == 51
    groups = copy_groups(everything)
    places = {record.id: index for index, record in enumerate(everything)}
    assert [everything[i].id for i in range(51) if groups[i] != i] == ["arith-10"]
    assert groups[places["arith-10"]] == places["arith-01"]
    assert {record_field(record, "task") for record in target.records} == {"arith"}
    assert {record_field(record, "task") for record in existing.records} == {"sentiment", "translate"}
    notes = {record.id: note for record in pool.records if (note := record_field(record, "note"))}
    counts = Counter(note.split()[0] for note in notes.values())
    assert counts == {"near-duplicate": 6, "wrong": 4, "noise": 3}
    for note in notes.values():
        assert not note.startswith("near-duplicate") or note.split()[2] in places


def test_sample_readme_names_every_planted_record() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for record in sample("pool.jsonl").records:
        if record_field(record, "note") not in (None, "noise"):
            assert record.id in readme


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("alpaca.json", "instruction/output", 2),
        ("messages.jsonl", "messages", 3),
        ("sharegpt.jsonl", "conversations", 2),
        ("qa.jsonl", "question/answer", 2),
    ],
)
def test_sample_layouts(name: str, layout: str, count: int) -> None:
    assert sample(f"layouts/{name}").layouts == {layout: count}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("p3_6k.jsonl", "prompt/response", 6000),
        ("pool200.jsonl", "prompt/response", 200),
        ("gsm8k_train_2k.jsonl", "question/answer", 2000),
        ("gsm8k_test_500.jsonl", "question/answer", 500),
        ("self_instruct_seed_alpaca.json", "instruction/output", 175),
        ("codegen_instruct.json", "instruction/response", 1500),
    ],
)
def test_real_data(name: str, layout: str, count: int) -> None:
    found = read_records(SHARED / name)
    assert found.layouts == {layout: count}
    assert found.rejected == []
    data = (SHARED / name).read_bytes()
    if found.form == "jsonl":
        assert b"".join(record.raw + b"\n" for record in found.records) == data.rstrip(b"\n") + b"\n"
    else:
        assert [json.loads(record.raw) for record in found.records] == json.loads(data)

"""Files of other kinds than JSON Lines: tables, CSV, compressed ones, folders; what is none is named for what it is."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from delift_cli.data.arrays import array_rows
from delift_cli.data.folders import files_of
from delift_cli.data.options import Reading
from delift_cli.data.reading import parse_records, read_records
from delift_cli.data.separated import DELIMITERS, LITERAL
from delift_cli.data.writing import form_of, packed, written
from delift_cli.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "prompt": f"p{n} ü\n", "response": f"r{n}", "score": n / 4, "tags": ["a", str(n)], "none": None}
    for n in range(7)
]


def jsonl(rows: list[Any] = ROWS) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def conversations(path: Path | str | list[Path], **options: Any) -> list[Any]:
    found = read_records(path, Reading(**options))  # type: ignore[arg-type]
    return [(record.id, record.conversation) for record in found.records]


EXPECTED = [(record.id, record.conversation) for record in parse_records(jsonl(), "x").records]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_records(path, Reading(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- tables ----


def arrow() -> Any:
    """pyarrow with its Parquet, which it leaves out of itself."""
    pytest.importorskip("pyarrow.parquet")
    return pytest.importorskip("pyarrow")


def save(rows: list[Any], path: Path) -> Path:
    pa = arrow()
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=3)
    else:
        opened = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
        with opened(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow", "parquet without an ending"])
def test_tables(name: str, tmp_path: Path) -> None:
    path = save(ROWS, tmp_path / ("a.parquet" if " " in name else name))
    if " " in name:
        path = path.rename(tmp_path / name)
    assert conversations(path) == EXPECTED
    found = read_records(path)
    assert found.form == ("parquet" if "parquet" in name else "arrow")
    assert [record.line for record in found.records] == list(range(1, 8))
    assert [json.loads(record.raw) for record in found.records] == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_rows_of_a_table_go_out_with_its_schema(name: str, tmp_path: Path) -> None:
    pa = arrow()
    path = save(ROWS, tmp_path / name)
    found = read_records(path)
    some = [found.records[place] for place in (5, 0, 3)]
    lines = [record.raw for record in some]
    data, said = written(lines, found.form, records=some, came=found.form, source=found.source)
    assert said == ""
    out = tmp_path / f"out{path.suffix}"
    out.write_bytes(data)
    assert conversations(out) == [EXPECTED[place] for place in (5, 0, 3)]
    read = (lambda p: pa.parquet.read_table(p)) if "parquet" in name else (lambda p: pa.ipc.open_file(p).read_all())
    assert read(out).schema == read(path).schema  # also of the column that is null throughout
    path.unlink()
    data, said = written(lines, found.form, records=some, came=found.form, source=found.source)
    assert "types of the columns are found in the rows again" in said
    out.write_bytes(data)
    assert conversations(out) == [EXPECTED[place] for place in (5, 0, 3)]


def test_what_json_has_no_form_for(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "r", "when": datetime.date(2024, 5, 1), "blob": b"\xff\x00", "text": b"t"}]
    record = read_records(save(rows, tmp_path / "a.parquet")).records[0]
    assert json.loads(record.raw) == {**PAIR, "when": "2024-05-01", "blob": {"bytes in base64": "/wA="}, "text": "t"}


@pytest.mark.parametrize("field", ["prompt", "response", "context", "system"])
def test_bytes_that_are_no_text_are_not_read_as_such(field: str, tmp_path: Path) -> None:
    """In Latin-1, say; an instruction's context is read as JSON where it is no text."""
    good = {name: f"é {name}".encode() for name in ("prompt", "response", "context", "system")}
    path = save([good, {**good, field: "caf\xe9".encode("latin-1")}, good], tmp_path / "a.parquet")
    said = refusal(path)
    assert said.startswith(f"{path}:2: field {json.dumps(field)}")
    assert f'field "{field}" has bytes that are no text in UTF-8' in said
    found = read_records(path, Reading(skip_invalid=True))
    assert [record.line for record in found.records] == [1, 3]
    assert found.records[0].turns[0].content == "é system"
    assert [rejected.line for rejected in found.rejected] == [2]


def test_bytes_in_turns_are_not_read_as_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": b"q"}, {"role": "assistant", "content": b"\xff"}]
    assert 'field "messages" has bytes that are no text' in refusal(save([{"messages": turns}], tmp_path / "a.parquet"))


def test_bytes_beside_what_is_read_are_said(tmp_path: Path) -> None:
    rows = [{**PAIR, "id": b"\xff" * 16, "blob": blob, "meta": {"inner": blob}} for blob in (b"\xff", b"x", None)]
    found = read_records(save(rows, tmp_path / "a.parquet"))
    assert [record.id for record in found.records] == ["1", "2", "3"]
    said = "has bytes that are no text, which stay as base64"
    assert found.notes == {f'"id" {said}': 3, f'"blob" {said}': 1, f'"meta" {said}': 1}


def maps(path: Path, rows: list[Any]) -> Path:
    """Chats as Spark has them: a turn is a map of texts."""
    pa = arrow()
    column = pa.array(rows, pa.list_(pa.map_(pa.string(), pa.string())))
    pa.parquet.write_table(pa.table({"messages": column}), path)
    return path


def test_maps_are_objects(tmp_path: Path) -> None:
    chat = [[("role", "user"), ("content", "hi")], [("role", "assistant"), ("content", "hello")]]
    (record,) = read_records(maps(tmp_path / "a.parquet", [chat])).records
    assert json.loads(record.raw) == {"messages": [dict(turn) for turn in chat]}
    assert [(turn.role, turn.content) for turn in record.turns] == [("user", "hi"), ("assistant", "hello")]


def test_a_map_with_a_key_twice(tmp_path: Path) -> None:
    chat = [[("role", "user"), ("content", "hi")], [("role", "assistant"), ("content", "hello")]]
    twice = [chat[0], [("role", "assistant"), ("content", "a"), ("content", "b")]]
    path = maps(tmp_path / "a.parquet", [chat, twice])
    assert refusal(path).startswith(f'{path}:2: field "messages": a map has the key "content" twice;')
    found = read_records(path, Reading(skip_invalid=True))
    assert (len(found.records), len(found.rejected)) == (1, 1)


def test_maps_wherever_they_are(tmp_path: Path) -> None:
    pa = arrow()
    texts = pa.map_(pa.string(), pa.string())
    call = pa.struct([("name", pa.string()), ("arguments", texts)])
    turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call))])
    turns = [
        {"role": "user", "content": "w?", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": [("city", "Brest")]}]},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "g", "arguments": []}]},
    ]
    table = pa.table(
        {
            "messages": pa.array([turns], pa.list_(turn)),
            "numbered": pa.array([[(1, [("a", "b")]), (2, None)]], pa.map_(pa.int64(), texts)),
            "fixed": pa.array([[[("a", "b")], []]], pa.list_(texts, 2)),
            "none": pa.array([None], texts),
        }
    )
    pa.parquet.write_table(table.drop_columns(["fixed"]), tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        (record,) = read_records(tmp_path / name).records
        row = json.loads(record.raw)
        assert row["numbered"] == {"1": {"a": "b"}, "2": None}
        assert row.get("fixed", [{"a": "b"}, {}]) == [{"a": "b"}, {}]
        assert row["none"] is None
        assert [[(call.name, call.arguments) for call in turn.calls] for turn in record.turns] == [
            [],
            [("f", '{"city": "Brest"}')],
            [("g", "{}")],
        ]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    pa = arrow()
    table = pa.Table.from_arrays([pa.array(["q"])] * 3, names=["prompt", "response", "response"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").endswith('two columns have the name "response"')


PAIR = {"prompt": "p", "response": "r"}


def test_chats_in_a_table(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    found = read_records(save([{"messages": turns}, {"messages": json.dumps(turns)}][:1], tmp_path / "a.parquet"))
    assert [turn.content for turn in found.records[0].turns] == ["p", "r"]


def test_damaged_tables(tmp_path: Path) -> None:
    data = save(ROWS, tmp_path / "a.parquet").read_bytes()
    for damaged in (data[:-20], data[:8], data[:200] + b"x" * 40 + data[240:]):
        (tmp_path / "b.parquet").write_bytes(damaged)
        assert "damaged" in refusal(tmp_path / "b.parquet")


# ---- CSV ----


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_separated(name: str, mark: str, tmp_path: Path) -> None:
    rows = [("id", "prompt", "response"), ("x", f'a {mark} "b"', "c\nd"), ("y", "e", "f ü")]
    text = "".join(mark.join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n" for row in rows)
    data = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_records(tmp_path / name)
    assert [(r.id, r.turns[0].content, r.response) for r in found.records] == [
        ("x", f'a {mark} "b"', "c\nd"),
        ("y", "e", "f ü"),
    ]
    form = {",": "csv", ";": "csv;", "\t": "tsv"}[mark]
    assert (found.form, [record.line for record in found.records]) == (form, [2, 4])
    out, _ = written([record.raw for record in found.records], found.form, source=found.source)
    assert out.startswith(mark.join(rows[0]).encode() + b"\n")
    (tmp_path / "again.csv").write_bytes(out)
    assert conversations(tmp_path / "again.csv") == conversations(tmp_path / name)


@pytest.mark.parametrize("form", ["csv", "tsv", "csv;"])
def test_line_breaks_of_every_kind_stay_in_their_cells(form: str) -> None:
    texts = ["a\rb", "a\r\nb", "a\nb", "\r", "a"]
    lines = [json.dumps({"prompt": f"p {text}", "response": f"{text} r"}).encode() for text in texts]
    out, _ = written(lines, form)
    assert out.endswith(b"\np a%sa r\n" % DELIMITERS[form].encode())
    again = parse_records(out, f"out.{form[:3]}").records
    assert [(record.asked, record.response) for record in again] == [(f"p {text}", f"{text} r") for text in texts]


def test_faults_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for data, cause in (
        (b"prompt,response\na,b,c\n", "a.csv:2: the row has 3 cells"),
        (b"prompt,prompt\na,b\n", "two columns have the name 'prompt'"),
        (b"prompt,response\na,b\n\xff,c\n", "not UTF-8: byte 0xff"),
        (b"", "empty"),
        (b"prompt,response\n", "there is no record"),
        (b"prompt,response\na,\n", 'a.csv:2: field "response" is empty'),
        (b"prompt,response,source\na,b,c\nd,e\n", "a.csv:3: the row has 2 cells, the first line names 3 columns;"),
        (b"prompt,r\xe9sponse\na,b\n", "a.csv:1: not UTF-8: byte 0xe9"),
    ):
        path.write_bytes(data)
        assert cause in refusal(path)


def test_rows_of_csv_at_fault_cost_themselves_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,response\na,b\n\nc\n\xff,c\nd,e,f\n  \ng,h\n")
    found = read_records(path, Reading(skip_invalid=True))
    assert [(record.id, record.response) for record in found.records] == [("2", "b"), ("8", "h")]
    assert [(one.line, one.reason.partition(",")[0]) for one in found.rejected] == [
        (4, "the row has 1 cell"),
        (5, "not UTF-8: byte 0xff"),
        (6, "the row has 3 cells"),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ["q1,a1", 'q2,"a2', "q3,a3", "q4,a4"],  # the rows behind it would be one cell
        ["q1,a1", 'q2,"a2', "q3,a3", 'q4,"a4"'],
        ["q1,a1", r'"He said \"hi\" to me",ok'],
        ["q1,a1", '"Yes" he said,ok'],
        ["q1,a1", '"a" ,ok'],
    ],
)
def test_quotes_that_are_not_those_of_csv(rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["prompt,response", *rows]) + "\n")
    assert refusal(path).startswith(f"{path}:3: the quotes of this row do not close as they do in CSV")


def test_quotes_inside_a_cell_of_csv_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,response\n5" nail,say "no"\n"a ""b"", \n\nc","d"\n')
    assert [text(record) for record in read_records(path).records] == [('5" nail', 'say "no"'), ('a "b", \n\nc', "d")]


def text(record: Any) -> tuple[str, str]:
    return record.turns[0].content, record.response


@pytest.mark.parametrize(
    ("rows", "expected", "said"),
    [
        (['"Yes" he said\tok', "q\ta"], [('"Yes" he said', "ok"), ("q", "a")], 1),
        (['"Unclosed\ta', 'q\t"b"'], [('"Unclosed', "a"), ("q", '"b"')], 2),
        (['"He spoke.\ta', 'And went."\tb'], [('"He spoke.', "a"), ('And went."', "b")], 2),
        (['"a ""b"""\tc', "d\te"], [('a "b"', "c"), ("d", "e")], 0),
        (['"a\tb\nc\nd"\te', "f\tg"], [("a\tb\nc\nd", "e"), ("f", "g")], 0),
        (['"a\nb"\tc'], [("a\nb", "c")], 0),
        (['5" nail\ta'], [('5" nail', "a")], 0),
    ],
)
def test_quotes_of_tsv(rows: list[str], expected: list[tuple[str, str]], said: int, tmp_path: Path) -> None:
    """As in CSV where that makes sense of all of them; else they are text, which is said."""
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_text("\n".join(["prompt\tresponse", *rows]) + "\n")
        found = read_records(tmp_path / name)
        assert [text(record) for record in found.records] == expected
        assert found.notes == ({LITERAL: said} if said else {})


# ---- JSON in other shapes ----


def test_list_under_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for indent in (None, 2):
        path.write_text(json.dumps({"about": [1, 2], "data": ROWS}, indent=indent))
        assert conversations(path) == EXPECTED
        assert conversations(path, records="data") == EXPECTED
        path.write_text(json.dumps({"splits": {"train": ROWS, "test": ROWS[:1]}, "extra": [{"a": 1}], "b": [{}]}))
        assert "several lists of objects: extra, b; say which with --records KEY" in refusal(path)
        assert conversations(path, records="splits.train") == EXPECTED
        assert "no 'dev' for --records splits.dev; there are train, test" in refusal(path, records="splits.dev")
        assert "names something that is no list" in refusal(path, records="splits")
    path.write_text(json.dumps(ROWS[0], indent=2))
    assert conversations(path) == EXPECTED[:1]
    path.write_text(json.dumps(ROWS[0], indent=2) + "\n" + json.dumps(ROWS[1], indent=2))
    assert "jq -c" in refusal(path) or "follows" in refusal(path)
    path.write_text('{"a": ' + '{"a": ' * 100_000)
    assert "nested too deep" in refusal(path) or "not JSON" in refusal(path)


def test_numbers_of_any_size(tmp_path: Path) -> None:
    for form in ("[%s]", "%s"):
        for digits in (300, 5000):
            big = "9" * digits
            text = form % f'{{"prompt": "p", "response": "r", "n": {big}}}'
            if digits == 300:
                assert big.encode() in parse_records(text.encode(), "x").records[0].raw
            else:  # as orjson has it
                with pytest.raises(InputError, match="x:1: not JSON: number is infinity"):
                    parse_records(text.encode(), "x")


def test_words_that_are_no_json(tmp_path: Path) -> None:
    for word in ("NaN", "Infinity", "-Infinity"):
        line = b'{"prompt": "p", "response": "r", "x": %s}\n' % word.encode()
        with pytest.raises(InputError, match=f"x:1: not JSON: {word} is no JSON value"):
            parse_records(line, "x")


# ---- compression, archives, folders, several files ----


def test_zstd(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = jsonl()
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(data[:50]) + zstandard.compress(data[50:]))
    assert conversations(path) == EXPECTED
    path.write_bytes(zstandard.compress(data)[:-9] + b"123456789")
    assert "zst" in refusal(path) or "not JSON" in refusal(path)


def compressed(data: bytes, packing: str) -> bytes:
    return gzip.compress(data) if packing == "gz" else pytest.importorskip("zstandard").compress(data)


def as_text(mark: str) -> bytes:
    """Pairs enough for several blocks of a compressor."""
    noise = random.Random(0)
    rows = [("prompt", "response"), *((f"q{n} {noise.random()}", f"a{noise.random()}") for n in range(20_000))]
    return "".join(mark.join(row) + "\n" for row in rows).encode()


def as_json() -> bytes:
    return jsonl([dict(zip(PAIR, line.split(","), strict=True)) for line in as_text(",").decode().splitlines()[1:]])


WHOLE = {
    "a.jsonl": as_json,
    "a.json": lambda: b"[" + b",\n".join(as_json().splitlines()) + b"]",
    "a.csv": lambda: as_text(","),
    "a.tsv": lambda: as_text("\t"),
}


@pytest.mark.parametrize("packing", ["gz", "zst"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_compressed_file_that_breaks_off(name: str, packing: str, tmp_path: Path) -> None:
    """Wherever it does, also between two frames or members whose second lacks all but its first byte."""
    data = WHOLE[name]()
    path = tmp_path / f"{name}.{packing}"
    whole = compressed(data, packing)
    path.write_bytes(whole)
    assert len(read_records(path).records) == 20_000
    for end in (12, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert "data breaks off: the file is not complete" in refusal(path)
    path.write_bytes(whole + whole[:1])
    assert "the file is not complete" in refusal(path) or "the gzip data is damaged" in refusal(path)


def test_zstd_in_blocks_that_end_with_a_line(tmp_path: Path) -> None:
    """What is left of such a file are whole lines; nothing but its frame tells that there were more."""
    line = jsonl([{"prompt": "p", "response": "r"}])
    block = (line * 1000).ljust((1 << 17) - 1) + b"\n"
    path = tmp_path / "a.jsonl.zst"
    whole = compressed(block * 8, "zst")
    path.write_bytes(whole)
    assert len(read_records(path).records) == 8000
    path.write_bytes(whole[: len(whole) * 3 // 4])
    assert "the zstd data breaks off" in refusal(path)
    parts = [compressed(line * 1000, "zst") for _ in range(4)]
    path.write_bytes(b"".join(parts))
    assert len(read_records(path).records) == 4000
    for end in (1, 5, len(parts[2]) - 1):
        path.write_bytes(parts[0] + parts[1] + parts[2][:end])
        assert "the zstd data breaks off" in refusal(path)


def test_a_file_that_expands_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from delift_cli.data import containers

    monkeypatch.setattr(containers, "_LARGEST", 1 << 20)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl() + b" " * (1 << 22)))
    assert "expand to more than" in refusal(path)
    path.write_bytes(gzip.compress(jsonl() * 3000))
    assert len(read_records(path).records) == 21_000


def test_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(tmp_path / "a.jsonl")
    assert "this is a zip archive: unpack it" in refusal(tmp_path / "a.zip")
    for mode in ("w", "w:gz"):
        with tarfile.open(tmp_path / "a.tar", mode) as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "a.jsonl", "a.jsonl")
        assert "this is a tar archive: unpack it" in refusal(tmp_path / "a.tar")


def test_several_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "part-0.jsonl").write_bytes(jsonl(ROWS[:3]))
    (tmp_path / "shards" / "part-1.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[3:])))
    (tmp_path / "shards" / "README.md").write_text("x")
    assert conversations(tmp_path / "shards") == EXPECTED
    found = read_records([path for path, _ in files_of(str(tmp_path / "shards"))])
    assert [(record.id, record.conversation) for record in found.records] == EXPECTED
    assert [count for _, count in found.files] == [3, 4]
    (tmp_path / "more.csv").write_text("prompt,response\na,b\n")
    ids = [record.id for record in read_records([tmp_path / "shards", tmp_path / "more.csv"]).records]
    assert ids == [*(name for name, _ in EXPECTED), "more.csv:2"]
    (tmp_path / "shards" / "b.csv").write_text("prompt,response\na,b\n")
    assert "files of several kinds (.csv, .jsonl)" in refusal(tmp_path / "shards")
    (tmp_path / "none").mkdir()
    assert "a folder without any file of records" in refusal(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "splits", "example"),
    [
        (
            ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"],
            "test, train",
            "train",
        ),
        (["test_sft-0.jsonl", "train_gen-0.jsonl", "train_sft-0.jsonl"], "test_sft, train_gen, train_sft", "train_gen"),
        (["gsm8k-dev.jsonl.gz", "gsm8k-test.jsonl.gz", "more.jsonl"], "gsm8k-dev, gsm8k-test", "gsm8k-dev"),
        (["train-0.jsonl", "train-1.jsonl"], "", ""),
        (["train_a.jsonl", "train_b.jsonl", "contest.jsonl"], "", ""),
        (["a.jsonl", "b.jsonl", "latest.jsonl"], "", ""),
    ],
)
def test_a_folder_of_several_splits(names: list[str], splits: str, example: str, tmp_path: Path) -> None:
    """Training and test data never make one pool without a word; data sets of the hub have the same names."""
    for at, name in enumerate(names):
        data = jsonl(ROWS[at : at + 1])
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    if not splits:
        assert len(read_records(tmp_path).records) == len(names)
        return
    assert refusal(tmp_path) == (
        f"{tmp_path} holds several splits ({splits}); name the files of one, as in {tmp_path / example}*"
    )


def test_the_fault_of_one_of_several_files_is_placed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl())
    (tmp_path / "b.jsonl").write_bytes(jsonl() + b"nothing\n")
    with pytest.raises(InputError, match=r"b\.jsonl:8: not JSON"):
        read_records([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    save(ROWS[:4], tmp_path / "stream-0.arrow").rename(tmp_path / "data-00000-of-00002.arrow")
    save(ROWS[4:], tmp_path / "stream-1.arrow").rename(tmp_path / "data-00001-of-00002.arrow")
    names = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in (0, 1)]
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": names, "_split": "train"}))
    (tmp_path / "dataset_info.json").write_text("{}")
    assert conversations(tmp_path) == EXPECTED
    (tmp_path / "state.json").write_text("{}")
    assert "state.json does not name its files" in refusal(tmp_path)
    whole = tmp_path / "whole"
    (whole / "train").mkdir(parents=True)
    (whole / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (whole / "train" / "state.json").write_text("{}")
    assert f"with the splits train; name one, as in {whole / 'train'}" in refusal(whole)


def test_a_cache_is_no_folder_of_records(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "examples.jsonl").write_bytes(jsonl())
    assert "is a cache of delift" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        (None, "parquet", "parquet"),
        ("out.parquet", "jsonl", "parquet"),
        ("out.jsonl", "parquet", "jsonl"),
        ("out.jsonl", "array", "jsonl"),
        ("out.json", "jsonl", "jsonl"),
        ("out.json", "csv", "array"),
        ("out.json", "array", "array"),
        ("out.txt", "csv", "csv"),
        ("out.tsv", "jsonl", "tsv"),
        ("out.tsv", "csv", "tsv"),
        ("out.csv", "tsv", "csv"),
        ("out.csv", "csv;", "csv;"),
        ("out.csv.gz", "csv|", "csv|"),
        ("out.txt", "tsv", "tsv"),
        ("out.jsonl.zst", "parquet", "jsonl"),
    ],
)
def test_form_of_an_output(name: str | None, form: str, expected: str) -> None:
    assert form_of(None if name is None else Path(name), form) == expected


TYPED = {  # what rows as JSON would lose
    "prompt": ["q0", "q1", "q2"],
    "response": ["r"] * 3,
    "amount": [decimal.Decimal("1.10")] * 3,
    "when": [datetime.datetime(2024, 5, 1, 12)] * 3,
    "blob": [b"\xff\x00", b"text", None],
    "rate": [None] * 3,
    "tags": [[("a", 1)], [], None],
    "kind": ["x", "y", "x"],
}


def typed(path: Path) -> Any:
    """A table of many types in a file."""
    pa = arrow()
    types = {"rate": pa.float64(), "tags": pa.map_(pa.string(), pa.int32()), "when": pa.timestamp("us", "UTC")}
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in TYPED.items()})
    table = table.set_column(7, "kind", table["kind"].dictionary_encode())
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return pa.parquet.read_table(pa.BufferReader(data))


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_a_field_that_is_added_is_a_column_beside_those_of_the_source(name: str, tmp_path: Path) -> None:
    pa = arrow()
    whole = typed(tmp_path / name)
    found = read_records(tmp_path / name)
    some = [found.records[place] for place in (2, 0)]
    for again in range(2):  # what an earlier selection added is replaced
        scores = [{"id": record.id, "rank": rank + again, "gain": 0.5} for rank, record in enumerate(some)]
        scored = zip(some, scores, strict=True)
        lines = [json.dumps({**json.loads(record.raw), "scores": score}).encode() for record, score in scored]
        data, said = written(
            lines, "parquet", records=some, came="parquet", source=found.source, added={"scores": scores}
        )
        assert said == ""
        table = pa.parquet.read_table(pa.BufferReader(data))
        assert table.drop_columns(["scores"]).equals(whole.take([2, 0] if not again else [0, 1]))
        assert table["scores"].to_pylist() == scores
        (tmp_path / "scored.parquet").write_bytes(data)
        whole, found = table.drop_columns(["scores"]), read_records(tmp_path / "scored.parquet")
        some = list(found.records)


def test_rows_that_differ_in_what_json_does_not_show(tmp_path: Path) -> None:
    """The row that was chosen leaves, not one that looks like it."""
    pa = arrow()
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"prompt": ["q"] * 2, "response": ["r"] * 2, "x": [float("nan"), None]}), path)
    second = read_records(path).records[1:]
    data, _ = written([second[0].raw], "parquet", records=second, came="parquet", source=str(path))
    assert pa.parquet.read_table(pa.BufferReader(data)).to_pylist() == [{**PAIR, "prompt": "q", "x": None}]


@pytest.mark.parametrize("form", ["jsonl", "array", "csv"])
def test_bytes_leave_a_table_as_base64_which_is_said(form: str, tmp_path: Path) -> None:
    typed(tmp_path / "a.parquet")
    found = read_records(tmp_path / "a.parquet")
    data, said = written([record.raw for record in found.records], form, came="parquet", source=found.source)
    assert said.startswith("1 record with bytes that are no text, which are written as")
    (tmp_path / f"out.{form}").write_bytes(data)
    again = read_records(tmp_path / f"out.{form}")
    assert [record.turns for record in again.records] == [record.turns for record in found.records]
    if form == "jsonl":
        assert json.loads(data.splitlines()[0])["blob"] == {"bytes in base64": "/wA="}
        assert again.notes == found.notes


def test_a_table_of_records_with_different_fields_has_the_columns_of_all(tmp_path: Path) -> None:
    pa = arrow()
    data, said = written([b'{"a": 1}', b'{"b": "x"}'], "parquet", came="jsonl", source="a.jsonl")
    assert said == ""  # there was no schema that could be kept
    assert pa.parquet.read_table(pa.BufferReader(data)).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_number_that_no_column_can_have_is_an_error() -> None:
    arrow()
    with pytest.raises(InputError, match=r"do not go into one table \(.*\); write them as \.jsonl"):
        written([b'{"a": 1}', b'{"a": 18446744073709551615}'], "parquet", came="jsonl", source="a.jsonl")


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.jsonl", b"{"), ("a.jsonl.gz", b"\x1f\x8b"), ("a.CSV.GZ", b"\x1f\x8b"), ("a.json.zst", b"\x28\xb5\x2f\xfd")],
)
def test_an_output_is_compressed_as_its_name_says(name: str, start: bytes, tmp_path: Path) -> None:
    if name.endswith("zst"):
        pytest.importorskip("zstandard")
    content, _ = written([record.raw for record in parse_records(jsonl(), "x").records], form_of(Path(name), "jsonl"))
    data = packed(content, Path(name))
    assert data.startswith(start)
    (tmp_path / name).write_bytes(data)
    assert [record.response for record in read_records(tmp_path / name).records] == [row["response"] for row in ROWS]


def test_zstd_cannot_be_written_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r'out\.jsonl\.zst: to compress with zstd: pip install "delift-cli\[data\]"'):
        packed(b"x", Path("out.jsonl.zst"))


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = save(ROWS, tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "delift-cli[data]"' in refusal(path)


def test_standard_input_may_be_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data = save(ROWS, tmp_path / "a.parquet").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert len(conversations("-")) == len(ROWS)


@pytest.mark.parametrize("wrong", [50_700_573, -16_777_212, 1 << 30])
def test_an_arrow_file_that_points_outside_itself(wrong: int) -> None:
    """Arrow reads where the offsets of a file point to, and the process is gone: they are looked at before."""
    pa = arrow()
    table = pa.table({"prompt": ["p" * 7, "q" * 7], "response": ["r" * 7, "s" * 7]})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as out:
        out.write_table(table)
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 7, 14))
    bad = b"".join(n.to_bytes(4, "little", signed=True) for n in (0, 7, wrong))
    assert offsets in stream.getvalue()
    with pytest.raises(InputError, match=r"the arrow data is damaged: .*[Oo]ffset"):
        parse_records(stream.getvalue().replace(offsets, bad), "pool.arrow")


def test_one_wide_character_does_not_make_a_file_larger() -> None:
    """As text of four bytes a character it would take four times its size."""
    rows = [{"prompt": f"p{n} " + "word " * 200, "response": "\U0001f600"} for n in range(2000)]
    data = json.dumps(rows, ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        count = sum("\U0001f600".encode() in raw for _, raw in array_rows(data, "pool"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == len(rows)
    assert peak < 1.5 * len(data)


def test_columns_and_keys_of_wide_characters() -> None:
    with pytest.raises(InputError, match=r"pool:2: not JSON: .*\(column 17\)"):
        parse_records('[\n{"prompt": "\U0001f600é" "response": 1}]'.encode(), "pool")
    data = '{"\U0001f600é\\u4e2d": [{"prompt": "\U0001f600", "response": "é\u00a0"}],\n "x": 1}'.encode()
    (record,) = parse_records(data, "pool", Reading(records="\U0001f600é\u4e2d")).records
    assert (record.turns[0].content, record.response) == ("\U0001f600", "é\u00a0")

"""Selected records out: the bytes that came in, where they were asked for."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tiny_runs import records

from delift_cli.data.reading import read_records
from delift_cli.data.writing import written
from delift_cli.errors import RunError
from delift_cli.selection.output import render, write
from delift_cli.submodular.select import Selection
from delift_cli.submodular.select import select as choose

ODD = [
    b'{"id":"a",   "prompt" : "tabs\\tand  spaces",\t"response":"x"}  ',
    '{"id": "b", "prompt": "ünïcödé 猫 🐈", "response": "\\u732b", "n": 1.0, "big": 1e5}'.encode(),
    b'{"response":"crlf","prompt":"p","id":"c"}\r',
    b'  {"id": 4, "prompt": "p", "response": "leading", "id2": 12345678901234567890}',
    b'{"id": "e", "prompt": "<|im_end|>", "response": "[/b] \\u0000", "extra": {"b": 1, "a": [null, true]}}',
]


def selection(*indices: int) -> Selection:
    """A real selection, made so that it takes these records in this order."""
    kernel = np.zeros((5, len(indices)))
    for rank, index in enumerate(indices):
        kernel[index, rank] = 1.0 / (1 + rank)
    chosen = choose(kernel, len(indices))
    assert chosen.indices.tolist() == list(indices)
    return chosen


def rendered(*indices: int, **options: Any) -> bytes:
    read = records(b"\n".join(ODD))
    return render(read.records, selection(*indices), form="jsonl", whole=3.0, **options)


def test_lines_are_the_very_bytes() -> None:
    assert rendered(3, 0, 4, 2, 1) == b"".join(ODD[index] + b"\n" for index in (3, 0, 4, 2, 1))


def test_input_order() -> None:
    assert rendered(3, 0, 2, input_order=True) == b"".join(ODD[index] + b"\n" for index in (0, 2, 3))


def test_ids_only() -> None:
    assert rendered(3, 0, 2, ids_only=True) == b"4\na\nc\n"
    assert rendered(3, 0, 2, ids_only=True, input_order=True) == b"a\nc\n4\n"


def test_with_scores_adds_one_field_and_keeps_the_others() -> None:
    lines = rendered(3, 0, 2, with_scores=True).splitlines()
    scores = [json.loads(line)["delift"] for line in lines]
    assert [score["id"] for score in scores] == ["4", "a", "c"]
    assert [score["rank"] for score in scores] == [1, 2, 3]
    np.testing.assert_allclose([score["gain"] for score in scores], [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose([score["coverage"] for score in scores], np.cumsum([1, 1 / 2, 1 / 3]) / 3.0)
    for line, index in zip(lines, (3, 0, 2), strict=True):
        fields = json.loads(line)
        del fields["delift"]
        assert fields == json.loads(ODD[index])


def test_with_scores_keeps_the_bytes_of_the_rest() -> None:
    line = b'{"prompt": "p",  "response":"r", "n": 123456789012345678901234567890, "x": 1.10}\r'
    read = records(line)
    chosen = choose(np.ones((1, 1)), 1)
    written = render(read.records, chosen, form="jsonl", whole=1.0, with_scores=True)
    assert written.startswith(line.rstrip(b"}\r") + b', "delift": {')
    assert json.loads(written)["n"] == 123456789012345678901234567890
    # scores of an earlier selection are replaced, not repeated
    again = render(records(written).records, chosen, form="jsonl", whole=2.0, with_scores=True)
    assert again.count(b'"delift"') == 1
    assert json.loads(again)["delift"]["coverage"] == 0.5


def test_with_scores_in_input_order_keeps_ranks() -> None:
    lines = rendered(3, 0, 2, with_scores=True, input_order=True).splitlines()
    assert [json.loads(line)["delift"]["rank"] for line in lines] == [2, 3, 1]


def test_coverage_of_a_worthless_pool_is_zero() -> None:
    read = records(b"\n".join(ODD))
    written = render(read.records, choose(np.zeros((5, 5)), 2), form="jsonl", whole=0.0, with_scores=True)
    assert [json.loads(line)["delift"]["coverage"] for line in written.splitlines()] == [0.0, 0.0]


def test_array_form_is_one_json_array() -> None:
    read = records(b"\n".join(ODD))
    written = render(read.records, selection(1, 4), form="array", whole=1.0)
    assert json.loads(written) == [json.loads(ODD[1]), json.loads(ODD[4])]
    assert ODD[1] in written
    assert ODD[4] in written
    scored = json.loads(render(read.records, selection(1, 4), form="array", whole=1.0, with_scores=True))
    assert [record["delift"]["rank"] for record in scored] == [1, 2]


def test_with_scores_keeps_the_schema_of_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    path = tmp_path / "pool.parquet"
    columns = {
        "prompt": ["p"] * 5,
        "response": list("abcde"),
        "blob": [b"\xff"] * 5,
        "none": pa.array([None] * 5, "f8"),
    }
    pa.parquet.write_table(pa.table(columns), path)
    read = read_records(path)
    how: dict[str, Any] = {"form": "parquet", "whole": 3.0, "came": "parquet", "source": str(path)}
    said: list[str] = []
    out = render(read.records, selection(3, 0), with_scores=True, say=said.append, **how)
    table = pa.parquet.read_table(pa.BufferReader(out))
    assert table.drop_columns(["delift"]).equals(pa.parquet.read_table(path).take([3, 0]))
    assert [(score["id"], score["rank"]) for score in table["delift"].to_pylist()] == [("4", 1), ("1", 2)]
    assert said == []
    render(read.records, selection(3, 0), say=said.append, **{**how, "form": "jsonl"})
    assert len(said) == 1
    assert said[0].startswith("2 records with bytes that are no text")


# ---- where it goes


def test_file_is_compressed_where_its_name_says_so(tmp_path: Path) -> None:
    write(b"new", tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == b"new"


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"old and longer")
    write(b"new", file)
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_old_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as half:
            half.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"cannot write .*out\.jsonl: No space left on device"):
        write(b"new", file)
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_mode_of_a_file_stays(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"old")
    file.chmod(mode)
    write(b"new", file)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_a_draft_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious, file = tmp_path / "precious", tmp_path / "out.jsonl"
    precious.write_bytes(b"precious")
    (tmp_path / f".out.jsonl.{os.getpid()}").symlink_to(precious)
    write(b"new", file)
    assert (file.read_bytes(), precious.read_bytes()) == (b"new", b"precious")
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "precious"]


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_bytes(b"old")
    link = tmp_path / "link.jsonl"
    link.symlink_to("real.jsonl")
    write(b"new", link)
    assert link.is_symlink()
    assert (tmp_path / "real.jsonl").read_bytes() == b"new"


def test_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    """The same holds for /dev/null, which must never be replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(b"through", pipe)
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_stdout_that_takes_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unbuffered stdout is a raw file, whose write may return early."""

    class Raw(io.RawIOBase):
        taken = b""

        def write(self, data: Any) -> int:
            part = bytes(data[:3])
            self.taken += part
            return len(part)

    raw = Raw()
    monkeypatch.setattr(sys, "stdout", mock.Mock(buffer=raw))
    write(b"all of it", None)
    assert raw.taken == b"all of it"


@pytest.mark.parametrize("where", ["", "no/such/out.jsonl", "file/out.jsonl"])
def test_what_cannot_be_written_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot write"):
        write(b"new", tmp_path / where)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv"])
def test_of_no_record_a_file_has_no_line(form: str) -> None:
    assert written([], form) == (b"", "")

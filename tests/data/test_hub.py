"""Data sets of the hub, against a server on this machine: read, kept in the cache, read offline, and pushed."""

from __future__ import annotations

import gzip
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import environment, jsonl, make_cache, pair, pairs, start

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import Hub, hub

from delift_cli.cache.manifest import write_manifest
from delift_cli.data.hub import parse, split_of
from delift_cli.errors import InputError

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub() as running:
        running.datasets["us/pairs"] = {
            "README.md": b"# pairs",
            "data/train-00000-of-00002.jsonl": pairs(0, 1),
            "data/train-00001-of-00002.jsonl": pairs(2),
            "data/test.jsonl.gz": gzip.compress(pairs(7)),
        }
        running.datasets["us/configs"] = {"a/train.jsonl": pairs(0), "b/train.jsonl": pairs(1)}
        running.datasets["us/alike"] = {"a/train.jsonl": pairs(5), "ab/train.jsonl": pairs(6)}
        running.datasets["us/mixed"] = {"a/train.parquet": b"", "b/train.parquet": b"", "a/train.jsonl": pairs(0)}
        running.datasets["us/code"] = {"main.py": b"print()"}
        running.datasets["us/many"] = {f"images/{at}.png": b"" for at in range(50_000)} | {"train.jsonl": pairs(4)}
        yield running


def run(server: Hub, home: Path, *args: object, **env: str) -> tuple[int, bytes, str]:
    variables = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = start(*args, env=environment(**{**variables, "HF_HUB_DISABLE_XET": "1", **env}))
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err.decode()


def ids(out: bytes) -> list[str]:
    return [row["id"] for row in json.loads(out)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:us/pairs", ("us/pairs", None, None, None)),
        ("hf:us/pairs:test", ("us/pairs", None, None, "test")),
        ("hf:us/pairs@v2:a/test", ("us/pairs", "v2", "a", "test")),
        ("hf:gsm8k", ("gsm8k", None, None, None)),
    ],
)
def test_names(name: str, expected: tuple[Any, ...]) -> None:
    assert parse(name) == expected


def test_names_that_are_none() -> None:
    for name in ("hf:", "hf:a/b/c", "hf:a b", "hf:us/x:"):
        with pytest.raises(InputError, match="hf:owner/name"):
            parse(name)


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/train-00000-of-00002-1a2b3c4d5e6f7a8b.parquet", "train"),
        ("train.jsonl", "train"),
        ("train/0000.parquet", "train"),
        ("default/test/0.parquet", "test"),
        ("data/train_sft-00000-of-00001.parquet", "train_sft"),
        ("validation.csv.gz", "validation"),
        ("alpaca_data.json", "alpaca_data"),
    ],
)
def test_splits_by_the_names_of_files(file: str, split: str) -> None:
    assert split_of(file) == split


def test_read_then_offline(server: Hub, tmp_path: Path) -> None:
    code, out, err = run(server, tmp_path, "preview", "hf:us/pairs", "--json")
    assert (code, err) == (0, "")
    assert ids(out) == ["r0", "r1", "r2"]
    asked = len(server.asked)
    code, out, err = run(server, tmp_path, "preview", "hf:us/pairs", "--json", HF_HUB_OFFLINE="1")
    assert (code, ids(out)) == (0, ["r0", "r1", "r2"]), err
    assert len(server.asked) == asked
    code, out, err = run(server, tmp_path / "empty", "preview", "hf:us/pairs", HF_HUB_OFFLINE="1")
    assert (code, err.count("\n")) == (2, 1)
    assert "HF_HUB_OFFLINE is set" in err
    code, out, _ = run(server, tmp_path, "preview", "hf:us/pairs:test", "--json")
    assert ids(out) == ["r7"]


def test_nobody_answers(server: Hub, tmp_path: Path) -> None:
    """What the cache has is read; what it lacks is a refusal."""
    run(server, tmp_path, "preview", "hf:us/pairs")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}"
    code, out, err = run(server, tmp_path, "preview", "hf:us/pairs", "--json", HF_ENDPOINT=nobody)
    assert (code, ids(out)) == (0, ["r0", "r1", "r2"]), err
    code, _, err = run(server, tmp_path, "preview", "hf:us/configs", HF_ENDPOINT=nobody)
    assert (code, err.count("\n")) == (2, 1)
    assert "the hub cannot be asked" in err


@pytest.mark.parametrize("first", [0, 1])
def test_half_a_data_set_in_the_cache(server: Hub, tmp_path: Path, first: int) -> None:
    """A download that broke off is no data set, and what is read without asking is said."""
    names = [f"data/train-{first + at:05}-of-00003-{at}abc.jsonl" for at in range(3)]
    server.datasets["us/parts"] = {name: pairs(at) for at, name in enumerate(names)} | {"data/test.jsonl": pairs(9)}
    home = tmp_path / "home"
    run(server, home, "preview", "hf:us/parts")
    run(server, home, "preview", "hf:us/parts:test")
    code, out, err = run(server, home, "preview", "hf:us/parts", "--json", HF_HUB_OFFLINE="1")
    assert (code, ids(out)) == (0, ["r0", "r1", "r2"]), err
    code, out, err = run(server, home, "preview", "hf:us/parts", HF_HUB_OFFLINE="1")
    assert b"the hub cannot be asked (HF_HUB_OFFLINE is set): the files are those that its cache has, data/train" in out
    next(home.rglob("train-*-1abc.jsonl")).unlink()
    code, out, err = run(server, home, "preview", "hf:us/parts", "--json", HF_HUB_OFFLINE="1")
    assert (code, out, err.count("\n")) == (2, b"", 1), err
    assert f"its cache lacks data/train-{first + 1:05}-of-00003.jsonl of the split" in err
    code, out, err = run(server, home, "preview", "hf:us/parts:test", "--json", HF_HUB_OFFLINE="1")
    assert (code, ids(out)) == (0, ["r9"]), err


def test_more_files_than_the_hub_lists_at_once(server: Hub, tmp_path: Path) -> None:
    code, out, err = run(server, tmp_path, "preview", "hf:us/many", "--json")
    assert (code, ids(out)) == (0, ["r4"]), err


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("hf:us/pairs:dev", "there is no split 'dev'; there are test, train"),
        ("hf:us/none", "the hub has no such data set, or it is private"),
        ("hf:us/code", "has no file of records that delift reads; it has main.py"),
        ("hf:us/configs", "several configurations have the split: a, b; say which, as in hf:us/configs:a/train"),
        ("hf:us/mixed", "several configurations have the split: a, b; say which, as in hf:us/mixed:a/train"),
    ],
)
def test_refusals(server: Hub, tmp_path: Path, name: str, cause: str) -> None:
    code, _, err = run(server, tmp_path, "preview", name)
    assert (code, err.count("\n")) == (2, 1), err
    assert cause in err


def test_a_configuration(server: Hub, tmp_path: Path) -> None:
    _, out, err = run(server, tmp_path, "preview", "hf:us/configs:b/train", "--json")
    assert ids(out) == ["r1"], err
    _, out, err = run(server, tmp_path, "preview", "hf:us/alike:a/train", "--json")
    assert ids(out) == ["r5"], err


def test_a_split_in_two_kinds_of_files(server: Hub, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist([pair(3)]), sink)
    server.datasets["us/kinds"] = {"train.parquet": sink.getvalue().to_pybytes(), "train.jsonl": pairs(3)}
    _, out, err = run(server, tmp_path, "preview", "hf:us/kinds")
    assert b"train.jsonl is left, for the Parquet files have the split (1 record)" in b" ".join(out.split()), err


def test_push(server: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "c", jsonl([pair(number) for number in range(6)]))
    push = ("select", cache, "-k", "3", "--push", "hf:us/subset")
    code, _, err = run(server, tmp_path, *push)
    assert (code, err.count("\n")) == (1, 1), err
    assert "the hub did not take the subset (is HF_TOKEN set?)" in err
    code, out, err = run(server, tmp_path, *push, HF_TOKEN="hf_x")
    assert (code, out) == (0, b""), err
    assert f"pushed to {server.url}/datasets/us/subset/commit/" in err
    files = server.datasets["us/subset"]
    assert set(files) == {"README.md", "data/train.jsonl"}
    assert len(files["data/train.jsonl"].splitlines()) == 3
    card = files["README.md"].decode()
    for fact in (
        "3 of 6 in pool.jsonl",
        "made up",
        "--push hf:us/subset",
        "| seed | none",
        "| objective | topm, depth 3 |",
        "| euclidean, clip, exclude-answers, both |",
        "| value |",
    ):
        assert fact in card
    assert card.startswith("---\nconfigs:\n")
    # and back again, as a data set like any other
    _, out, _ = run(server, tmp_path, "preview", "hf:us/subset", "--json")
    assert len(ids(out)) == 3
    # what delift put there it replaces
    code, _, err = run(server, tmp_path, *push, HF_TOKEN="hf_x")
    assert code == 0, err


@pytest.mark.parametrize("there", ["README.md", "data/train.jsonl"])
def test_push_replaces_nothing_of_others(server: Hub, tmp_path: Path, there: str) -> None:
    cache = make_cache(tmp_path / "c", jsonl([pair(number) for number in range(6)]))
    server.datasets["us/theirs"] = {there: b"a long text", "other.txt": b""}
    push = ("select", cache, "-k", "3", "--push", "hf:us/theirs")
    code, _, err = run(server, tmp_path, *push, HF_TOKEN="hf_x")
    assert (code, err.splitlines()[-1].count(f"--push hf:us/theirs: {there} there would be replaced")) == (2, 1), err
    assert server.datasets["us/theirs"] == {there: b"a long text", "other.txt": b""}
    code, _, err = run(server, tmp_path, *push, "--force", HF_TOKEN="hf_x")
    assert code == 0, err
    assert server.datasets["us/theirs"][there] != b"a long text"


def test_push_where_the_records_came_from(server: Hub, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "c", jsonl([pair(number) for number in range(6)]))
    manifest = json.loads((cache / "manifest.json").read_bytes())
    manifest["examples"]["source"] = "more.jsonl, hf:us/Pairs@main:train"
    write_manifest(cache, manifest)
    before = dict(server.datasets["us/pairs"])
    for name in ("hf:us/pairs", "hf:pairs"):
        code, _, err = run(server, tmp_path, "select", cache, "-k", "3", "--push", name, HF_TOKEN="hf_x")
        assert (code, err.count("\n")) == (2, 1), err
        assert f"--push {name} is where the records came from (hf:us/Pairs@main:train); push elsewhere, or" in err
        assert server.datasets["us/pairs"] == before

"""No output destroys what it is made from, a cache, or another output: refused before anything is written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from tiny_runs import delift, environment, make_cache, pairs, start, tree

from delift_cli.cache.manifest import cache_around, read_manifest, write_manifest
from delift_cli.errors import InputError
from delift_cli.selection.run import select_records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool and a target set with their caches, which name them as tiny_runs does, and files that verbs read."""
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_bytes(pairs(*range(8)))
    Path("targets.jsonl").write_bytes(pairs(20, 21))
    make_cache(Path("pool.delift"), pairs(*range(8)))
    make_cache(Path("dev.delift"), pairs(*range(8)), pairs(20, 21))
    for name in ("always.txt", "never.txt"):
        Path(name).write_text({"always.txt": "r1\n", "never.txt": "r2\n"}[name])
    Path("subset.jsonl").write_bytes(pairs(1, 2))
    Path("bench.jsonl").write_bytes(pairs(30, 31))
    Path("link.jsonl").symlink_to("pool.jsonl")
    Path("of-cache").symlink_to("pool.delift/manifest.json")
    return tmp_path


SELECT = ("select", "pool.delift", "-k", "3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SELECT, "-o", "pool.jsonl"), "-o pool.jsonl is where the records came from"),
        ((*SELECT, "-o", "./../{folder}/pool.jsonl"), "is where the records came from"),
        ((*SELECT, "-o", "link.jsonl"), "-o link.jsonl is where"),
        ((*SELECT, "--curve", "pool.jsonl"), "--curve pool.jsonl is where"),
        ((*SELECT, "-o", "always.txt", "--always", "always.txt"), "is read for this"),
        ((*SELECT, "--curve", "never.txt", "--never", "never.txt"), "is read for this"),
        ((*SELECT, "-o", "bench.jsonl", "--not-like", "bench.jsonl:0.8"), "is read for this"),
        (("select", "--target", "dev.delift", "-k", "3", "-o", "targets.jsonl"), "-o targets.jsonl is where"),
        (("select", "--target", "dev.delift", "-k", "3", "-o", "pool.jsonl"), "-o pool.jsonl is where"),
        (("report", "pool.delift", "-o", "pool.jsonl"), "-o pool.jsonl is where"),
        (("report", "pool.delift", "--target", "dev.delift", "-o", "targets.jsonl"), "-o targets.jsonl is where"),
        (("report", "pool.delift", "--subset", "subset.jsonl", "-o", "subset.jsonl"), "-o subset.jsonl is where"),
    ],
)
def test_what_is_read_is_not_written_over(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    before = tree(folder)
    refused = delift(*(part.format(folder=folder.name) for part in arguments)).refusal()
    assert message in refused
    assert ("insist with --force" in refused) == (arguments[0] == "select")
    assert tree(folder) == before


@pytest.mark.parametrize(
    "place", ["pool.delift/manifest.json", "pool.delift/new.csv", "pool.delift/new/x", "dev.delift/x", "of-cache"]
)
@pytest.mark.parametrize("verb", [(*SELECT, "-o"), (*SELECT, "--curve"), ("report", "pool.delift", "-o")])
def test_nothing_is_written_into_a_cache(folder: Path, verb: tuple[str, ...], place: str) -> None:
    before = tree(folder)
    for insisting in ((), ("--force",)) if verb[0] == "select" else ((),):
        assert f"{verb[-1]} {place} lies in the cache " in delift(*verb, place, *insisting).refusal()
    assert tree(folder) == before


def test_a_cache_is_no_file_and_holds_no_other(folder: Path) -> None:
    before = tree(folder)
    assert "-o pool.delift is a cache, whose files are delift's own" in delift(*SELECT, "-o", "pool.delift").refusal()
    assert "lies in the cache" in delift("score", "pool.jsonl", "-o", "pool.delift/inner").refusal()
    assert tree(folder) == before
    Path("pool.delift/manifest.json").write_bytes(b'{"format": "delift-cache", dam')
    assert cache_around(Path("pool.delift/rows.npy")) == folder / "pool.delift"
    assert cache_around(folder) is None


@pytest.mark.parametrize(
    ("one", "other"), [("y.jsonl", "./y.jsonl"), ("there", "there"), ("there", "to-there"), ("to-none", "none")]
)
def test_two_outputs_are_two_files(folder: Path, one: str, other: str) -> None:
    Path("there").write_text("old")
    Path("to-there").symlink_to("there")
    Path("to-none").symlink_to("none")
    before = tree(folder)
    for insisting in ((), ("--force",)):
        refused = delift(*SELECT, "-o", one, "--curve", other, *insisting).refusal()
        assert f"--curve and -o are one file, {one}" in refused
    assert tree(folder) == before
    assert delift(*SELECT, "-o", "/dev/null", "--curve", "/dev/null").code == 0


@pytest.mark.parametrize("arguments", [("--curve",), ("--json", "-o")])
def test_the_file_that_stdout_goes_to_is_an_output_too(folder: Path, arguments: tuple[str, ...]) -> None:
    """What replaces it would leave the shell's file behind, with all that stdout got."""
    with Path("out.csv").open("wb") as out:
        process = start(*SELECT, *arguments, "out.csv", env=environment(), stdout=out)
        assert b"are one file, out.csv" in process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert Path("out.csv").read_bytes() == b""


def test_stdout_is_for_records_alone(folder: Path) -> None:
    assert "--curve -: give a file" in delift(*SELECT, "--curve", "-").refusal()
    assert "-o -: give a file" in delift("report", "pool.delift", "-o", "-").refusal()
    assert delift(*SELECT, "-o", "-", "-q").out.count(b"\n") == 3
    assert not Path("-").exists()


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("delift_cli.commands.select.select_records", begin)
    monkeypatch.setattr("delift_cli.commands.report.report_page", begin)
    monkeypatch.setattr("delift_cli.budget.opening.open_checked", begin)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no/such/x", "no/such/x: there is no folder {folder}/no/such; make it"),
        ("subset.jsonl/x", "subset.jsonl/x: there is no folder {folder}/subset.jsonl; make it"),
        ("to-nowhere", "to-nowhere: there is no folder {folder}/gone; make it"),
        ("closed/x", "closed/x: nothing can be written in {folder}/closed; give another place"),
        ("pool.delift/..", "pool.delift/.. is a folder; name a file in it"),
        ("", ". is a folder; name a file in it"),
    ],
)
@pytest.mark.parametrize("verb", [(*SELECT, "-o"), (*SELECT, "--curve"), ("report", "pool.delift", "-o")])
@pytest.mark.usefixtures("no_work")
def test_where_nothing_can_be_written_is_said_before_the_work(
    folder: Path, verb: tuple[str, ...], place: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("closed").mkdir()
    Path("to-nowhere").symlink_to("gone/x")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: os.path.basename(path) != "closed" and may(path, mode))
    assert f"{verb[-1]} {message.format(folder=folder)}" in delift(*verb, place).refusal()


@pytest.mark.usefixtures("no_work")
def test_a_cache_that_cannot_be_made_is_refused_before_the_model_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("closed").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: os.path.basename(path) != "closed" and may(path, mode))
    for there in ("pool.jsonl", "closed"):
        refused = delift("score", "pool.jsonl", "-o", f"{there}/new/c").refusal()
        assert f"{there}/new/c cannot be made: {folder / there} is no folder that can be written to" in refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ids-only", "-o", "x.jsonl"), "x.jsonl: ids are lines of text"),
        (("-o", "x.parquet"), 'pip install "delift-cli[data]"'),
        (("-o", "x.jsonl.zst"), 'x.jsonl.zst: to compress with zstd: pip install "delift-cli[data]"'),
        (("--push", "name", "--force"), "name: give a data set of the hub as hf:owner/name"),
        (("--push", "hf:a/b:train", "--force"), "--push hf:a/b:train: give hf:owner/name, without a split"),
    ],
)
@pytest.mark.usefixtures("folder", "no_work")
def test_what_cannot_be_written_so_is_said_before_the_work(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert message in delift(*SELECT, *arguments).refusal()
    assert "to compress with zstd" in delift("report", "pool.delift", "-o", "r.html.zst").refusal()


def test_a_source_is_found_from_elsewhere_and_in_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches keep names as they were given: beside the cache, above it, or a folder of shards."""
    Path("elsewhere").mkdir()
    shutil.copytree("pool.delift", "caches/deep/pool.delift")
    monkeypatch.chdir("elsewhere")
    for cache in ("../pool.delift", "../caches/deep/pool.delift"):
        assert "is where the records" in delift("select", cache, "-k", 3, "-o", "../pool.jsonl").refusal()
    assert delift("select", "../pool.delift", "-k", 3, "-o", "pool.jsonl").code == 0  # another of that name
    monkeypatch.chdir(folder)
    Path("shards").mkdir()
    for name in ("a.jsonl", "b.jsonl", "notes.txt"):
        (Path("shards") / name).write_bytes(pairs(1))
    written = read_manifest(Path("pool.delift"))
    written["examples"]["source"] = "shards, other.jsonl"
    write_manifest(Path("pool.delift"), written)
    for name, code in (("shards/b.jsonl", 2), ("shards/notes.txt", 0), ("shards/new.jsonl", 0)):
        assert delift(*SELECT, "-q", "-o", name).code == code, name


def test_who_insists_writes_over_what_is_read(folder: Path) -> None:
    want = delift(*SELECT, "-q").out
    assert delift(*SELECT, "-q", "-o", "pool.jsonl", "--force").code == 0
    assert Path("pool.jsonl").read_bytes() == want
    subset = select_records("pool.delift", 3, never="never.txt")
    for name in ("pool.jsonl", "never.txt"):
        with pytest.raises(InputError, match=f"{name} is where .* insist with force=True"):
            subset.write(name)
    with pytest.raises(InputError, match="lies in the cache"):
        subset.write("pool.delift/manifest.json", force=True)
    subset.write("never.txt", force=True)
    assert Path("never.txt").read_bytes() == subset.render()
    assert os.path.islink("link.jsonl")

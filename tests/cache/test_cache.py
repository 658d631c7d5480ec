"""Caches: nothing computed is lost, and nothing damaged or foreign is used or overwritten."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dying import died, failing_from
from tiny_runs import (
    ARRAYS,
    DESCRIPTION,
    QUICK,
    array_bytes,
    arrays,
    delift,
    fill,
    jsonl,
    make_cache,
    model,
    open_cache,
    pairs,
    records,
    said,
    score,
    start,
    tree,
)

from delift_cli.cache import dense, lock, npy
from delift_cli.cache.dense import ROW, Cache, open_for_scoring
from delift_cli.cache.manifest import BASE_CRC
from delift_cli.errors import InputError, RunError
from delift_cli.model import log

POOL = pairs(*range(6))
MORE = pairs(*range(9))
DEV = pairs(20, 21, 22)


def finished(path: Path) -> int:
    """Rows that a running process has counted as done."""
    try:
        return int((np.load(path / "rows.npy")["done"] > 0).sum())
    except (OSError, EOFError, ValueError):
        return 0


# ---- a cache that is well


def test_numpy_alone_reads_every_array(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL, DEV)
    code = (
        "import sys, numpy as np\n"
        f"shapes = {{name: np.load(f'{path}/{{name}}.npy', mmap_mode='r') for name in {ARRAYS!r}}}\n"
        "print({name: (a.shape, str(a.dtype), a.flags.c_contiguous) for name, a in shapes.items()})\n"
        "assert not any(name.startswith('delift') for name in sys.modules)\n"
    )
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=tmp_path)
    shapes = eval(read.stdout)
    assert shapes == {
        "distance": ((6, 3), "float32", True),
        "logprob": ((6, 3), "float32", True),
        "base_distance": ((3,), "float32", True),
        "base_logprob": ((3,), "float32", True),
        "base_crc": ((3,), str(BASE_CRC), True),
        "example_tokens": ((6,), "int32", True),
        "response_tokens": ((3,), "int32", True),
        "rows": ((6,), str(ROW), True),
    }


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL, DEV)
    cache = Cache(path)
    for example in range(6):
        distance, logprob = said(example, np.arange(3))
        np.testing.assert_array_equal(cache.distance[example], distance)
        np.testing.assert_array_equal(cache.logprob[example], logprob)
    np.testing.assert_array_equal(cache.base_distance, said(-1, np.arange(3))[0])
    np.testing.assert_array_equal(cache.base_logprob, said(-1, np.arange(3))[1])
    assert cache.complete
    assert not cache.square
    cache.check_rows()
    assert b"".join(r.raw + b"\n" for r in cache.examples().records) == POOL
    assert [r.id for r in cache.targets().records] == ["r20", "r21", "r22"]


def test_square_cache_keeps_records_once(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    assert Cache(path).square
    assert not (path / "targets.jsonl").exists()
    assert Cache(path).targets().records == Cache(path).examples().records


def test_new_cache_says_what_is_not_scored(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", POOL, DEV):
        pass
    cache = Cache(tmp_path / "c")
    assert np.isnan(cache.distance).all()
    assert np.isnan(cache.base_logprob).all()
    assert (cache.rows["done"] == 0).all()
    assert not cache.complete


@pytest.mark.parametrize("name", ["base_distance", "base_logprob", "base_crc"])
def test_half_a_base_is_not_complete(tmp_path: Path, name: str) -> None:
    """Whatever of a target's measurements is lacking, both count as missing, and are measured again; but a target
    that is scored behind an example has lost them."""
    path = tmp_path / "c"
    with open_cache(path, POOL, DEV) as cache:
        fill(cache, [])
    whole = array_bytes(path)
    lost = np.load(path / f"{name}.npy", mmap_mode="r+")
    lost[1] = 0 if name == "base_crc" else np.nan
    np.load(path / "base_crc.npy", mmap_mode="r+")[1] = 0  # it is written last
    for cache in (Cache(path), open_cache(path, POOL, DEV)):
        assert not cache.complete
        assert np.isnan(cache.base_distance[1])
        assert np.isnan(cache.base_logprob[1])
    with cache:
        cache.write_base(0, *said(-1, np.arange(3)))
        assert array_bytes(path) == whole
        fill(cache)
    np.load(path / "base_crc.npy", mmap_mode="r+")[1] = 0
    with pytest.raises(InputError, match=r"damaged: base_distance\.npy does not match"), open_cache(path, POOL, DEV):
        pass


def test_ids_and_lines_survive(tmp_path: Path) -> None:
    data = b'\n\n{"prompt": "a", "response": "b"}\n\n{"id": "x", "prompt": "c", "response": "d"}\n'
    path = make_cache(tmp_path / "c", data)
    assert [(r.id, r.line) for r in Cache(path).examples().records] == [("3", 3), ("x", 5)]


# ---- resuming


def test_resume_after_any_row(tmp_path: Path) -> None:
    whole = array_bytes(make_cache(tmp_path / "whole", POOL, DEV))
    for stop in range(6):
        path = tmp_path / f"stop{stop}"
        with open_cache(path, POOL, DEV) as cache:
            fill(cache, range(stop))
        assert finished(path) == stop
        with open_cache(path, POOL, DEV) as cache:
            fill(cache)
        assert array_bytes(path) == whole


def test_half_written_row_is_not_counted(tmp_path: Path) -> None:
    """Bytes of a row that reached the disk before rows.npy did are written again, not trusted."""
    path = tmp_path / "c"
    with open_cache(path, POOL, DEV) as cache:
        fill(cache, [0, 1])
        cache._files["distance"].write(2 * 3, np.array([0.5, 0.5], np.float32))
    assert (Cache(path).rows["done"] == [3, 3, 0, 0, 0, 0]).all()
    with open_cache(path, POOL, DEV) as cache:
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "whole", POOL, DEV))


def test_rows_counts_only_after_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cache(tmp_path / "c", POOL, DEV) as cache:
        names = {file.file: name for name, file in cache._files.items()}
        events: list[tuple[str, str]] = []
        sync, write = npy.sync, npy.write_all
        monkeypatch.setattr(npy, "sync", lambda f: (events.append(("sync", names[f])), sync(f))[1])
        monkeypatch.setattr(npy, "write_all", lambda f, *r: (events.append(("write", names[f])), write(f, *r))[1])
        cache.write_row(1, *said(1, np.arange(3)))
        assert events == [
            ("write", "distance"),
            ("write", "logprob"),
            ("sync", "distance"),
            ("sync", "logprob"),
            ("write", "rows"),
        ]
        cache.write_base(0, *said(-1, np.arange(3)))
        assert events[-2:] == [("write", "base_crc"), ("sync", "base_crc")]
        assert {("sync", "base_distance"), ("sync", "base_logprob")} <= {*events[:-2]}
    assert ("sync", "rows") in events  # the count is on disk when the run is over


def test_complete_cache_is_left_as_it_is(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    before = array_bytes(path)
    with open_cache(path, POOL) as cache:
        assert cache.complete
    assert array_bytes(path) == before


# ---- one writer at a time


def test_second_writer_is_refused_with_the_pid(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", POOL) as cache:
        with pytest.raises(RunError, match=rf"pid {os.getpid()}\b"):
            open_cache(tmp_path / "c", POOL)
        fill(cache)  # the first one is not disturbed
    with open_cache(tmp_path / "c", POOL) as cache:
        assert cache.complete


def test_lock_is_free_after_a_refusal(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", POOL)
    with pytest.raises(InputError):
        open_cache(tmp_path / "c", DEV)
    with open_cache(tmp_path / "c", POOL):
        pass


def test_reading_needs_no_lock(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", POOL) as cache:
        fill(cache, [0])
        assert Cache(tmp_path / "c").rows["done"][0] == 6


# ---- a run in a process of its own, ended in every way


@pytest.fixture(scope="module")
def slow_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve records whose scoring takes some seconds."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    lines = [
        {"id": f"s{i}", "prompt": f"count from {i}", "response": " ".join(words[(i * k + k) % 10] for k in range(60))}
        for i in range(12)
    ]
    file = tmp_path_factory.mktemp("slow") / "slow.jsonl"
    file.write_bytes(jsonl(lines))
    return file


@pytest.fixture(scope="module")
def uninterrupted(slow_pool: Path) -> Path:
    path = slow_pool.parent / "whole"
    assert score(slow_pool, "-o", path, "-q").code == 0
    return path


def begin(pool: Path, path: Path, rows: int) -> subprocess.Popen[bytes]:
    """A run that has just finished some rows and was stopped (SIGSTOP) there."""
    process = start("score", pool, "-o", path, "-m", model(), *QUICK)
    give_up = time.monotonic() + 60
    while finished(path) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def test_kill_and_resume(slow_pool: Path, uninterrupted: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed"
    process = begin(slow_pool, path, 3)
    try:
        refused = score(slow_pool, "-o", path).refusal(1)
        assert f"pid {process.pid})" in refused
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = finished(path)
    assert 3 <= done < 12
    left = delift("select", path, "-k", "2").refusal()
    assert f"{done} of 12 rows" in left
    resumed = score(slow_pool, "-o", path, "--json")
    assert resumed.json["pairs_scored"] == (12 - done) * 12
    assert array_bytes(path) == array_bytes(uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_and_resume(slow_pool: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "interrupted"
    process = begin(slow_pool, path, 2)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == b""
    line = err.decode().splitlines(keepends=True)[-1]
    assert line.startswith("delift: interrupted" if number == signal.SIGINT else f"delift: ended by {number.name}")
    assert line.endswith("; what delift score has scored is safe, the same command goes on from there\n")
    assert err.count(b"delift: ") == 1, err
    assert 2 <= finished(path) < 12
    assert score(slow_pool, "-o", path, "-q").code == 0
    assert array_bytes(path) == array_bytes(uninterrupted)


def test_same_run_twice_gives_the_same_bytes(slow_pool: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert score(slow_pool, "-o", tmp_path / "again", "-q").code == 0
    assert array_bytes(tmp_path / "again") == array_bytes(uninterrupted)


# ---- growing


def test_growing_keeps_every_old_value(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    before = {name: array.copy() for name, array in arrays(path).items()}
    with open_cache(path, MORE) as cache:
        assert (cache.rows["done"] == [6] * 6 + [0] * 3).all()
        np.testing.assert_array_equal(cache.distance[:6, :6], before["distance"])
        np.testing.assert_array_equal(cache.logprob[:6, :6], before["logprob"])
        assert np.isnan(cache.distance[:, 6:]).all()
        assert np.isnan(cache.distance[6:]).all()
        np.testing.assert_array_equal(cache.base_distance[:6], before["base_distance"])
        assert np.isnan(cache.base_distance[6:]).all()
        cache.check_rows()  # checksums of the part that is there still hold
        fill(cache)
    # `said` depends on nothing but the pair, so a fresh cache must have the same bytes
    assert tree(path) == tree(make_cache(tmp_path / "fresh", MORE))


@pytest.mark.parametrize(
    ("examples", "targets"), [(MORE, DEV), (POOL, pairs(20, 21, 22, 23)), (MORE, pairs(20, 21, 22, 23))]
)
def test_growing_a_rectangle(tmp_path: Path, examples: bytes, targets: bytes) -> None:
    path = make_cache(tmp_path / "c", POOL, DEV)
    with open_cache(path, examples, targets) as cache:
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", examples, targets))
    assert [r.id for r in Cache(path).targets().records] == [r.id for r in Cache(tmp_path / "fresh").targets().records]


def test_growing_an_unfinished_cache_twice(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with open_cache(path, pairs(0, 1, 2, 3)) as cache:
        fill(cache, [0, 2])
    with open_cache(path, POOL) as cache:
        fill(cache, [0, 1])
    with open_cache(path, MORE) as cache:
        assert (cache.rows["done"] == [6, 6, 4, 0, 0, 0, 0, 0, 0]).all()
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", MORE))


EDITS = {
    "appended": (MORE, [*range(6)]),
    "inserted": (pairs(0, 1, 7, 2, 3, 4, 5), [0, 1, -1, 2, 3, 4, 5]),
    "removed": (pairs(0, 2, 3, 5), [0, 2, 3, 5]),
    "reordered": (pairs(5, 3, 0, 1, 4, 2), [5, 3, 0, 1, 4, 2]),
    "a label edited": (pairs(0, 1, 9, 3, 4, 5), [0, 1, -1, 3, 4, 5]),
    "all at once": (pairs(9, 5, 4, 8, 1, 0, 7), [-1, 5, 4, -1, 1, 0, -1]),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_files_keep_what_applies(tmp_path: Path, name: str) -> None:
    edited, places = EDITS[name]
    path = make_cache(tmp_path / "c", POOL)
    before = {name: np.array(array) for name, array in arrays(path).items()}
    n = len(edited.splitlines())
    old = np.array([*places, *[-1] * (n - len(places))])
    with open_cache(path, edited) as cache:
        kept = np.flatnonzero(old >= 0)
        for name_ in ("distance", "logprob"):
            np.testing.assert_array_equal(
                getattr(cache, name_)[np.ix_(kept, kept)], before[name_][old[kept]][:, old[kept]]
            )
        for example in range(n):
            want = np.flatnonzero(old < 0) if old[example] >= 0 else np.arange(n)
            np.testing.assert_array_equal(cache.missing(example), want)
        cache.check_rows()
        np.testing.assert_array_equal(np.isnan(cache.base_distance), old < 0)
        assert (cache.reused is None) == (name == "appended")
    again = open_cache(path, edited)
    with again:
        again.check_rows()
    # what a model says depends on the pair alone, so the numbers are those of the records, wherever they stand now
    assert Cache(path).record_bytes("examples") == edited
    assert [r.id for r in Cache(path).examples().records] == [json.loads(line)["id"] for line in edited.splitlines()]


def test_an_edited_cache_still_says_which_machines_measured(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with open_cache(path, POOL) as cache:
        cache.took_part("a box with two GPUs", 0.004)
        fill(cache)
    with open_cache(path, MORE) as cache:
        cache.took_part("this one")
    run = json.loads((path / "manifest.json").read_text())["run"]
    assert run == {**DESCRIPTION["run"], "machines": {"a box with two GPUs": 0.004, "this one": None}}


def test_a_cache_is_edited_again_before_it_is_finished(tmp_path: Path) -> None:
    """Rows with holes in other places, a kill in one of them, another edit: nothing that was scored is lost."""
    path = make_cache(tmp_path / "c", POOL)
    with open_cache(path, pairs(0, 7, 1, 2, 3, 4, 5)) as cache:
        cache.write_base(0, *said(-1, np.arange(7)))
        cache.write_row(2, *said(2, cache.missing(2)))
        cache._files["distance"].write(3 * 7 + 1, np.array([0.25], np.float32))  # killed within a row
    with open_cache(path, pairs(0, 7, 8, 1, 2, 3, 4, 5)) as cache:
        cache.check_rows()
        assert [len(cache.missing(example)) for example in range(8)] == [2, 8, 8, 1, 2, 2, 2, 2]
        assert cache.missing(3).tolist() == [2]
        fill(cache)
    cache = Cache(path)
    assert cache.complete
    cache.check_rows()
    assert cache.distance[3, 1] == said(2, np.array([1]))[0][0]
    assert cache.distance[0, 1] == said(0, np.array([1]))[0][0]


def test_copies_keep_their_order(tmp_path: Path) -> None:
    twice = jsonl([{"prompt": "p", "response": "r"}] * 2 + [{"prompt": "q", "response": "s"}])
    path = make_cache(tmp_path / "c", twice)
    before = np.array(Cache(path).distance)
    lines = twice.splitlines(keepends=True)
    with open_cache(path, b"".join([lines[2], *lines[:2]])) as cache:
        np.testing.assert_array_equal(cache.distance, before[[2, 0, 1]][:, [2, 0, 1]])
        assert cache.complete


def test_a_record_with_another_number_of_tokens_is_new(tmp_path: Path) -> None:
    """The same text in another template would be another number: what was measured is told by its length too."""
    path = make_cache(tmp_path / "c", POOL)
    tokens_there = np.load(path / "example_tokens.npy")
    sets = records(POOL), None
    lengths = {"example_tokens": [*tokens_there[:5], 99], "response_tokens": [t - 8 for t in tokens_there]}
    with open_for_scoring(path, DESCRIPTION, *sets, **lengths) as cache:
        assert len(cache.missing(5)) == 6
        assert cache.missing(4).tolist() == [5]
        assert np.flatnonzero(np.isnan(cache.base_distance)).tolist() == [5]


@pytest.mark.parametrize(("name", "step"), [("appended", 0), ("all at once", 1)])
def test_kill_while_a_cache_changes(tmp_path: Path, name: str, step: int) -> None:
    """A process dies (no clean-up runs) before some file operation of a change: every one in tests/bench/kills.py."""
    edited, _ = EDITS[name]
    old = make_cache(tmp_path / "old", POOL)
    with open_cache(shutil.copytree(old, tmp_path / "fresh"), edited) as cache:
        fill(cache)
    n, want = len(edited.splitlines()), tree(tmp_path / "fresh")
    killed = True
    seen: set[bool] = set()
    while killed:
        path = tmp_path / "c"
        shutil.copytree(old, path)
        killed = died(step, lambda: open_cache(path, edited).__exit__(None))  # noqa: B023
        before = tree(path)
        reader = Cache(path)  # a reader may be the next one to open it
        assert tree(path) == before
        reader.check_rows()
        changed = reader.record_bytes("examples") == edited
        assert reader.shape == ((n, n) if changed else (6, 6))
        assert len(reader.examples().records) == reader.shape[0]
        if not changed and step % 3 == 0:
            with open_cache(path, POOL) as cache:  # the old data still fit, and no debris is left
                assert cache.complete
            assert not list(path.glob("generation-*"))
        with open_cache(path, edited) as cache:
            fill(cache)
        assert {**tree(path), "lock": b""} == {**want, "lock": b""}
        shutil.rmtree(path)
        seen.add(changed)
        step += 5
    assert seen == {False, True}
    assert step > 40


def test_reading_while_the_cache_changes(tmp_path: Path) -> None:
    """Readers in a loop beside a writer that edits to and fro: always one state or the other, and no help needed."""
    path = make_cache(tmp_path / "c", POOL)
    states = {pairs(*range(6)): 6, MORE: 9, pairs(8, 1, 2, 7, 4): 5}
    child = os.fork()
    if child == 0:
        try:
            for turn in range(60):
                open_cache(path, [MORE, pairs(8, 1, 2, 7, 4), MORE, POOL][turn % 4]).__exit__(None)
            os._exit(0)
        finally:
            os._exit(1)
    read = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        cache = Cache(path)
        cache.check_rows()
        assert states[cache.record_bytes("examples")] == cache.shape[0]
        read += 1
    assert read > 20
    assert os.waitstatus_to_exitcode(0) == 0


@pytest.mark.parametrize("step", [1, 2, *range(0, 60, 9)])
def test_kill_while_a_cache_is_made(tmp_path: Path, step: int) -> None:
    path = tmp_path / "c"
    died(step, lambda: make_cache(path, POOL, DEV))
    make_cache(path, POOL, DEV)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", POOL, DEV))
    assert sorted(os.listdir(tmp_path)) == ["c", "fresh"]


def test_caches_of_format_1_are_read_and_made_anew(tmp_path: Path) -> None:
    for edited in (POOL, MORE):
        path = make_cache(tmp_path / f"c{len(edited)}", POOL)
        want = {name: np.array(array) for name, array in arrays(path).items()}
        as_format_1(path)
        old = Cache(path)
        assert old.complete
        old.check_rows()
        before = tree(path)
        assert delift("select", path, "-k", "2", "--ids-only").code == 0
        assert {name: data for name, data in tree(path).items() if not name.startswith("gains")} == before
        with open_cache(path, edited) as cache:
            fill(cache)
        new = Cache(path)
        new.check_rows()
        assert new.version == 2
        np.testing.assert_array_equal(new.distance[:6, :6], want["distance"])
        assert new.complete


def as_format_1(path: Path) -> None:
    """What a cache looked like before everything had a checksum."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    for name in ("base_distance", "base_logprob"):
        manifest["checksums"][name] = npy.checksum([np.load(path / f"{name}.npy")])
    del manifest["checksum"], manifest["files"], manifest["examples"]["ids"], manifest["targets"]["ids"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 1, "pending": []}))
    (path / "base_crc.npy").unlink()


def test_growing_with_the_model_scores_only_what_is_new(tmp_path: Path) -> None:
    pool, path = tmp_path / "pool.jsonl", tmp_path / "c"
    pool.write_bytes(pairs(*range(5)))
    assert score(pool, "-o", path, "-q").code == 0
    before = {name: array.copy() for name, array in arrays(path).items()}
    pool.write_bytes(pairs(*range(8)))
    grown = score(pool, "-o", path, "--json")
    assert grown.json["pairs_scored"] == 8 * 8 - 5 * 5
    after = arrays(path)
    for name in ("distance", "logprob"):
        assert after[name].shape == (8, 8)
        assert after[name][:5, :5].tobytes() == before[name].tobytes()
    for name in ("base_distance", "base_logprob"):
        assert after[name][:5].tobytes() == before[name].tobytes()
    assert score(pool, "-o", tmp_path / "fresh", "-q").code == 0
    fresh = arrays(tmp_path / "fresh")
    for name in ("distance", "logprob", "base_distance", "base_logprob"):
        np.testing.assert_allclose(after[name], fresh[name], rtol=0, atol=1e-5)
    again = score(pool, "-o", path, "--json")
    assert again.json["pairs_scored"] == 0


# ---- the disk


def test_failing_disk_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    real = os.pwrite

    def full(file: int, data: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_cache(path, POOL) as cache:
        fill(cache, [0, 1])
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(RunError, match=r"no space left .*run the same command again"):
            fill(cache, [2])
    monkeypatch.setattr(os, "pwrite", real)
    assert finished(path) == 2
    with open_cache(path, POOL) as cache:
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", POOL))


def test_a_cache_that_goes_away_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved, and the hours behind it would be told as nothing; removed, and they would be for nothing."""
    path, elsewhere = tmp_path / "c", tmp_path / "elsewhere"
    monkeypatch.setattr(dense, "SYNC_SECONDS", 3600.0)
    cache = open_cache(path, POOL)
    fill(cache, [0])
    path.rename(elsewhere)
    row = said(1, cache.missing(1))
    cache.write_row(1, *row)  # not noticed on every row
    monkeypatch.setattr(dense, "SYNC_SECONDS", -1.0)
    with pytest.raises(RunError, match="c is gone: it was moved or removed"):
        cache.write_row(2, *row)
    with pytest.raises(RunError, match="c is gone: it was moved or removed"):
        cache.__exit__(None)
    elsewhere.rename(path)
    with open_cache(path, POOL) as cache:
        fill(cache)
    assert finished(path) == 6


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_the_disk_fails_at_any_moment(tmp_path: Path, error: int) -> None:
    """While a cache is made, scored and made larger: one line, no debris, and when it is mended the run goes on."""
    want = tree(make_cache(tmp_path / "fresh", MORE))
    failed = 0
    for step in range(0, 150, 7):
        path = tmp_path / "c"
        told = []
        try:
            with failing_from(step, error):
                make_cache(path, POOL)
                make_cache(path, MORE)
        except RunError as refusal:
            told.append(str(refusal))
        assert all(str(path) in line and "\n" not in line for line in told)
        failed += len(told)
        make_cache(path, MORE)
        assert tree(path) == want
        assert sorted(os.listdir(tmp_path)) == ["c", "fresh"]
        shutil.rmtree(path)
    assert failed > 10


def test_room_is_taken_before_a_cache_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrices do not fit: refused with the figures, and not a byte of them was written."""
    written = 0

    def full(_file: int, _offset: int, size: int) -> None:
        if size > 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def count(file: int, data: Any, offset: int) -> int:
        nonlocal written
        written += len(data)
        return len(data)

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(os, "pwrite", count)
    with pytest.raises(RunError, match=r"no space left for .*: 0\.0 MB are needed and [\d,.]+ MB are free"):
        open_cache(tmp_path / "c", POOL)
    assert written == 0
    assert os.listdir(tmp_path) == []


def test_two_processes_make_one_cache(tmp_path: Path) -> None:
    """All find nothing there; one makes it, the others are refused in one line or, if that has ended, go on with it."""
    for turn in range(6):
        path, children = tmp_path / f"c{turn}", []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    with contextlib.suppress(RunError):  # being written by another delift
                        make_cache(path, POOL)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        assert array_bytes(path) == array_bytes(make_cache(path, POOL))
    assert sorted(os.listdir(tmp_path)) == [f"c{turn}" for turn in range(6)]


def test_a_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    """Even if its pid is another process's by now: the kernel forgets a lock with its holder."""
    path = make_cache(tmp_path / "c", POOL)
    (path / "lock").write_text(str(os.getppid()))
    with open_cache(path, POOL):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = make_cache(tmp_path / "c", POOL)
    monkeypatch.setattr(lock.fcntl, "flock", none)
    with pytest.raises(
        RunError, match="this file system keeps no second process out; score into a directory on a local"
    ):
        open_cache(path, POOL)


def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:3], offset))
    path = make_cache(tmp_path / "c", POOL)
    monkeypatch.undo()
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", POOL))


def test_full_disk_when_a_cache_is_made(tmp_path: Path) -> None:
    """Under a file-size limit the matrices do not fit (EFBIG, which counts as a full disk)."""
    pool, path = tmp_path / "pool.jsonl", tmp_path / "c"
    pool.write_bytes(pairs(*range(16)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

    process = start("score", pool, "-o", path, "-m", model(), *QUICK, preexec_fn=limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out == b""
    assert err.decode().startswith(f"delift: no space left for {path}")
    assert err.count(b"\n") == 1
    assert os.listdir(tmp_path) == ["pool.jsonl"]  # no half of a cache is left
    assert score(pool, "-o", path, "-q").code == 0


def test_full_disk_when_a_cache_is_locked(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    (path / "lock").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with lock.take_lock(path), pytest.raises(RunError, match=r"another delift \(pid unknown\)"):
            lock.take_lock(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_when_a_cache_grows(tmp_path: Path) -> None:
    pool, path = tmp_path / "pool.jsonl", tmp_path / "c"
    make_cache(path, POOL)
    before = array_bytes(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    try:
        with pytest.raises(RunError, match="no space left"):
            open_cache(path, MORE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert array_bytes(path) == before
    assert not list(path.glob("generation-*"))  # what was begun gives its room back
    with open_cache(path, POOL) as cache:
        assert cache.complete
    with open_cache(path, MORE) as cache:
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", MORE))
    assert not pool.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        pool, path = tmp_path / "pool.jsonl", disk / "c"
        pool.write_bytes(pairs(*range(8)))
        filler = disk / "filler"
        filler.write_bytes(bytes(1008 << 10))
        refused = score(pool, "-o", path).refusal(1)
        assert refused.startswith(f"no space left for {path}")
        assert os.listdir(disk) == ["filler"]
        filler.unlink()
        assert score(pool, "-o", path, "-q").code == 0
        assert score(pool, "-o", tmp_path / "roomy", "-q").code == 0
        assert array_bytes(path) == array_bytes(tmp_path / "roomy")
    finally:
        log.log_to(None)
        subprocess.run(["umount", disk], check=True)


# ---- damaged, foreign, newer


def _truncate(file: str) -> Any:
    def damage(path: Path) -> None:
        os.truncate(path / file, (path / file).stat().st_size - 4)

    return damage


def _write(file: str, data: bytes) -> Any:
    return lambda path: (path / file).write_bytes(data)


def _save(file: str, array: np.ndarray) -> Any:
    return lambda path: np.save(path / file, array)


def _manifest(**changes: Any) -> Any:
    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_bytes())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return damage


def _without(*names: str) -> Any:
    def damage(path: Path) -> None:
        manifest = inner = json.loads((path / "manifest.json").read_bytes())
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def _flip(file: str, at: int) -> Any:
    def damage(path: Path) -> None:
        data = bytearray((path / file).read_bytes())
        data[at] ^= 1
        (path / file).write_bytes(data)

    return damage


DAMAGE = {
    "truncated matrix": (_truncate("distance.npy"), r"damaged: distance\.npy"),
    "truncated rows": (_truncate("rows.npy"), r"damaged: rows\.npy"),
    "empty array": (_write("logprob.npy", b""), r"damaged: logprob\.npy"),
    "missing array": (lambda path: (path / "base_logprob.npy").unlink(), r"damaged: base_logprob\.npy"),
    "not an array": (_write("base_distance.npy", b"garbage" * 30), r"damaged: base_distance\.npy"),
    "wrong shape": (_save("distance.npy", np.zeros((6, 5), np.float32)), r"damaged: distance\.npy .*\(6, 5\)"),
    "wrong dtype": (_save("distance.npy", np.zeros((6, 6))), r"damaged: distance\.npy .*float64"),
    "wrong token counts": (_save("example_tokens.npy", np.ones(7, np.int32)), r"damaged: example_tokens\.npy"),
    "too many done": (_save("rows.npy", np.full(6, 7, np.int32).astype(ROW)), r"damaged: rows\.npy"),
    "garbage manifest": (_write("manifest.json", b"\xff{"), r"damaged: manifest\.json"),
    "empty manifest": (_write("manifest.json", b""), r"damaged: manifest\.json"),
    "manifest of something else": (_write("manifest.json", b'{"name": "app"}'), "not a delift cache"),
    "manifest is a list": (_write("manifest.json", b"[]"), "not a delift cache"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), r"damaged: manifest\.json is missing"),
    "newer version": (_manifest(version=3), r"cache format 3, this delift reads 1 and 2"),
    "version is true": (_manifest(version=True), r"cache format true, this delift reads 1 and 2"),
    "another name in the manifest": (_manifest(model={"name": "x", "sha256": "0" * 64}), r"match its checksum"),
    "files elsewhere": (_manifest(files="../../etc"), r"manifest\.json has no proper files"),
    "files in a missing folder": (_manifest(files="generation-2"), r"damaged: manifest\.json does not match"),
    "no records in the manifest": (_without("examples"), r"damaged: manifest\.json has no proper examples"),
    "no hash": (_without("targets", "sha256"), r"damaged: manifest\.json has no proper targets\.sha256"),
    "no model": (_without("model"), r"damaged: manifest\.json has no proper model"),
    "no settings": (_without("settings"), r"damaged: manifest\.json has no proper settings"),
    "count is text": (_manifest(examples={"count": "6"}), r"damaged: manifest\.json"),
    "changed record": (_flip("examples.jsonl", 20), r"damaged: examples\.jsonl is not what was scored"),
    "records cut off": (_truncate("examples.jsonl"), r"damaged: examples\.jsonl is not what was scored"),
    "no records": (lambda path: (path / "examples.jsonl").unlink(), r"damaged: examples\.jsonl"),
    "flipped bit in a distance": (_flip("distance.npy", 128 + 4 * 8), r"damaged: row 1 of distance\.npy or logprob"),
    "flipped bit in a logprob": (_flip("logprob.npy", -1), r"damaged: row 5 of distance\.npy or logprob"),
    "flipped bit in a checksum": (_flip("rows.npy", -1), "damaged: row 5"),
    "flipped bit in a base's checksum": (_flip("base_crc.npy", -1), r"damaged: base_logprob\.npy does not match"),
    "flipped bit in an id": (_flip("examples.ids.json", 4), r"damaged: examples\.ids\.json does not match"),
    "flipped bit in a base": (_flip("base_distance.npy", -1), r"damaged: base_distance\.npy does not match"),
    "flipped bit in the other base": (_flip("base_logprob.npy", 128), r"damaged: base_logprob\.npy does not match"),
    "flipped bit in a token count": (_flip("example_tokens.npy", 128), r"damaged: example_tokens\.npy does not match"),
    "flipped bit in the other": (_flip("response_tokens.npy", 128), r"damaged: response_tokens\.npy does not match"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_and_nothing_is_touched(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    path, pool = make_cache(tmp_path / "c", POOL), tmp_path / "pool.jsonl"
    pool.write_bytes(POOL)
    damage(path)
    (path / "lock").unlink()
    before = tree(path)
    with pytest.raises(InputError, match=message):
        open_cache(path, POOL)
    for verb in (("select", path, "-k", 2), ("inspect", path)):
        refused = delift(*verb).refusal()
        assert str(path) in refused
    after = tree(path)
    after.pop("lock", None)
    assert after == before


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'[["a"]]', b"[" + b'["a", 1],' * 5 + b"1]", b"\xff"])
def test_damaged_ids_are_refused(tmp_path: Path, damage: bytes) -> None:
    path = make_cache(tmp_path / "c", POOL)
    (path / "examples.ids.json").write_bytes(damage)
    assert "damaged: examples.ids.json" in delift("select", path, "-k", 2).refusal()


def test_foreign_directory_is_not_touched(tmp_path: Path) -> None:
    pool, path = tmp_path / "pool.jsonl", tmp_path / "photos"
    pool.write_bytes(POOL)
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"precious")
    refused = score(pool, "-o", path).refusal()
    assert "not a delift cache" in refused
    assert tree(path) == {"holiday.jpg": b"precious"}  # not even a lock file


def test_file_in_the_way(tmp_path: Path) -> None:
    pool, path = tmp_path / "pool.jsonl", tmp_path / "notes.txt"
    pool.write_bytes(POOL)
    path.write_bytes(b"precious")
    assert f"{path} is a file" in score(pool, "-o", path).refusal()
    assert path.read_bytes() == b"precious"


def test_records_in_place_of_a_cache(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(POOL)
    assert delift("select", pool).refusal() == f"{pool} is a file, not a cache; make one with: delift score {pool}"
    assert "no such cache" in delift("select", tmp_path / "nowhere").refusal()


def test_a_folder_that_nobody_may_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert delift("select", tmp_path / "c").refusal(1) == f"{tmp_path / 'c'}: Permission denied"


def test_unwritable_place(tmp_path: Path) -> None:
    blocked, pool = tmp_path / "file", tmp_path / "pool.jsonl"
    blocked.write_bytes(b"")
    pool.write_bytes(POOL)
    result = score(pool, "-o", blocked / "c")
    assert "file/c cannot be made" in result.refusal()


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(RunError) as told:
        open_cache(tmp_path / "c", POOL)
    assert str(told.value) == f"cannot write {tmp_path / 'c'}: Permission denied"


# ---- made with something else


def _changed(**changes: Any) -> dict[str, Any]:
    return {name: {**value, **changes.get(name, {})} for name, value in DESCRIPTION.items()}


@pytest.mark.parametrize(
    ("description", "fields"),
    [
        (_changed(model={"sha256": "1" * 64}), ["model.sha256"]),
        (_changed(template={"text": "other"}), ["template.text"]),
        (_changed(settings={"kv_type": "q8_0"}), ["settings.kv_type"]),
        (_changed(settings={"truncate": 512}), ["settings.truncate"]),
        (_changed(weights={"type": "bf16"}), ["weights.type"]),
        (_changed(metric={"distance": "other"}), ["metric.distance"]),
        (_changed(fields={"prompt": "q"}), ["fields.prompt"]),
        (
            _changed(model={"sha256": "1" * 64}, template={"text": "other"}, settings={"kv_type": "f32"}),
            ["model.sha256", "template.text", "settings.kv_type"],
        ),
    ],
)
def test_mismatch_names_each_field(tmp_path: Path, description: dict[str, Any], fields: list[str]) -> None:
    path = make_cache(tmp_path / "c", POOL)
    before = tree(path)
    with pytest.raises(InputError) as refused:
        open_cache(path, POOL, description=description)
    message = str(refused.value)
    for field in fields:
        assert f"{field} (there " in message
    assert message.count("(there ") == len(fields)
    assert "\n" not in message
    assert {**tree(path), "lock": b""} == {**before, "lock": b""}


def test_another_name_of_the_same_model_is_no_mismatch(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    with open_cache(path, POOL, description=_changed(model={"name": "renamed"}, template={"name": "renamed"})):
        pass


@pytest.mark.parametrize(
    ("examples", "targets", "message"),
    [
        (pairs(7, 1, 8, 3, 9, 10), DEV, r"examples \(only 2 of its 6 examples are among the 6 given now\)"),
        (pairs(0, 1), DEV, r"examples \(only 2 of its 6 examples are among the 2 given now\)"),
        (POOL, pairs(20, 23, 24), r"targets \(only 1 of its 3 targets are among the 3 given now\)"),
        (POOL, None, "targets: the pool itself in one"),
    ],
)
def test_mismatching_records_are_named(tmp_path: Path, examples: bytes, targets: bytes | None, message: str) -> None:
    path = make_cache(tmp_path / "c", POOL, DEV)
    before = array_bytes(path)
    with pytest.raises(InputError, match=message):
        open_cache(path, examples, targets)
    assert array_bytes(path) == before


def test_mismatch_through_the_command(tmp_path: Path) -> None:
    pool, path, template = tmp_path / "pool.jsonl", tmp_path / "c", tmp_path / "own.jinja"
    pool.write_bytes(pairs(0, 1, 2))
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert score(pool, "-o", path, "-q").code == 0
    before = array_bytes(path)
    for options, field in (
        (("--template", "plain"), "template.text"),
        (("--template", template), "template.text"),
        (("--kv-type", "f32"), "settings.kv_type"),
        (("--truncate",), "settings.truncate"),
        (("--prompt-field", "prompt"), "fields.prompt"),
    ):
        assert field in score(pool, "-o", path, *options).refusal()
    assert array_bytes(path) == before


def test_what_the_user_keeps_in_a_cache_stays(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    mine = {
        "subset.jsonl": b"mine",
        "notes.npy": b"mine",
        "rounds": b"mine",
        "generation-x": b"mine",
        "a.grown": b"mine",
    }
    for name, data in mine.items():
        (path / name).write_bytes(data)
    with open_cache(path, EDITS["all at once"][0]) as cache:
        fill(cache)
    there = tree(path)
    assert {name: there[name] for name in mine} == mine


def test_a_file_system_without_second_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the files of a changed cache stay in their folder, and everything else is the same."""

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    want = make_cache(tmp_path / "fresh", MORE)
    monkeypatch.setattr(os, "link", no_link)
    path = make_cache(tmp_path / "c", pairs(*range(4)))
    for data in (POOL, MORE):
        with open_cache(path, data) as cache:
            fill(cache)
        with open_cache(path, data) as cache:
            assert cache.complete
            cache.check_rows()
    assert Cache(path).manifest["files"] == "generation-3"
    assert {name: data for name, data in tree(path / "generation-3").items()} == {
        name: data for name, data in tree(want).items() if name not in ("lock", "manifest.json")
    }
    monkeypatch.undo()  # on another file system they take their places
    with open_cache(path, MORE):
        pass
    assert tree(path) == tree(want)


def test_a_row_that_is_seen_half_written_is_read_again() -> None:
    half, whole = (np.array([(5, crc)], ROW) for crc in (0, 77))

    class Written:
        """What an array looks like while an element of it is written."""

        def __init__(self) -> None:
            self.seen = iter((half, whole, whole))

        def __array__(self, dtype: object = None, copy: object = None) -> npt.NDArray[Any]:
            return next(self.seen)

    assert npy.settled(Written()).tolist() == [(5, 77)]  # type: ignore[arg-type]

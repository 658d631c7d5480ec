"""Caches: nothing computed is lost, and nothing damaged or foreign is used or overwritten."""

from __future__ import annotations

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
import pytest
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
    said,
    score,
    start,
    tree,
)

from delift_cli.cache import dense, manifest, stored
from delift_cli.cache.dense import ROW, Cache
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


def test_base_without_logprob_is_not_complete(tmp_path: Path) -> None:
    """A kill between the two writes of `write_base` must not leave NaN that nobody computes again."""
    with open_cache(tmp_path / "c", POOL, DEV) as cache:
        order: list[str] = []
        write = cache._write
        cache._write = lambda name, *rest: (order.append(name), write(name, *rest))[1]  # type: ignore[method-assign]
        cache.write_base(0, *said(-1, np.arange(3)))
        # `missing` is decided by the distance, so it must come last
        assert order == ["base_logprob", "base_distance"]
        fill(cache)
        assert cache.complete
        cache._write("base_logprob", 1, np.array([np.nan], np.float32))
        assert not cache.complete


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
        cache._write("distance", 2 * 3, np.array([0.5, 0.5], np.float32))
    assert (Cache(path).rows["done"] == [3, 3, 0, 0, 0, 0]).all()
    with open_cache(path, POOL, DEV) as cache:
        fill(cache)
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "whole", POOL, DEV))


def test_rows_counts_only_after_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cache(tmp_path / "c", POOL, DEV) as cache:
        names = {file: name for name, file in cache._files.items()}
        events: list[tuple[str, str]] = []
        sync, write = dense.sync, stored.write_all
        monkeypatch.setattr(dense, "sync", lambda f: (events.append(("sync", names[f])), sync(f))[1])
        monkeypatch.setattr(stored, "write_all", lambda f, *r: (events.append(("write", names[f])), write(f, *r))[1])
        cache.write_row(1, *said(1, np.arange(3)))
    assert events == [
        ("write", "distance"),
        ("write", "logprob"),
        ("sync", "distance"),
        ("sync", "logprob"),
        ("write", "rows"),
    ]


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


def test_ctrl_c_and_resume(slow_pool: Path, uninterrupted: Path, tmp_path: Path) -> None:
    path = tmp_path / "interrupted"
    process = begin(slow_pool, path, 2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == b""
    line = err.decode()
    assert line.startswith("delift: interrupted")
    assert line.count("\n") == 1, line
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
    assert array_bytes(path) == array_bytes(make_cache(tmp_path / "fresh", MORE))
    assert Cache(path).manifest["examples"] == Cache(tmp_path / "fresh").manifest["examples"]
    assert not list(path.glob("*.grown"))


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


def test_checksums_follow_growing(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c", POOL)
    with open_cache(path, MORE) as cache:
        assert set(cache.manifest["checksums"]) == {"example_tokens", "response_tokens"}
    Cache(path).check_rows()  # between growing and scoring
    with open_cache(path, MORE) as cache:
        fill(cache)
    Cache(path).check_rows()
    want = Cache(make_cache(tmp_path / "fresh", MORE)).manifest["checksums"]
    assert Cache(path).manifest["checksums"] == want
    assert set(want) == {"example_tokens", "response_tokens", "base_distance", "base_logprob"}


def test_kill_at_every_step_of_growing(tmp_path: Path) -> None:
    """A process dies (no clean-up runs) before each write, sync and rename of growing, one after the other."""
    old = make_cache(tmp_path / "old", POOL)
    want = array_bytes(make_cache(tmp_path / "fresh", MORE))
    step, killed = 0, True
    while killed:
        path = tmp_path / f"step{step}"
        shutil.copytree(old, path)
        killed = _grow_and_die(path, step)
        manifest = json.loads((path / "manifest.json").read_bytes())
        took_place = manifest["examples"]["count"] == 9
        n = 9 if took_place else 6
        reader = Cache(path)  # a reader may be the next one to open it
        assert reader.shape == (n, n)
        reader.check_rows()
        assert len(reader.examples().records) == n
        np.testing.assert_array_equal(reader.distance[:6, :6], arrays(old)["distance"])
        if not took_place:
            with open_cache(path, POOL) as cache:  # the old data still fit, and no debris is left
                assert cache.complete
            assert not list(path.glob("*.grown"))
        with open_cache(path, MORE) as cache:
            fill(cache)
        assert array_bytes(path) == want
        assert not list(path.glob("*.grown"))
        step += 1
    assert step > 15  # each of nine files, the manifest twice, the renames


def _grow_and_die(path: Path, step: int) -> bool:
    """Grow in a child that is gone at the given step; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = step

        def before(call: Any) -> Any:
            def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    os._exit(9)
                left -= 1
                return call(*args, **kwargs)

            return counted

        try:
            stored.write_file = before(stored.write_file)  # type: ignore[assignment]
            manifest.write_file = before(manifest.write_file)  # type: ignore[assignment]
            os.fsync = before(os.fsync)  # type: ignore[assignment]
            Path.replace = before(Path.replace)  # type: ignore[method-assign]
            open_cache(path, MORE)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


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
    assert not list(path.glob("*.grown"))  # what was begun gives its room back
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
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "not a delift cache"),
    "newer version": (_manifest(version=2), r"cache format 2, this delift reads 1"),
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


def test_unwritable_place(tmp_path: Path) -> None:
    blocked, pool = tmp_path / "file", tmp_path / "pool.jsonl"
    blocked.write_bytes(b"")
    pool.write_bytes(POOL)
    result = score(pool, "-o", blocked / "c")
    assert "file/c" in result.refusal(1)


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
        (pairs(0, 1, 7, 3, 4, 5), DEV, r"examples \(record 3, now r7, was another one\)"),
        (pairs(0, 1, 2), DEV, r"examples \(there 6 records, now 3\)"),
        (POOL, pairs(20, 21), r"targets \(there 3 records, now 2\)"),
        (POOL, pairs(20, 23, 22), r"targets \(record 2, now r23"),
        (POOL, None, "targets: the pool itself in one"),
        (pairs(5, 4, 3, 2, 1, 0), pairs(22, 21, 20), r"examples \(record 1.*targets \(record 1"),
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

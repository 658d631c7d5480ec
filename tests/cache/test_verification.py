"""`delift verify`: what is damaged is named, and just that is computed again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bit_flips import flips, kept, silently_used, used
from tiny_runs import delift, model, pairs, score, tree

from delift_cli.cache.sparse import SparseCache

N = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of all pairs and one of some, scored and selected from."""
    folder = tmp_path_factory.mktemp("verified")
    (folder / "pool.jsonl").write_bytes(pairs(*range(N)))
    assert score(folder / "pool.jsonl", "-o", folder / "whole", "-q").code == 0
    assert score(folder / "pool.jsonl", "-o", folder / "part", "--budget", "60%", "-q").code == 0
    assert delift("select", folder / "whole", "-k", "3", "-q").code == 0
    return folder


def flip(file: str, at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray((path / file).read_bytes())
        data[at] ^= 4
        (path / file).write_bytes(data)

    return damage


def cut(file: str, to: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / file, to)


def gone(file: str) -> Callable[[Path], None]:
    return lambda path: os.unlink(path / file)


def kept_flipped(path: Path) -> None:
    (file,) = (path / "gains").glob("*.bin")
    flip(f"gains/{file.name}", 9)(path)


DAMAGE = {
    "a distance": ("whole", flip("distance.npy", 128 + 4 * (2 * N + 3)), "distance.npy, logprob.npy", N),
    "two rows": ("whole", flip("logprob.npy", -1), "distance.npy, logprob.npy", N),
    "a header": ("whole", flip("distance.npy", 30), "distance.npy", 0),
    "a short matrix": ("whole", cut("logprob.npy", 128 + 4 * (N * N - 3)), "logprob.npy", N),
    "no matrix": ("whole", gone("distance.npy"), "distance.npy", N * N),
    "a count": ("whole", flip("rows.npy", 128), "rows.npy", N),
    "no counts": ("whole", gone("rows.npy"), "rows.npy", N * N),
    "a count too short": ("whole", cut("rows.npy", 128 + 8 * (N - 2)), "rows.npy", 2 * N),
    "no checksums of the base": ("whole", gone("base_crc.npy"), "base_crc.npy", 0),
    "no checksums of a round's base": ("part", gone("base_crc.npy"), "base_crc.npy", 0),
    "a row's checksum": ("whole", flip("rows.npy", 128 + 5), "distance.npy, logprob.npy", N),
    "a base": ("whole", flip("base_distance.npy", 130), "base_distance.npy", 0),
    "a base's checksum": ("whole", flip("base_crc.npy", -1), "base_logprob.npy", 0),
    "no tokens": ("whole", gone("example_tokens.npy"), "example_tokens.npy", 0),
    "a token count": ("whole", flip("response_tokens.npy", 128), "response_tokens.npy", 0),
    "kept gains": ("whole", kept_flipped, "gains/", 0),
    "a result of a round": ("part", flip("round-1/distance.npy", 130), "round-1", -1),
    "no results": ("part", gone("round-1/logprob.npy"), "round-1/logprob.npy", -1),
    "the mark of an end": ("part", flip("round-1/ended", 3), "round-1/ended", 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_named_and_computed_again(folder: Path, tmp_path: Path, name: str) -> None:
    kind, damage, file, again = DAMAGE[name]
    path = shutil.copytree(folder / kind, tmp_path / "c")
    assert delift("verify", path, "--json").json["sound"]
    if name == "the mark of an end":
        path.joinpath("round-1/ended").write_bytes((sorted(path.glob("round-*/ended"))[-1]).read_bytes())
    before = tree(path)
    damage(path)
    damaged = tree(path)
    found = delift("verify", path, "--json")
    assert found.code == 1
    assert found.json["damages"][0]["file"].startswith(file)
    assert tree(path) == damaged  # only --repair writes
    mended = delift("verify", path, "--repair", "-m", model(), "--threads", "1", "--json")
    assert mended.code == 0, mended
    assert mended.json["repaired"]
    if again >= 0:
        assert mended.json["pairs_scored"] == again
    else:
        assert 0 < mended.json["pairs_scored"] <= len(SparseCache(path).rounds[0])
    after = tree(path)
    for kept_or_lock in [name for name in before if name == "lock" or (name not in after and "gains" in name)]:
        after[kept_or_lock] = before[kept_or_lock]
    if name == "the mark of an end":  # a round without it may be gone on with, which is safe
        after["round-1/ended"] = before["round-1/ended"]
    assert after == before


def test_a_damaged_plan_goes_and_the_later_rounds_move_up(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder / "part", tmp_path / "c")
    rounds = SparseCache(path).rounds
    assert len(rounds) > 2
    flip("round-2/targets.npy", -1)(path)
    assert "round-2 is damaged" in delift("select", path, "-k", "2").refusal()
    assert delift("verify", path, "--repair", "-m", model()).code == 0
    left = SparseCache(path)
    left.check_rows()
    assert [len(part) for part in left.rounds] == [len(part) for part in (rounds[0], *rounds[2:])]
    shutil.rmtree(path / "round-2")  # a hole is not the end
    assert "round-2 is missing" in delift("select", path, "-k", "2").refusal()
    assert delift("verify", path, "--repair").code == 0
    assert len(SparseCache(path).rounds) == len(rounds) - 2


@pytest.mark.parametrize("file", ["examples.jsonl", "examples.ids.json"])
def test_records_cannot_be_computed_again(folder: Path, tmp_path: Path, file: str) -> None:
    path = shutil.copytree(folder / "whole", tmp_path / "c")
    flip(file, 5)(path)
    damaged = tree(path)
    assert file in delift("verify", path).out.decode()
    assert "cannot be computed again" in delift("verify", path, "--repair").refusal()
    assert tree(path) == damaged


def test_lost_pairs_of_an_earlier_round_are_refused_and_scored_again(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder / "part", tmp_path / "c")
    want = tree(path)
    rows = np.load(path / "round-1" / "rows.npy", mmap_mode="r+")
    lost = int(rows["done"][:3].sum())
    rows[:3] = 0  # the disk never got them
    rows.flush()
    assert f"lost {lost} pairs of round 1" in delift("select", path, "-k", "2").refusal()
    again = score(folder / "pool.jsonl", "-o", path, "--json")
    assert again.json["pairs_scored"] == lost
    assert {**tree(path), "lock": b"", "llama.cpp.log": b""} == {**want, "lock": b"", "llama.cpp.log": b""}


@pytest.mark.parametrize("kind", ["whole", "part"])
def test_no_flipped_bit_is_used_silently(folder: Path, kind: str) -> None:
    """A few of each file; tests/bench/flips.py turns over hundreds."""
    cache = folder / kind
    clean = used(cache), kept(cache)
    places = [*flips(cache, 60, seed=5)]
    assert [place for place in places if silently_used(cache, *place, clean)] == []
    assert (used(cache), kept(cache)) == clean


def test_what_is_verified_without_a_model_needs_none(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder / "whole", tmp_path / "c")
    kept_flipped(path)
    assert delift("verify", path, "--repair", "-m", tmp_path / "nowhere.gguf").code == 0
    assert not [*(path / "gains").iterdir()]


@pytest.mark.parametrize("how", ["gone", "zeros", "cut"])
def test_lost_counts_of_the_last_round_are_scored_again(tmp_path: Path, how: str) -> None:
    pool, cache = tmp_path / "pool.jsonl", tmp_path / "c"
    pool.write_bytes(pairs(*range(10)))
    assert score(pool, "-o", cache, "-q", "--budget", "45%").code == 0
    whole = tree(cache)
    rows = max(cache.glob("round-*/rows.npy"))
    data = rows.read_bytes()
    rows.unlink() if how == "gone" else rows.write_bytes(bytes(len(data)) if how == "zeros" else data[: len(data) // 2])
    assert delift("verify", cache, "--repair", "-m", model(), "--threads", "1").code == 0
    assert delift("verify", cache).code == 0
    changed = {name for name, content in tree(cache).items() if whole.get(name) != content}
    assert changed <= {"lock", "llama.cpp.log"}

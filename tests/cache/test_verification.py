"""`delift verify`: what is damaged is named, and just that is computed again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_flips import flips, kept, silently_used, used
from dying import failing_from
from gguf_models import write_model
from tiny_runs import delift, fill, make_cache, model, open_cache, pairs, said, score, tree

from delift_cli.cache.dense import Cache, CacheWriter
from delift_cli.cache.repair import repaired
from delift_cli.cache.sparse import SparseCache
from delift_cli.cache.verification import examine
from delift_cli.errors import RunError
from delift_cli.scoring.repair import verify

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


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for each in damages:
            each(path)

    return damage


def zeroed(file: str, start: int = 128) -> Callable[[Path], None]:
    """What the disk never got, as it looks after a power cut."""

    def damage(path: Path) -> None:
        data = (path / file).read_bytes()
        (path / file).write_bytes(data[:start] + bytes(len(data[start:])))

    return damage


def last_round(path: Path) -> Path:
    return path / f"round-{len(SparseCache(path).rounds)}"


def counted_nothing(path: Path) -> None:
    """An example without pairs in a round counts with a checksum."""
    part = next(part for part in SparseCache(path).rounds if (np.diff(part.indptr) == 0).any())
    rows = np.load(part.path / "rows.npy", mmap_mode="r+")
    rows["crc"][np.flatnonzero(np.diff(part.indptr) == 0)[0]] = 5
    rows.flush()


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
    "a lost base": ("whole", zeroed("base_crc.npy", -8), "base_distance.npy", 0),
    "lost bases": ("whole", both(zeroed("base_crc.npy"), gone("base_distance.npy")), "base_distance.npy", 0),
    "a lost base of rounds": ("part", zeroed("base_crc.npy", -8), "base_distance.npy", 0),
    "a row and a base": (
        "whole",
        both(flip("distance.npy", -1), flip("base_distance.npy", -1)),
        "base_distance.npy",
        N,
    ),
    "a matrix and what counts it": ("whole", both(gone("logprob.npy"), gone("rows.npy")), "rows.npy", N * N),
    "no tokens": ("whole", gone("example_tokens.npy"), "example_tokens.npy", 0),
    "a token count": ("whole", flip("response_tokens.npy", 128), "response_tokens.npy", 0),
    "kept gains": ("whole", kept_flipped, "gains/", 0),
    "a result of a round": ("part", flip("round-1/distance.npy", 130), "round-1", -1),
    "no results": ("part", gone("round-1/logprob.npy"), "round-1/logprob.npy", -1),
    "counts of the last round": ("part", lambda path: zeroed(f"{last_round(path).name}/rows.npy")(path), "round-", -1),
    "a count of no pairs": ("part", counted_nothing, "round-", 0),
    "the mark of an end": ("part", flip("round-1/ended", 3), "round-1/ended", 0),
}


@pytest.mark.parametrize(("kind", "error"), [("whole", errno.EACCES), ("part", errno.EMFILE)])
def test_what_this_process_may_not_read_is_no_damage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: int
) -> None:
    """A sound file of another user, or one too many, is not replaced by a repair."""
    path, real = tmp_path / "c", os.open
    shutil.copytree(folder / kind, path)
    before = tree(path)
    for name in sorted(before):
        if name in ("lock", "llama.cpp.log"):
            continue

        def kept_out(file: Any, *rest: Any, out: str = str(path / name), **options: Any) -> int:
            if str(file) == out:
                raise OSError(error, os.strerror(error), str(file))
            return real(file, *rest, **options)

        monkeypatch.setattr(os, "open", kept_out)
        with pytest.raises(RunError) as told:
            verify(path, repair=True, model=str(model()))
        assert str(told.value) == f"{path / name} cannot be read: {os.strerror(error)}"
        monkeypatch.setattr(os, "open", real)
    assert tree(path) == before


def test_one_of_a_kind_is_one(folder: Path, tmp_path: Path) -> None:
    one, two = (shutil.copytree(folder / "whole", tmp_path / name) for name in "ab")
    for damage in (flip("distance.npy", 128 + 4 * (2 * N + 3)), flip("base_distance.npy", 130)):
        damage(one)
        damage(two)
    for damage in (flip("logprob.npy", -1), flip("base_distance.npy", -1)):
        damage(two)
    assert {damage.what for damage in examine(one)} == {
        "row 2 does not match its checksum",
        "target 0 does not match its checksum or has none",
    }
    assert {damage.what for damage in examine(two)} == {
        "2 rows do not match their checksums, the first is 2",
        "2 targets do not match their checksums or have none, the first is 0",
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


def test_what_is_called_nearly_as_a_round_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder / "part", tmp_path / "c")
    for name in ("round-01", "round-0", "round-x", "round-2.bak"):
        shutil.copytree(path / "round-1", path / name)
    (path / "round-007").write_bytes(b"a file")
    before = tree(path)
    assert len(SparseCache(path).rounds) == len(SparseCache(folder / "part").rounds)
    for command in (("verify", path), ("verify", path, "--repair"), ("select", path, "-k", "2")):
        assert delift(*command).code == 0
    assert {name: data for name, data in tree(path).items() if name in before} == before


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_what_is_called_as_a_round_and_is_no_folder_is_named_and_removed(
    folder: Path, tmp_path: Path, first: bool, kind: str
) -> None:
    path = shutil.copytree(folder / "part", tmp_path / "c")
    rounds, elsewhere = len(SparseCache(path).rounds), tmp_path / "elsewhere"
    there = path / ("round-1" if first else f"round-{rounds + 1}")
    if first:
        there.rename(elsewhere)
    else:
        shutil.copytree(path / "round-1", elsewhere)
    if kind == "a link":
        there.symlink_to(elsewhere)
    else:
        there.write_bytes(b"a file")
    kept = tree(elsewhere)
    found = delift("verify", path, "--json")
    assert (found.code, found.json["damages"][0]["file"]) == (1, there.name)
    assert delift("verify", path, "--repair", "-q").code == 0
    assert len(SparseCache(path).rounds) == rounds - first
    assert tree(elsewhere) == kept


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


REPAIRS = {
    "a row and a base": ("whole", both(flip("distance.npy", -1), flip("base_distance.npy", -1))),
    "files that cannot be opened": ("whole", both(cut("logprob.npy", 140), gone("rows.npy"), gone("base_crc.npy"))),
    "some pairs": ("part", both(flip("round-1/distance.npy", 130), flip("base_logprob.npy", -1))),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_a_refused_repair_changes_nothing(folder: Path, tmp_path: Path, name: str) -> None:
    kind, damage = REPAIRS[name]
    path = shutil.copytree(folder / kind, tmp_path / "c")
    damage(path)
    damaged, found = tree(path), delift("verify", path, "--json")
    other = tmp_path / "other.gguf"
    write_model(other, seed=1)
    assert "another model" in delift("verify", path, "--repair", "-m", other).refusal()
    assert "nowhere.gguf" in delift("verify", path, "--repair", "-m", tmp_path / "nowhere.gguf").refusal()
    assert tree(path) == damaged
    assert delift("verify", path, "--json") == found
    assert found.code == 1


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_that_fails_on_the_way_leaves_what_is_damaged_named(folder: Path, tmp_path: Path, name: str) -> None:
    """From any step on nothing reaches the disk, as after a kill; a repair that comes to its end mends every byte."""
    kind, damage = REPAIRS[name]
    whole, failed = without_lock(folder / kind), 0
    repair = ("--repair", "-m", model(), "--threads", "1", "-q")
    for step in range(0, 200, 3):
        path = shutil.copytree(folder / kind, tmp_path / f"{step}")
        damage(path)
        with failing_from(step, errno.ENOSPC):
            code = delift("verify", path, *repair).code
        if code:
            failed += 1
            assert delift("verify", path).code == (0 if without_lock(path) == whole else 1), step
            assert delift("verify", path, *repair).code == 0
        assert without_lock(path) == whole, step
        if not code:
            break
    assert code == 0
    assert failed > 3


def without_lock(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(path).items() if name not in ("lock", "llama.cpp.log")}


def test_what_is_not_scored_yet_is_said_and_is_no_damage(folder: Path, tmp_path: Path) -> None:
    whole = delift("verify", folder / "whole", "--json").json
    assert (whole["sound"], whole["complete"]) == (True, True)
    for kind, words in (("whole", f"0 of {N} rows are scored"), ("part", "planned pairs are scored")):
        path = shutil.copytree(folder / kind, tmp_path / kind)
        if kind == "part":
            (last_round(path) / "ended").unlink()
        zeroed("rows.npy" if kind == "whole" else f"{last_round(path).name}/rows.npy")(path)
        found = delift("verify", path)
        assert found.code == 0
        assert f"{words}; the same delift score command goes on" in found.out.decode()
        found = delift("verify", path, "--repair", "--json")
        assert (found.json["sound"], found.json["complete"], found.json["pairs_scored"]) == (True, False, 0)


def test_scored_targets_without_a_base_are_not_used(folder: Path, tmp_path: Path) -> None:
    for kind in ("whole", "part"):
        path = shutil.copytree(folder / kind, tmp_path / kind)
        zeroed("base_crc.npy", -8)(path)
        for verb in (("inspect", path), ("select", path, "-k", "2")):
            assert "base_distance.npy does not match its checksum; see delift verify" in delift(*verb).refusal()
        assert "see delift verify" in score(folder / "pool.jsonl", "-o", path).refusal()


@pytest.mark.parametrize("kind", ["whole", "part"])
@pytest.mark.parametrize("file", ["examples.jsonl", "examples.ids.json", "manifest.json"])
def test_a_lost_or_changed_file_that_cannot_be_made_again_is_named(
    folder: Path, tmp_path: Path, kind: str, file: str
) -> None:
    for how in (gone(file), flip(file, -12), lambda path: (path / file).write_bytes(b"")):
        path = shutil.copytree(folder / kind, tmp_path / "c")
        flip("baselines/" + next((path / "baselines").glob("*.bin")).name, 9)(path)  # named beside it, where it can be
        how(path)
        damaged, found = tree(path), delift("verify", path, "--json")
        assert found.code == 1
        assert found.json["damages"][0]["file"] == file
        assert found.json["damages"][0]["repair"] is None
        assert "see delift verify" not in str(found.json)
        assert len(found.json["damages"]) == 1 + (file != "manifest.json")
        assert "score the records into a new directory" in delift("verify", path).out.decode()
        assert "score the records into a new directory" in delift("verify", path, "--repair").refusal()
        assert tree(path) == damaged
        shutil.rmtree(path)


@pytest.mark.parametrize("damage", [flip("known.npy", -1), gone("known.npy"), cut("known.npy", 129)])
def test_which_targets_a_row_has_is_lost(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Rows that are not complete are scored again, and until all of them are it stays named."""
    path, edited = make_cache(tmp_path / "c", pairs(*range(6))), pairs(0, 1, 7, 2, 3, 4, 5)
    with open_cache(path, edited) as cache:
        cache.write_base(0, *said(-1, np.arange(7)))
        fill(cache, [0, 2])
    damage(path)
    for done in (0, 3, 5):
        assert examine(path)[0].file == "known.npy"
        with repaired(path) as (writer, lost):
            assert isinstance(writer, CacheWriter)
            assert (lost.rows, lost.targets) == ([5, 6] if done == 5 else [1, 3, 4, 5, 6], [])
            for row in lost.rows[:done]:
                writer.forget_row(row)
                writer.write_row(row, *said(row, writer.missing(row)))
    assert examine(path) == []
    assert Cache(path).complete
    assert not (path / "known.npy").exists()

"""Converted weights, the measured choice among them, forecasts and `delift bench`, on a tiny model."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from tiny_runs import delift, pairs

from delift_cli.errors import InputError, RunError
from delift_cli.machine import kept as kept_room
from delift_cli.machine.kept import read_book, remember
from delift_cli.model import converted, processor
from delift_cli.model.gguf import ModelFile
from delift_cli.scoring import tuning
from delift_cli.scoring.cluster.content import content_of, keep, take_part
from delift_cli.scoring.way import BOOK
from delift_cli.scoring.weights import ranked

POOL = pairs(*range(12))
SURVIVED: set[str] = set()
EXACT = ("--kv-type", "f32", "--flash-attn", "off")  # the self-check is strict with a model so tiny


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of this test's own."""
    directory = tmp_path / "kept"
    monkeypatch.setenv("DELIFT_CACHE", str(directory))
    return directory


@pytest.fixture
def half_model(tiny_model: Callable[..., Path]) -> ModelFile:
    return ModelFile(tiny_model("bpe", dtype="f16"))


def run(tmp_path: Path, *options: object, verb: str = "score") -> Any:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(POOL)
    for key in SURVIVED:  # architectures that need no check in a process of its own, which takes a second
        remember(BOOK, key, True)
    done = delift(verb, pool, "-m", tiny_runs.model(), "--threads", 1, *options)
    SURVIVED.update(key for key, found in read_book(BOOK).items() if found is True)
    return done


class TestConvertedCopies:
    def test_made_once_and_named_after_the_original(self, half_model: ModelFile, kept: Path) -> None:
        first = converted.converted(half_model, "a" * 64, "f32", threads=1)
        written = first.path.stat().st_mtime_ns, first.path.read_bytes()
        second = converted.converted(half_model, "a" * 64, "f32", threads=1)
        assert first.path == second.path == kept / f"{half_model.path.stem}-{'a' * 16}-f32.gguf"
        assert second.path.read_bytes() == written[1]
        assert first.quantization() == "F32"

    def test_as_is_is_the_file_itself(self, half_model: ModelFile, kept: Path) -> None:
        assert converted.converted(half_model, "a" * 64, "as-is", threads=1) is half_model
        assert not kept.exists()

    def test_another_model_of_the_same_name_gets_its_own_copy(self, half_model: ModelFile) -> None:
        first = converted.converted(half_model, "a" * 64, "f32", threads=1)
        second = converted.converted(half_model, "b" * 64, "f32", threads=1)
        assert first.path != second.path

    def test_the_least_recently_used_go_first(self, half_model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
        one = converted.converted(half_model, "1" * 64, "f32", threads=1).path
        two = converted.converted(half_model, "2" * 64, "f32", threads=1).path
        converted.converted(half_model, "1" * 64, "f32", threads=1)  # used again
        room = (one.stat().st_size + two.stat().st_size) / 1e9
        monkeypatch.setenv("DELIFT_CACHE_GB", f"{room * 1.5:.9f}")
        three = converted.converted(half_model, "3" * 64, "f32", threads=1).path
        assert one.exists()
        assert three.exists()
        assert not two.exists()

    def test_a_limit_that_is_no_number(self, half_model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DELIFT_CACHE_GB", "plenty")
        with pytest.raises(InputError, match="number of gigabytes"):
            converted.converted(half_model, "a" * 64, "f32", threads=1)

    def test_listed_and_cleared(self, half_model: ModelFile, kept: Path) -> None:
        converted.converted(half_model, "a" * 64, "f32", threads=1)
        listed = delift("cache", "--json").json
        assert listed["directory"] == str(kept)
        assert [entry["file"] for entry in listed["models"]] == [f"{half_model.path.stem}-{'a' * 16}-f32.gguf"]
        assert "1 model, " in delift("cache").out.decode()
        assert delift("cache", "--clear").code == 0
        assert not list(kept.glob("*"))


class TestBelief:
    """A kept copy is used only where it is the very file that was written as that copy."""

    def test_what_is_not_what_was_written_is_converted_again(
        self, half_model: ModelFile, tiny_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = converted.converted(half_model, "a" * 64, "f32", threads=1).path
        good, other = path.read_bytes(), tiny_model("bpe", seed=5).read_bytes()

        def linked() -> None:
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")

        harms: dict[str, Callable[[], object]] = {
            "a bit": lambda: path.write_bytes(good[:-1] + bytes([good[-1] ^ 1])),
            "another model": lambda: path.write_bytes(other),
            "no note": lambda: path.with_suffix(".gguf.json").unlink(),
            "others may write": lambda: path.chmod(0o666),
            "a link": linked,
        }
        for name, harm in harms.items():
            harm()
            said: list[str] = []
            again = converted.converted(half_model, "a" * 64, "f32", threads=1, say=said.append).path
            assert again.read_bytes() == good, name
            assert not again.is_symlink()
            assert again.stat().st_mode & 0o777 == 0o644
            assert "is not the copy that delift wrote" in said[0]

    def test_what_a_killed_conversion_left_is_listed_and_goes_with_the_next(
        self, half_model: ModelFile, kept: Path
    ) -> None:
        kept.mkdir()
        (kept / "x-f32.123.part").write_bytes(b"x" * 10)
        assert delift("cache", "--json").json["unfinished"] == [{"file": "x-f32.123.part", "bytes": 10}]
        converted.converted(half_model, "a" * 64, "f32", threads=1)
        assert not list(kept.glob("*.part"))

    def test_a_conversion_leaves_alone_what_is_being_received(
        self, half_model: ModelFile, kept: Path, tmp_path: Path
    ) -> None:
        sent = content_of(half_model.path, half_model.identity()["sha256"])._replace(path="/nowhere/sent.gguf")
        data = half_model.path.read_bytes()
        take_part(sent, 0, 0, data[:100])
        converted.converted(half_model, "a" * 64, "f32", threads=1)
        (arriving,) = delift("cache", "--json").json["unfinished"]
        assert (arriving["file"].startswith("sent-"), arriving["bytes"]) == (True, 100)
        take_part(sent, 0, 100, data[100:])
        keep(sent)
        assert [path.read_bytes() for path in kept.glob("sent-*")] == [data]

    def test_two_processes_convert_once(self, half_model: ModelFile, kept: Path) -> None:
        """The second one finds the lock taken, waits, and uses what the first one wrote."""
        said: list[str] = []
        with ThreadPoolExecutor(2) as both, kept_room.locked("converting"):
            paths = [
                both.submit(converted.converted, half_model, "a" * 64, "f32", threads=1, say=said.append)
                for _ in range(2)
            ]
            while len(said) < 2:
                time.sleep(0.01)
        first, second = (future.result().path for future in paths)
        assert first == second
        assert len(list(kept.glob("*.gguf"))) == 1
        assert said == ["waiting for another delift that converts a model"] * 2

    def test_a_copy_that_is_only_to_be_read_is_used(
        self, half_model: ModelFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As root's is, in a directory that several users share."""
        path = converted.converted(half_model, "a" * 64, "f32", threads=1).path

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "utime", refuse)
        assert converted.converted(half_model, "a" * 64, "f32", threads=1).path == path

    def test_a_directory_that_takes_nothing_is_named(
        self, half_model: ModelFile, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept.mkdir()

        def refuse(path: Path, *_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        for change in ("touch", "unlink"):
            monkeypatch.setattr(Path, change, refuse)
        with pytest.raises(RunError) as told:
            converted.converted(half_model, "a" * 64, "f32", threads=1)
        assert str(told.value) == (
            f"cannot keep a converted model in {kept}: Read-only file system; set $DELIFT_CACHE to another place or "
            "use --weights as-is"
        )

    def test_a_conversion_that_takes_too_long(self, half_model: ModelFile, kept: Path) -> None:
        with pytest.raises(RunError, match=r"stopped after 0 s"):
            converted.converted(half_model, "a" * 64, "f32", threads=1, seconds=0.01)
        assert not list(kept.glob("*.gguf*")) + list(kept.glob("*.part"))


MACHINES = {
    "GPU": {"GPU", "AVX2", "AVX512", "AVX512_BF16"},
    "BF16": {"AVX2", "AVX512", "AVX512_BF16", "AVX512_VNNI"},
    "AVX512": {"AVX2", "AVX512"},
    "AVX2": {"AVX", "AVX2", "FMA", "F16C"},
    "ARM": {"NEON", "ARM_FMA"},
    "ARM i8mm": {"NEON", "ARM_FMA", "DOTPROD", "MATMUL_INT8"},
    "old": {"SSE3"},
}


class TestTable:
    @pytest.mark.parametrize(
        ("machine", "own", "best"),
        [
            ("BF16", "Q4_1", "bf16"),  # measured: 1851 tokens/s against 472
            ("BF16", "F16", "bf16"),
            ("BF16", "BF16", None),
            ("AVX512", "Q4_1", "f32"),  # measured: 655 against 255
            ("AVX2", "Q4_1", "f16"),  # measured: 547 against 241
            ("AVX2", "BF16", "f16"),
            ("AVX2", "F16", None),
            ("ARM", "F32", "f16"),
            ("ARM i8mm", "F16", "q8_0"),
            ("GPU", "Q4_1", None),
            ("GPU", "F32", "f16"),
            ("old", "Q4_1", "f32"),
        ],
    )
    def test_the_first_guess(self, machine: str, own: str, best: str | None) -> None:
        guesses = ranked(frozenset(MACHINES[machine]), own, tuning.CANDIDATES)
        worth = [name for name, gain in guesses if gain >= tuning.WORTH]
        assert (worth[0] if worth else None) == best
        gains = [gain for _, gain in guesses]
        assert gains == sorted(gains, reverse=True)

    def test_a_model_that_does_not_say_its_type(self) -> None:
        assert ranked(frozenset({"AVX2"}), None, tuning.CANDIDATES)[0][0] == "f16"


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(processor, "features", lambda: frozenset(MACHINES[machine]))


class TestAuto:
    def test_measured_once_and_remembered(self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tuning, "SECONDS", 600.0)  # however busy the machine is
        monkeypatch.setattr(tuning, "MOST_SECONDS", 600.0)
        pretend(monkeypatch, "BF16")
        first = run(tmp_path, "-o", tmp_path / "a", "--json")
        assert first.code == 0
        assert "tokens/s" in first.err  # says what it tries
        book = json.loads((kept / "tuning.json").read_bytes())
        second = run(tmp_path, "-o", tmp_path / "b", "--json")
        assert "tokens/s" not in second.err
        assert json.loads((kept / "tuning.json").read_bytes()) == book
        (entry,) = book.values()
        assert second.json["weights"] == first.json["weights"] == entry["weights"]
        assert set(entry["rates"]) == {"as-is", "bf16"}  # of a model in f32, nothing else is worth a copy

    def test_only_the_winner_is_kept(self, tmp_path: Path, kept: Path) -> None:
        chosen = run(tmp_path, "-o", tmp_path / "a", "--json").json["weights"]
        left = [path.name for path in kept.glob("*.gguf")]
        assert len(left) == (chosen != "as-is")
        assert all(chosen in name for name in left)

    def test_nothing_is_converted_where_the_table_promises_nothing(
        self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch, "old")
        result = run(tmp_path, "-o", tmp_path / "a", "--json")
        assert result.json["weights"] == "as-is"
        assert "no other type is likely to be faster here" in result.err
        assert not list(kept.glob("*.gguf*"))

    def test_weights_that_change_the_numbers_are_refused(
        self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch, "BF16")
        monkeypatch.setattr(tuning, "TOLERANCE", 0.0)
        result = run(tmp_path, "-o", tmp_path / "a", "--json").json
        assert result["weights"] == "as-is"
        (entry,) = json.loads((kept / "tuning.json").read_bytes()).values()
        assert "differ" in entry["rejected"]["bf16"]
        assert not list(kept.glob("*.gguf*"))

    def test_no_time_is_said_in_one_line_with_what_to_do(
        self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch, "BF16")
        monkeypatch.setattr(tuning, "SECONDS", 0.0)
        monkeypatch.setattr(tuning, "SHARE", 0.0)
        for cache in ("a", "b"):  # said again where the remembered choice is used
            result = run(tmp_path, "-o", tmp_path / cache, "--json")
            assert result.json["weights"] == "as-is"
            (line,) = [line for line in result.err.splitlines() if "no time" in line]
            assert "--weights bf16 is likely 1.6 times as fast here" in line
        assert not list(kept.glob("*.gguf*"))

    @pytest.mark.parametrize(
        "harm",
        [
            lambda entry: {**entry, "new": 1},
            lambda entry: {name: value for name, value in entry.items() if name != "promised"},
            lambda entry: {**entry, "weights": "q1_0"},
            lambda entry: {**entry, "batch": "512"},
            lambda entry: {**entry, "batch": True},
            lambda entry: {**entry, "rates": {"as-is": "fast"}},
            lambda entry: {**entry, "deviation": None},
            lambda entry: [entry],
            lambda entry: None,
        ],
    )
    def test_a_book_of_another_version_is_measured_again(
        self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Any], Any]
    ) -> None:
        pretend(monkeypatch, "old")  # nothing to measure
        run(tmp_path, "-o", tmp_path / "a")
        book = kept / "tuning.json"
        entries = json.loads(book.read_bytes())
        book.write_text(json.dumps({key: harm(entry) for key, entry in entries.items()}))
        assert run(tmp_path, "-o", tmp_path / "b").code == 0
        assert json.loads(book.read_bytes()).keys() == entries.keys()
        assert tuning._remembered(next(iter(entries))) is not None

    def test_a_book_that_is_no_book(self, tmp_path: Path, kept: Path) -> None:
        kept.mkdir()
        (kept / "tuning.json").write_bytes(b"[1, 2")
        assert run(tmp_path, "-o", tmp_path / "a").code == 0

    def test_the_manifest_has_what_was_used(self, tmp_path: Path) -> None:
        assert run(tmp_path, "-o", tmp_path / "a", "--weights", "q8_0").code == 0
        manifest = json.loads((tmp_path / "a" / "manifest.json").read_bytes())
        assert manifest["weights"]["type"] == "q8_0"

    def test_goes_on_with_the_weights_it_began_with(self, tmp_path: Path) -> None:
        cache = tmp_path / "a"
        assert run(tmp_path, "-o", cache, "--weights", "q8_0").code == 0
        again = run(tmp_path, "-o", cache, "--json")
        assert again.json["weights"] == "q8_0"
        assert again.json["pairs_scored"] == 0

    def test_other_weights_asked_for_are_a_mismatch(self, tmp_path: Path) -> None:
        cache = tmp_path / "a"
        assert run(tmp_path, "-o", cache, *EXACT, "--weights", "q8_0").code == 0
        said = run(tmp_path, "-o", cache, *EXACT, "--weights", "as-is").refusal()
        assert "weights.type (there q8_0, now as-is)" in said

    def test_f32_keeps_the_numbers_of_f16(self, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
        model = tiny_model("bpe", dtype="f16")
        arrays = []
        for choice in ("as-is", "f32"):
            run(tmp_path, "-m", model, "-o", tmp_path / choice, "--weights", choice)
            arrays.append(np.load(tmp_path / choice / "distance.npy"))
        assert np.abs(arrays[0] - arrays[1]).max() < 2e-3


class TestDryRun:
    def test_tokens_are_those_of_the_run(self, tmp_path: Path) -> None:
        options = ("-o", tmp_path / "a", "--weights", "as-is", "--json")
        forecast = run(tmp_path, *options, "--dry-run").json
        assert not (tmp_path / "a").exists()
        done = run(tmp_path, *options).json
        base = done["tokens_evaluated"] - forecast["tokens"]  # the targets without an example
        assert 0 < base < done["tokens_evaluated"] / 5
        assert forecast["pairs"] == done["pairs_scored"] == 144
        assert forecast["plain_tokens"] == done["tokens_one_by_one"]
        assert forecast["disk_bytes"] == 144 * 8
        assert forecast["seconds"] > 0
        assert forecast["memory_bytes"] > 0


class TestBench:
    def test_everything_side_by_side(self, tmp_path: Path) -> None:
        result = run(tmp_path, "--weights", "as-is", "--seconds", 1, "--json", "-q", verb="bench").json
        shares = result["scoring"]["shares"]
        assert sum(shares.values()) == pytest.approx(1.0)
        assert all(0 <= share <= 1 for share in shares.values())
        ours = result["scoring"]["pairs_per_second"]
        assert result["plain_loop"]["ratio"] == pytest.approx(ours / result["plain_loop"]["pairs_per_second"])
        raw = result["raw_tokens_per_second"]
        assert result["scoring"]["share_of_raw"] == pytest.approx(result["scoring"]["tokens_per_second"] / raw)
        assert result["forecast"]["pairs"] == 144

    def test_without_the_plain_loop(self, tmp_path: Path) -> None:
        result = run(tmp_path, "--weights", "as-is", "--seconds", 1, "--no-plain", verb="bench")
        assert result.code == 0
        assert "raw" in result.out.decode()
        assert "plain loop" not in result.out.decode()
